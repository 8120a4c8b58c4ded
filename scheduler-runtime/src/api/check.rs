//! What a pipeline may be like: each refusal names the field and what would be right.

use bytes::Bytes;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::gateway::ApiError;
use scheduler_pipeline::PipelineDefinition;

use super::LocalNode;

impl LocalNode {
    pub(super) fn check_replicas(&self, replicas: Replicas) -> Result<Replicas, ApiError> {
        let most = self.inner.config.max_replicas;
        if replicas.max == 0 || replicas.max > most {
            return Err(ApiError::invalid(
                "replicas.max",
                format!("is {}; must be 1 to {most}", replicas.max),
            ));
        }
        if replicas.min > replicas.max {
            let problem = format!(
                "is {}; must not be more than replicas.max, {}",
                replicas.min, replicas.max
            );
            return Err(ApiError::invalid("replicas.min", problem));
        }
        Ok(replicas)
    }

    pub(super) fn check_partitions(&self, partitions: u32) -> Result<u32, ApiError> {
        let most = self.inner.config.max_partitions;
        if (1..=most).contains(&partitions) {
            Ok(partitions)
        } else {
            Err(ApiError::invalid(
                "partitions",
                format!("is {partitions}; must be 1 to {most}"),
            ))
        }
    }
}

/// A definition in the form in which it is kept.
pub(super) fn check_definition(definition: &Bytes) -> Result<Bytes, ApiError> {
    let text = std::str::from_utf8(definition).map_err(|_| ApiError::invalid("pipeline", "is not UTF-8"))?;
    let definition =
        PipelineDefinition::from_json(text).map_err(|e| ApiError::invalid(e.field, e.message))?;
    Ok(definition.to_json().into())
}

pub(super) fn check_policy(policy: &PipelinePolicy) -> Result<(), ApiError> {
    let check = |field: &str, ok: bool, rule: &str| {
        if ok {
            Ok(())
        } else {
            Err(ApiError::invalid(field, rule))
        }
    };
    let PipelinePolicy {
        retry,
        timeouts,
        window,
        ..
    } = policy;
    check(
        "retry.max_attempts",
        retry.max_attempts >= 1,
        "must be at least 1",
    )?;
    check(
        "retry.factor",
        retry.factor.is_finite() && retry.factor >= 1.0,
        "must be at least 1",
    )?;
    check(
        "retry.jitter",
        (0.0..=1.0).contains(&retry.jitter),
        "must be 0 to 1",
    )?;
    check("timeouts.run", !timeouts.run.is_zero(), "must be more than 0")?;
    check(
        "timeouts.heartbeat",
        timeouts.heartbeat.as_millis() >= 200,
        "must be at least 200ms",
    )?;
    check(
        "window.max_tasks",
        (1..=16_000_000).contains(&window.max_tasks),
        "must be 1 to 16000000",
    )?;
    check(
        "window.max_bytes",
        window.max_bytes >= 65_536,
        "must be at least 65536",
    )?;
    check(
        "window.max_span",
        window.max_span >= window.max_tasks,
        "must be at least window.max_tasks",
    )?;
    check(
        "checkpoint.interval",
        !policy.checkpoint.interval.is_zero(),
        "must be more than 0",
    )?;
    check(
        "checkpoint.max_ended",
        policy.checkpoint.max_ended >= 1,
        "must be at least 1",
    )
}
