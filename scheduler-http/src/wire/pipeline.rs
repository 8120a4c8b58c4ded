//! What can be asked of a pipeline: to create it, to change it, to scale it.

use std::collections::BTreeMap;

use bytes::Bytes;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::gateway::{NewDeployment, NewPipeline, PipelineChange};
use scheduler_core::port::log::TopicSettings;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::application::NameText;
use super::policy::PolicyBody;
use crate::opaque::kind_of;
use crate::problem::Problem;

type Raw = Box<RawValue>;

/// Bounds on the number of workers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Replicas, example = json!({"min": 0, "max": 4}))]
pub(crate) struct ReplicasBody {
    /// At least so many. The chart's if not said.
    #[schema(nullable = false)]
    pub(super) min: Option<u32>,
    /// At most so many. The chart's if not said.
    #[schema(nullable = false)]
    pub(super) max: Option<u32>,
}

impl ReplicasBody {
    fn check(self) -> Result<Self, Problem> {
        match (self.min, self.max) {
            (_, Some(0)) => Err(Problem::invalid("replicas.max", "must be at least 1")),
            (Some(min), Some(max)) if min > max => Err(Problem::invalid(
                "replicas.min",
                format!("must not be greater than replicas.max, found {min} and {max}"),
            )),
            _ => Ok(self),
        }
    }
}

/// A pipeline to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPipeline, example = json!({
    "name": "ocr",
    "chart": "https://github.com/RyazanovAlexander/application.ocr/tree/main/chart",
    "replicas": {"min": 0, "max": 4},
    "policy": {"retry": {"max_attempts": 3}, "timeouts": {"run": "5m"}}
}))]
pub(crate) struct NewPipelineBody {
    /// 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter and not ending in `-`; unique in the application.
    name: NameText,
    /// Where the chart of its workers is: a GitHub tree URL, `oci://…`, an http(s) `.tgz`, `repo/chart` or a directory on the server, as far as
    /// the server allows. Without one, workers come by themselves.
    #[schema(nullable = false)]
    chart: Option<String>,
    /// Values that override the chart's.
    #[schema(value_type = Option<Object>, nullable = false)]
    values: Option<Raw>,
    /// Bounds on the number of workers.
    #[schema(nullable = false)]
    replicas: Option<ReplicasBody>,
    /// The steps of every task, in order: `[{"executor": "wget", "commands": ["wget -O /mnt/pipe/in {{url}}"], "timeoutSeconds": 60}]`;
    /// `executorName` and `commandLines` are taken too. Overrides the chart's.
    #[schema(value_type = Option<Vec<Object>>, nullable = false)]
    pipeline: Option<Raw>,
    /// Means the same as `pipeline`.
    #[schema(value_type = Option<Vec<Object>>, nullable = false)]
    commands: Option<Raw>,
    /// Which params tasks may have, beside the steps.
    #[schema(value_type = Option<Object>, nullable = false)]
    params: Option<Raw>,
    /// How many partitions its log has: how far it spreads over nodes. The server's default if not said; it can grow, not shrink.
    #[schema(nullable = false, minimum = 1)]
    partitions: Option<u32>,
    /// How many copies of each partition its Kafka topic has. The server's default if not said; it cannot be changed here later.
    #[schema(nullable = false, minimum = 1)]
    replication: Option<u16>,
    /// Settings of its Kafka topic, such as `{"min.insync.replicas": "2"}`, over those of the server; they cannot be changed here later.
    #[schema(nullable = false)]
    topic_settings: Option<BTreeMap<String, String>>,
    /// What its tasks go by; what is not said has its default.
    #[schema(nullable = false)]
    policy: Option<PolicyBody>,
}

impl NewPipelineBody {
    /// What the gateway is asked for.
    pub(crate) fn into_new(self) -> Result<NewPipeline, Problem> {
        let replicas = self.replicas.unwrap_or_default().check()?;
        let values = self.values.as_deref().map(object_of_values).transpose()?;
        let deployment = match self.chart {
            Some(chart) => Some(NewDeployment {
                chart: checked_chart(chart)?,
                values: values.unwrap_or_default(),
                min_replicas: replicas.min,
                max_replicas: replicas.max,
            }),
            None if values.is_some() => return Err(needs_chart("values")),
            None if self.replicas.is_some() => return Err(needs_chart("replicas")),
            None => None,
        };
        let policy = match self.policy {
            Some(said) => {
                let mut policy = PipelinePolicy::default();
                said.apply(&mut policy)?;
                Some(policy)
            }
            None => None,
        };
        Ok(NewPipeline {
            name: self.name.0,
            deployment,
            definition: definition(
                self.pipeline.as_deref(),
                self.commands.as_deref(),
                self.params.as_deref(),
            )?,
            partitions: checked_partitions(self.partitions)?,
            topic: topic(self.replication, self.topic_settings)?,
            policy,
        })
    }
}

/// What is to change about a pipeline; what is not said stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PipelineChange, example = json!({"replicas": {"max": 8}, "policy": {"retry": {"max_attempts": 10}}}))]
pub(crate) struct PipelineChangeBody {
    /// Another chart. The values stay; bounds that are not said are those of the new chart.
    #[schema(nullable = false)]
    chart: Option<String>,
    /// Other values, instead of all the old ones.
    #[schema(value_type = Option<Object>, nullable = false)]
    values: Option<Raw>,
    /// Other bounds on the number of workers.
    #[schema(nullable = false)]
    replicas: Option<ReplicasBody>,
    /// Other steps, for attempts that begin after the change.
    #[schema(value_type = Option<Vec<Object>>, nullable = false)]
    pipeline: Option<Raw>,
    /// Means the same as `pipeline`.
    #[schema(value_type = Option<Vec<Object>>, nullable = false)]
    commands: Option<Raw>,
    /// Which params tasks may have, beside the steps.
    #[schema(value_type = Option<Object>, nullable = false)]
    params: Option<Raw>,
    /// More partitions.
    #[schema(nullable = false, minimum = 1)]
    partitions: Option<u32>,
    /// Whether its tasks wait.
    #[schema(nullable = false)]
    paused: Option<bool>,
    /// What its tasks go by. Of two that change it at the same time the later wins.
    #[schema(nullable = false)]
    policy: Option<PolicyBody>,
}

impl PipelineChangeBody {
    /// Whether the change can only be told with the pipeline as it is now.
    pub(crate) fn needs_current(&self) -> bool {
        self.policy.is_some() || self.chart.is_some() || self.values.is_some()
    }

    /// What the gateway is asked for; `current` is the pipeline as it is, if that is [needed](Self::needs_current).
    pub(crate) fn into_change(self, current: Option<&Pipeline>) -> Result<PipelineChange, Problem> {
        let replicas = self.replicas.unwrap_or_default().check()?;
        let values = self.values.as_deref().map(object_of_values).transpose()?;
        let chart = self.chart.map(checked_chart).transpose()?;
        let deployed = current.and_then(|pipeline| pipeline.deployment.as_ref());
        let deployment = match (chart, values, deployed) {
            (None, None, _) => None,
            (None, Some(_), None) => return Err(needs_chart("values")),
            (None, Some(values), Some(old)) => Some(NewDeployment {
                chart: old.chart.clone(),
                values,
                min_replicas: replicas.min.or(Some(old.replicas.min)),
                max_replicas: replicas.max.or(Some(old.replicas.max)),
            }),
            (Some(chart), values, old) => Some(NewDeployment {
                chart,
                values: values
                    .or_else(|| old.map(|old| old.values.clone()))
                    .unwrap_or_default(),
                min_replicas: replicas.min,
                max_replicas: replicas.max,
            }),
        };
        let policy = match (self.policy, current) {
            (Some(said), Some(current)) => {
                let mut policy = current.policy.clone();
                said.apply(&mut policy)?;
                Some(policy)
            }
            _ => None,
        };
        let change = PipelineChange {
            deployment,
            definition: definition(
                self.pipeline.as_deref(),
                self.commands.as_deref(),
                self.params.as_deref(),
            )?,
            policy,
            partitions: checked_partitions(self.partitions)?,
            paused: self.paused,
            min_replicas: replicas.min,
            max_replicas: replicas.max,
        };
        if change == PipelineChange::default() {
            return Err(Problem::invalid(
                "body",
                "changes nothing; give at least one of chart, values, replicas, pipeline, partitions, paused, policy",
            ));
        }
        Ok(change)
    }
}

/// How many workers are wanted now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Scale, example = json!({"workers": 3}))]
pub(crate) struct ScaleBody {
    /// So many, within the bounds of `replicas`.
    pub(crate) workers: u32,
}

fn needs_chart(field: &'static str) -> Problem {
    Problem::invalid(field, "are for the workers of a chart; give `chart` as well")
}

const MAX_CHART: usize = 2_048;

fn checked_chart(chart: String) -> Result<String, Problem> {
    if chart.trim().is_empty() || chart.len() > MAX_CHART || chart.contains(char::is_control) {
        let detail =
            format!("must say where the chart is, in 1 to {MAX_CHART} bytes without control characters");
        return Err(Problem::invalid("chart", detail));
    }
    Ok(chart)
}

fn checked_partitions(partitions: Option<u32>) -> Result<Option<u32>, Problem> {
    match partitions {
        Some(0) => Err(Problem::invalid("partitions", "must be at least 1")),
        other => Ok(other),
    }
}

/// What is asked of a topic, if anything is. Whether it can be had is the log's to say.
fn topic(
    replication: Option<u16>,
    settings: Option<BTreeMap<String, String>>,
) -> Result<Option<TopicSettings>, Problem> {
    if replication == Some(0) {
        return Err(Problem::invalid("replication", "must be at least 1"));
    }
    let topic = TopicSettings {
        replication,
        settings: settings.unwrap_or_default(),
    };
    Ok(Some(topic).filter(|topic| *topic != TopicSettings::default()))
}

fn object_of_values(values: &RawValue) -> Result<Bytes, Problem> {
    if values.get().starts_with('{') {
        Ok(Bytes::copy_from_slice(values.get().as_bytes()))
    } else {
        let detail = format!("must be an object, found {}", kind_of(values));
        Err(Problem::invalid("values", detail))
    }
}

/// The definition as one JSON object, in the spelling it was given in. What is in it is checked behind the gateway.
fn definition(
    pipeline: Option<&RawValue>,
    commands: Option<&RawValue>,
    params: Option<&RawValue>,
) -> Result<Option<Bytes>, Problem> {
    let (key, steps) = match (pipeline, commands) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid(
                "commands",
                "means the same as `pipeline`; give one of them",
            ));
        }
        (Some(steps), None) => ("pipeline", steps),
        (None, Some(steps)) => ("commands", steps),
        (None, None) if params.is_some() => {
            return Err(Problem::invalid(
                "params",
                "are a part of the definition; give `pipeline` as well",
            ));
        }
        (None, None) => return Ok(None),
    };
    if !steps.get().starts_with('[') {
        let detail = format!("must be an array of steps, found {}", kind_of(steps));
        return Err(Problem::invalid(key, detail));
    }
    Ok(Some(Bytes::from(match params {
        Some(params) => format!("{{\"{key}\":{steps},\"params\":{params}}}"),
        None => format!("{{\"{key}\":{steps}}}"),
    })))
}
