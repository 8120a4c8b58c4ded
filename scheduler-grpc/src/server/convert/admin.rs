//! Applications, pipelines and policies.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::policy::{PipelinePolicy, Settle};
use scheduler_core::port::catalog::{Application, Replicas};
use scheduler_core::port::deploy::{Rollout, RolloutPhase};
use scheduler_core::port::gateway::{
    NewDeployment, NewPipeline, PipelineChange, PipelineCounts, PipelineView,
};
use scheduler_core::port::log::TopicSettings;
use scheduler_proto::api as wire;
use tonic::Status;

use super::to_millis;
use crate::server::call::name;
use crate::server::status::invalid;

pub(crate) fn application(application: &Application) -> wire::Application {
    wire::Application {
        name: application.name.to_string(),
        created_at_ms: application.created_at.as_millis(),
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(text: String) -> Option<Bytes> {
    Some(text).filter(|text| !text.is_empty()).map(Bytes::from)
}

pub(crate) fn new_pipeline(request: wire::CreatePipelineRequest) -> Result<NewPipeline, Status> {
    if request.chart.is_empty() {
        for (field, given) in [
            ("values", !request.values.is_empty()),
            ("min_replicas", request.min_replicas.is_some()),
            ("max_replicas", request.max_replicas.is_some()),
        ] {
            if given {
                return Err(invalid(field, "is of use only with a chart"));
            }
        }
    }
    let deployment = (!request.chart.is_empty()).then(|| NewDeployment {
        chart: request.chart,
        values: request.values.into(),
        min_replicas: request.min_replicas,
        max_replicas: request.max_replicas,
    });
    Ok(NewPipeline {
        name: name("name", &request.name)?,
        deployment,
        definition: said(request.definition),
        partitions: request.partitions,
        topic: topic(request.replication, request.topic_settings)?,
        policy: request
            .policy
            .map(|policy| apply_policy(&policy, PipelinePolicy::default()))
            .transpose()?,
    })
}

/// What is asked of a topic, if anything is.
fn topic(
    replication: Option<u32>,
    settings: HashMap<String, String>,
) -> Result<Option<TopicSettings>, Status> {
    let count = |copies| {
        let copies = u16::try_from(copies).ok().filter(|copies| *copies > 0);
        copies.ok_or_else(|| invalid("replication", "must be 1 to 65535"))
    };
    let topic = TopicSettings {
        replication: replication.map(count).transpose()?,
        settings: settings.into_iter().collect(),
    };
    Ok(Some(topic).filter(|topic| *topic != TopicSettings::default()))
}

/// A change of a pipeline that is `now` so.
pub(crate) fn change(
    request: wire::UpdatePipelineRequest,
    now: &PipelineView,
) -> Result<PipelineChange, Status> {
    let current = now.pipeline.deployment.as_ref();
    let deployment = if request.chart.is_none() && request.values.is_none() {
        None
    } else {
        let chart = request
            .chart
            .or_else(|| current.map(|deployment| deployment.chart.clone()))
            .filter(|chart| !chart.is_empty())
            .ok_or_else(|| invalid("chart", "must say where the chart is"))?;
        let values = request
            .values
            .map(Bytes::from)
            .or_else(|| current.map(|deployment| deployment.values.clone()))
            .unwrap_or_default();
        Some(NewDeployment {
            chart,
            values,
            min_replicas: request.min_replicas,
            max_replicas: request.max_replicas,
        })
    };
    Ok(PipelineChange {
        deployment,
        definition: request.definition.map(Bytes::from),
        policy: request
            .policy
            .map(|policy| apply_policy(&policy, now.pipeline.policy.clone()))
            .transpose()?,
        partitions: request.partitions,
        paused: None,
        min_replicas: request.min_replicas,
        max_replicas: request.max_replicas,
    })
}

/// `base` with what `policy` says; values that can never be are refused, whether they fit each other is the gateway's to see.
fn apply_policy(policy: &wire::Policy, mut base: PipelinePolicy) -> Result<PipelinePolicy, Status> {
    let set = |target: &mut Duration, field: &str, value: Option<u64>| match value {
        Some(0) => Err(invalid(
            &format!("policy.{field}"),
            "must be at least 1 millisecond",
        )),
        Some(millis) => {
            *target = Duration::from_millis(millis);
            Ok(())
        }
        None => Ok(()),
    };
    let optional = |target: &mut Option<Duration>, value: Option<u64>| {
        if let Some(millis) = value {
            *target = (millis > 0).then(|| Duration::from_millis(millis));
        }
    };
    let count = |target: &mut u32, field: &str, value: Option<u32>| match value {
        Some(0) => Err(invalid(&format!("policy.{field}"), "must be at least 1")),
        Some(value) => {
            *target = value;
            Ok(())
        }
        None => Ok(()),
    };

    count(&mut base.retry.max_attempts, "max_attempts", policy.max_attempts)?;
    set(
        &mut base.retry.initial_backoff,
        "initial_backoff_ms",
        policy.initial_backoff_ms,
    )?;
    set(
        &mut base.retry.max_backoff,
        "max_backoff_ms",
        policy.max_backoff_ms,
    )?;
    if let Some(factor) = policy.backoff_factor {
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(invalid("policy.backoff_factor", "must be a number of at least 1"));
        }
        base.retry.factor = factor;
    }
    if let Some(jitter) = policy.backoff_jitter {
        if !(0.0..=1.0).contains(&jitter) {
            return Err(invalid("policy.backoff_jitter", "must be 0 to 1"));
        }
        base.retry.jitter = jitter;
    }
    base.retry.seed = policy.backoff_seed.unwrap_or(base.retry.seed);
    optional(&mut base.timeouts.start, policy.start_timeout_ms);
    set(&mut base.timeouts.run, "run_timeout_ms", policy.run_timeout_ms)?;
    set(
        &mut base.timeouts.heartbeat,
        "heartbeat_timeout_ms",
        policy.heartbeat_timeout_ms,
    )?;
    optional(&mut base.timeouts.total, policy.total_timeout_ms);
    count(&mut base.window.max_tasks, "window_tasks", policy.window_tasks)?;
    count(&mut base.window.max_span, "window_span", policy.window_span)?;
    if let Some(bytes) = policy.window_bytes {
        base.window.max_bytes = usize::try_from(bytes)
            .ok()
            .filter(|&bytes| bytes > 0)
            .ok_or_else(|| invalid("policy.window_bytes", "must be at least 1"))?;
    }
    set(&mut base.window.park_after, "park_after_ms", policy.park_after_ms)?;
    set(
        &mut base.retention.results,
        "result_retention_ms",
        policy.result_retention_ms,
    )?;
    set(
        &mut base.retention.dead,
        "dead_letter_retention_ms",
        policy.dead_letter_retention_ms,
    )?;
    match policy.settle.map(wire::Settle::try_from) {
        None => (),
        Some(Ok(wire::Settle::Checkpoint)) => base.settle = Settle::Checkpoint,
        Some(Ok(wire::Settle::Commit)) => base.settle = Settle::Commit,
        Some(Ok(wire::Settle::Unspecified) | Err(_)) => {
            return Err(invalid(
                "policy.settle",
                "must be SETTLE_CHECKPOINT or SETTLE_COMMIT",
            ));
        }
    }
    Ok(base)
}

fn policy(policy: &PipelinePolicy) -> wire::Policy {
    wire::Policy {
        max_attempts: Some(policy.retry.max_attempts),
        initial_backoff_ms: Some(to_millis(policy.retry.initial_backoff)),
        backoff_factor: Some(policy.retry.factor),
        max_backoff_ms: Some(to_millis(policy.retry.max_backoff)),
        backoff_jitter: Some(policy.retry.jitter),
        backoff_seed: Some(policy.retry.seed),
        start_timeout_ms: Some(policy.timeouts.start.map_or(0, to_millis)),
        run_timeout_ms: Some(to_millis(policy.timeouts.run)),
        heartbeat_timeout_ms: Some(to_millis(policy.timeouts.heartbeat)),
        total_timeout_ms: Some(policy.timeouts.total.map_or(0, to_millis)),
        window_tasks: Some(policy.window.max_tasks),
        window_bytes: Some(policy.window.max_bytes as u64),
        window_span: Some(policy.window.max_span),
        park_after_ms: Some(to_millis(policy.window.park_after)),
        result_retention_ms: Some(to_millis(policy.retention.results)),
        dead_letter_retention_ms: Some(to_millis(policy.retention.dead)),
        settle: Some(match policy.settle {
            Settle::Checkpoint => wire::Settle::Checkpoint.into(),
            Settle::Commit => wire::Settle::Commit.into(),
        }),
    }
}

pub(crate) fn pipeline(view: &PipelineView) -> wire::Pipeline {
    let pipeline = &view.pipeline;
    let (chart, values, replicas) = match &pipeline.deployment {
        Some(deployment) => (
            deployment.chart.clone(),
            text(&deployment.values),
            deployment.replicas,
        ),
        None => (String::new(), String::new(), Replicas { min: 0, max: 0 }),
    };
    wire::Pipeline {
        application: pipeline.path.application.to_string(),
        name: pipeline.path.pipeline.to_string(),
        version: pipeline.version,
        created_at_ms: pipeline.created_at.as_millis(),
        partitions: pipeline.partitions,
        paused: pipeline.paused,
        policy: Some(policy(&pipeline.policy)),
        definition: text(&pipeline.definition),
        chart,
        values,
        min_replicas: replicas.min,
        max_replicas: replicas.max,
        rollout: view.rollout.as_ref().map(rollout),
        counts: Some(counts(view.counts)),
        problems: view.problems.clone(),
        replication: pipeline.topic.replication.map(u32::from),
        topic_settings: pipeline.topic.settings.clone().into_iter().collect(),
    }
}

fn rollout(rollout: &Rollout) -> wire::Rollout {
    let phase = match rollout.phase {
        RolloutPhase::Pending => "pending",
        RolloutPhase::Deploying => "deploying",
        RolloutPhase::Ready => "ready",
        RolloutPhase::Failed => "failed",
    };
    wire::Rollout {
        phase: phase.to_owned(),
        wanted: rollout.wanted,
        ready: rollout.ready,
        problem: rollout.problem.clone(),
    }
}

fn counts(counts: PipelineCounts) -> wire::Counts {
    wire::Counts {
        backlog: counts.backlog,
        ready: counts.ready,
        delayed: counts.delayed,
        running: counts.running,
        succeeded: counts.succeeded,
        dead: counts.dead,
        cancelled: counts.cancelled,
        workers: counts.workers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_survives_the_wire() {
        let mut there = PipelinePolicy::default();
        there.retry.max_attempts = 7;
        there.retry.jitter = 0.5;
        there.timeouts.total = Some(Duration::from_secs(90));
        there.window.max_bytes = 4096;
        assert_eq!(
            apply_policy(&policy(&there), PipelinePolicy::default()).unwrap(),
            there
        );
    }

    #[test]
    fn what_is_not_said_stays() {
        let mut there = PipelinePolicy::default();
        there.retry.max_attempts = 7;
        assert_eq!(
            apply_policy(&wire::Policy::default(), there.clone()).unwrap(),
            there
        );
    }

    #[test]
    fn what_can_never_be_is_refused_by_name() {
        let refused = |policy: wire::Policy| {
            apply_policy(&policy, PipelinePolicy::default())
                .unwrap_err()
                .message()
                .to_owned()
        };
        let some = wire::Policy::default;
        for (field, policy) in [
            (
                "max_attempts",
                wire::Policy {
                    max_attempts: Some(0),
                    ..some()
                },
            ),
            (
                "backoff_factor",
                wire::Policy {
                    backoff_factor: Some(f64::NAN),
                    ..some()
                },
            ),
            (
                "backoff_jitter",
                wire::Policy {
                    backoff_jitter: Some(1.5),
                    ..some()
                },
            ),
            (
                "run_timeout_ms",
                wire::Policy {
                    run_timeout_ms: Some(0),
                    ..some()
                },
            ),
            (
                "window_bytes",
                wire::Policy {
                    window_bytes: Some(0),
                    ..some()
                },
            ),
        ] {
            let message = refused(policy);
            assert!(message.starts_with(&format!("policy.{field}: ")), "{message}");
        }
    }
}
