//! The policy of a pipeline: what is said changes, what is not said stays.

use scheduler_core::policy::{Aging, PipelinePolicy, Settle};
use scheduler_core::port::gateway::ApiError;
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

use crate::human::{HumanDuration, HumanSize};
use crate::problem::Problem;

/// What a pipeline's tasks go by. In a request every field may be left out: it keeps its value, or its default when the pipeline is created.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Policy)]
pub(crate) struct PolicyBody {
    /// When a failed attempt is followed by another.
    #[schema(nullable = false)]
    retry: Option<RetryBody>,
    /// How long each part of a task's life may take.
    #[schema(nullable = false)]
    timeouts: Option<TimeoutsBody>,
    /// How long a task must wait to count as one priority higher, so that nothing starves. Default 30s.
    #[schema(nullable = false)]
    aging: Option<HumanDuration>,
    /// How often what has happened is saved.
    #[schema(nullable = false)]
    checkpoint: Option<CheckpointBody>,
    /// How much each partition holds in memory. What is beyond it stays in the log.
    #[schema(nullable = false)]
    window: Option<WindowBody>,
    /// How long what has ended is kept.
    #[schema(nullable = false)]
    retention: Option<RetentionBody>,
    /// When a worker may forget what it reported. Default `checkpoint`.
    #[schema(nullable = false)]
    settle: Option<SettleBody>,
}

/// What is lost if a worker and the partition's scheduler die together: `checkpoint`, what was reported since the last checkpoint;
/// `commit`, what was reported in the last milliseconds, for a transaction every few milliseconds while there are reports.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Settle)]
enum SettleBody {
    Checkpoint,
    Commit,
}

/// The delay before attempt n + 1 is `initial_backoff * factor^(n - 1)`, at most `max_backoff`, less a random share of up to `jitter`.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Retry)]
struct RetryBody {
    /// How often a task is tried in all. Default 5.
    #[schema(nullable = false, minimum = 1)]
    max_attempts: Option<u32>,
    /// The delay before the second attempt. Default 1s.
    #[schema(nullable = false)]
    initial_backoff: Option<HumanDuration>,
    /// What the delay is multiplied by for each further attempt. Default 2.
    #[schema(nullable = false, minimum = 1)]
    factor: Option<f64>,
    /// The longest delay. Default 5m.
    #[schema(nullable = false)]
    max_backoff: Option<HumanDuration>,
    /// The share of the delay that is left to chance. Default 0.2.
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    jitter: Option<f64>,
    /// Where the chance comes from. Default 0.
    #[schema(nullable = false)]
    seed: Option<u64>,
}

/// How long each part of a task's life may take; `null` for no limit, where there can be none.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Timeouts)]
#[expect(clippy::option_option, reason = "null and nothing are not the same here")]
struct TimeoutsBody {
    /// From being accepted (or its not-before) to the first attempt; then the task expires. Default none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HumanDuration>)]
    start: Option<Option<HumanDuration>>,
    /// Of one attempt; then it failed and the worker is told to stop. Default 1h.
    #[schema(nullable = false)]
    run: Option<HumanDuration>,
    /// From one sign of life of the worker to the next; then the attempt is lost. Default 30s.
    #[schema(nullable = false)]
    heartbeat: Option<HumanDuration>,
    /// From being accepted (or its not-before) to its end, over all attempts; then the task expires. Default none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<HumanDuration>)]
    total: Option<Option<HumanDuration>>,
}

/// How often what has happened is saved. A worker keeps each report until it is.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CheckpointPolicy)]
struct CheckpointBody {
    /// The longest time until a change is saved. Default 2s.
    #[schema(nullable = false)]
    interval: Option<HumanDuration>,
    /// Saved at once when so many tasks have ended. Default 32768.
    #[schema(nullable = false, minimum = 1)]
    max_ended: Option<u32>,
}

/// How much each partition holds in memory.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Window)]
struct WindowBody {
    /// Most live tasks. Default 16384.
    #[schema(nullable = false, minimum = 1)]
    max_tasks: Option<u32>,
    /// Most bytes of their params and of results that are not saved yet. Default 16MiB.
    #[schema(nullable = false)]
    max_bytes: Option<HumanSize>,
    /// Most records of the log between the oldest unfinished task and the newest. Default 262144.
    #[schema(nullable = false, minimum = 1)]
    max_span: Option<u32>,
    /// A task that waits longer than this waits in the store. Default 2m.
    #[schema(nullable = false)]
    park_after: Option<HumanDuration>,
}

/// How long what has ended is kept.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Retention)]
struct RetentionBody {
    /// Results. Default 1day.
    #[schema(nullable = false)]
    results: Option<HumanDuration>,
    /// Dead letters. Default 30days.
    #[schema(nullable = false)]
    dead: Option<HumanDuration>,
}

/// Tells `null` from nothing.
#[expect(clippy::option_option, reason = "null and nothing are not the same here")]
fn said<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// The gateway's error about a policy, with the field as a request has it: `policy.retry.jitter`.
pub(crate) fn of_request(error: ApiError) -> Problem {
    let problem = Problem::from(error);
    let is_of_policy = problem.field.as_deref().is_some_and(|field| {
        let group = field.split('.').next().unwrap_or_default();
        ["retry", "timeouts", "aging", "checkpoint", "window", "retention"].contains(&group)
    });
    match &problem.field {
        Some(field) if is_of_policy => {
            let field = format!("policy.{field}");
            problem.at(field)
        }
        _ => problem,
    }
}

fn set<T>(slot: &mut T, said: Option<T>) {
    if let Some(value) = said {
        *slot = value;
    }
}

fn check(ok: bool, field: &'static str, detail: &'static str) -> Result<(), Problem> {
    if ok {
        Ok(())
    } else {
        Err(Problem::invalid(field, detail))
    }
}

fn lasting(slot: &mut Duration, said: Option<HumanDuration>, field: &'static str) -> Result<(), Problem> {
    set(slot, said.map(|duration| duration.0));
    check(!slot.is_zero(), field, "must be longer than 0s")
}

impl PolicyBody {
    /// Changes `policy` by what was said, and checks the outcome.
    pub(crate) fn apply(self, policy: &mut PipelinePolicy) -> Result<(), Problem> {
        if let Some(retry) = self.retry {
            retry.apply(policy)?;
        }
        if let Some(timeouts) = self.timeouts {
            timeouts.apply(policy)?;
        }
        lasting(&mut policy.aging.0, self.aging, "policy.aging")?;
        if let Some(checkpoint) = self.checkpoint {
            let to = &mut policy.checkpoint;
            lasting(
                &mut to.interval,
                checkpoint.interval,
                "policy.checkpoint.interval",
            )?;
            set(&mut to.max_ended, checkpoint.max_ended);
            check(
                to.max_ended > 0,
                "policy.checkpoint.max_ended",
                "must be at least 1",
            )?;
        }
        if let Some(window) = self.window {
            let to = &mut policy.window;
            set(&mut to.max_tasks, window.max_tasks);
            set(&mut to.max_bytes, window.max_bytes.map(|size| size.0));
            set(&mut to.max_span, window.max_span);
            lasting(&mut to.park_after, window.park_after, "policy.window.park_after")?;
            check(to.max_tasks > 0, "policy.window.max_tasks", "must be at least 1")?;
            check(to.max_bytes > 0, "policy.window.max_bytes", "must be at least 1")?;
            check(
                to.max_span >= to.max_tasks,
                "policy.window.max_span",
                "must be at least max_tasks",
            )?;
        }
        if let Some(retention) = self.retention {
            let to = &mut policy.retention;
            lasting(&mut to.results, retention.results, "policy.retention.results")?;
            lasting(&mut to.dead, retention.dead, "policy.retention.dead")?;
        }
        let settle = self.settle.map(|settle| match settle {
            SettleBody::Checkpoint => Settle::Checkpoint,
            SettleBody::Commit => Settle::Commit,
        });
        set(&mut policy.settle, settle);
        Ok(())
    }
}

impl RetryBody {
    fn apply(self, policy: &mut PipelinePolicy) -> Result<(), Problem> {
        let to = &mut policy.retry;
        set(&mut to.max_attempts, self.max_attempts);
        set(&mut to.initial_backoff, self.initial_backoff.map(|d| d.0));
        set(&mut to.factor, self.factor);
        set(&mut to.max_backoff, self.max_backoff.map(|d| d.0));
        set(&mut to.jitter, self.jitter);
        set(&mut to.seed, self.seed);
        check(
            to.max_attempts > 0,
            "policy.retry.max_attempts",
            "must be at least 1",
        )?;
        check(
            to.factor.is_finite() && to.factor >= 1.0,
            "policy.retry.factor",
            "must be at least 1",
        )?;
        check(
            (0.0..=1.0).contains(&to.jitter),
            "policy.retry.jitter",
            "must be 0 to 1",
        )?;
        check(
            to.initial_backoff <= to.max_backoff,
            "policy.retry.initial_backoff",
            "must not be longer than max_backoff",
        )
    }
}

impl TimeoutsBody {
    fn apply(self, policy: &mut PipelinePolicy) -> Result<(), Problem> {
        let to = &mut policy.timeouts;
        set(&mut to.start, self.start.map(|start| start.map(|d| d.0)));
        set(&mut to.total, self.total.map(|total| total.map(|d| d.0)));
        lasting(&mut to.run, self.run, "policy.timeouts.run")?;
        lasting(&mut to.heartbeat, self.heartbeat, "policy.timeouts.heartbeat")?;
        for (timeout, field) in [
            (to.start, "policy.timeouts.start"),
            (to.total, "policy.timeouts.total"),
        ] {
            check(
                timeout.is_none_or(|t| !t.is_zero()),
                field,
                "must be longer than 0s; null is for no limit",
            )?;
        }
        Ok(())
    }
}

impl From<&PipelinePolicy> for PolicyBody {
    fn from(policy: &PipelinePolicy) -> Self {
        let duration = |d| Some(HumanDuration(d));
        let PipelinePolicy {
            retry,
            timeouts,
            aging: Aging(aging),
            checkpoint,
            window,
            retention,
            settle,
        } = policy;
        Self {
            retry: Some(RetryBody {
                max_attempts: Some(retry.max_attempts),
                initial_backoff: duration(retry.initial_backoff),
                factor: Some(retry.factor),
                max_backoff: duration(retry.max_backoff),
                jitter: Some(retry.jitter),
                seed: Some(retry.seed),
            }),
            timeouts: Some(TimeoutsBody {
                start: Some(timeouts.start.map(HumanDuration)),
                run: duration(timeouts.run),
                heartbeat: duration(timeouts.heartbeat),
                total: Some(timeouts.total.map(HumanDuration)),
            }),
            aging: duration(*aging),
            checkpoint: Some(CheckpointBody {
                interval: duration(checkpoint.interval),
                max_ended: Some(checkpoint.max_ended),
            }),
            window: Some(WindowBody {
                max_tasks: Some(window.max_tasks),
                max_bytes: Some(HumanSize(window.max_bytes)),
                max_span: Some(window.max_span),
                park_after: duration(window.park_after),
            }),
            retention: Some(RetentionBody {
                results: duration(retention.results),
                dead: duration(retention.dead),
            }),
            settle: Some(match settle {
                Settle::Checkpoint => SettleBody::Checkpoint,
                Settle::Commit => SettleBody::Commit,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let mut policy = PipelinePolicy::default();
        policy.timeouts.total = Some(Duration::from_mins(90));
        policy.retry.factor = 1.5;
        policy.settle = Settle::Commit;
        let shown = serde_json::to_string(&PolicyBody::from(&policy)).unwrap();
        assert!(shown.contains(r#""total":"1h30m""#), "{shown}");
        let mut read = PipelinePolicy::default();
        serde_json::from_str::<PolicyBody>(&shown)
            .unwrap()
            .apply(&mut read)
            .unwrap();
        assert_eq!(read, policy);
    }

    /// Each field's `Default …` in the document, by its path.
    fn documented(schemas: &serde_json::Value, schema: &str, path: &str, found: &mut Vec<(String, String)>) {
        for (name, field) in schemas[schema]["properties"].as_object().unwrap() {
            let parts = field["oneOf"].as_array().into_iter().flatten();
            let parts: Vec<_> = std::iter::once(field).chain(parts).collect();
            let said = |key: &str| parts.iter().find_map(|part| part[key].as_str());
            let group = said("$ref").and_then(|group| group.rsplit('/').next());
            if let Some(group) = group.filter(|group| schemas[*group]["properties"].is_object()) {
                documented(schemas, group, &format!("{path}/{name}"), found);
            } else {
                let (_, default) = said("description").unwrap().rsplit_once("Default ").unwrap();
                let default = default.trim_end_matches('.').trim_matches('`').to_owned();
                found.push((format!("{path}/{name}"), default));
            }
        }
    }

    #[test]
    fn the_defaults_in_the_document_are_the_defaults() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi_json().unwrap()).unwrap();
        let mut found = Vec::new();
        documented(&document["components"]["schemas"], "Policy", "", &mut found);
        assert!(found.len() >= 20, "{found:?}");
        let real = serde_json::to_value(PolicyBody::from(&PipelinePolicy::default())).unwrap();
        for (path, default) in found {
            let real = match real.pointer(&path) {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(serde_json::Value::Null) | None => "none".to_owned(),
                Some(number) => number.to_string().trim_end_matches(".0").to_owned(),
            };
            assert_eq!(default, real, "{path}");
        }
    }

    #[test]
    fn null_takes_a_timeout_away_and_silence_keeps_it() {
        let mut policy = PipelinePolicy::default();
        policy.timeouts.total = Some(Duration::from_secs(9));
        policy.timeouts.start = Some(Duration::from_secs(8));
        let body: PolicyBody = serde_json::from_str(r#"{"timeouts":{"total":null}}"#).unwrap();
        body.apply(&mut policy).unwrap();
        assert_eq!(policy.timeouts.total, None);
        assert_eq!(policy.timeouts.start, Some(Duration::from_secs(8)));
    }
}
