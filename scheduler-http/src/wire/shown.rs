//! A pipeline as it is shown, and how it fares.

use std::collections::BTreeMap;

use bytes::Bytes;
use scheduler_core::name::Name;
use scheduler_core::port::catalog::Deployment;
use scheduler_core::port::deploy::{Rollout, RolloutPhase};
use scheduler_core::port::gateway::{PipelineCounts, PipelineView};
use serde::Serialize;
use utoipa::ToSchema;

use super::as_text;
use super::pipeline::ReplicasBody;
use super::policy::PolicyBody;
use super::task::opaque;
use crate::human::Moment;

/// A pipeline and how it fares.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pipeline)]
pub(crate) struct PipelineBody {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    name: Name,
    /// Its application.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    application: Name,
    /// Its number, never given again: tasks' ids and the log are named by it.
    number: u32,
    /// Counts its changes, from 1.
    version: u64,
    /// When it was created.
    created_at: Moment,
    /// Whether its tasks wait until it is resumed.
    paused: bool,
    /// Whether it is being deleted: nothing is accepted any more.
    deleting: bool,
    /// How many partitions its log has.
    partitions: u32,
    /// What was asked of its Kafka topic: copies of each partition. Absent if that is the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    replication: Option<u16>,
    /// Settings that were asked for. Absent if none were.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    topic_settings: BTreeMap<String, String>,
    /// Where the chart of its workers is; absent if they come by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    chart: Option<String>,
    /// Values that override the chart's.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<Object>)]
    values: Bytes,
    /// Bounds on the number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<ReplicasBody>,
    /// Its steps and params, in the first spelling; absent if its workers know by themselves.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<Object>)]
    definition: Bytes,
    /// What its tasks go by.
    policy: PolicyBody,
    /// How its deployment fares.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<RolloutBody>,
    /// How many tasks are where, on the node that answers.
    counts: CountsBody,
    /// What is wrong with its partitions on the node that answers; absent if nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    problems: Vec<String>,
}

impl From<PipelineView> for PipelineBody {
    fn from(view: PipelineView) -> Self {
        let PipelineView {
            pipeline,
            rollout,
            counts,
            problems,
        } = view;
        let (chart, values, replicas) = match pipeline.deployment {
            Some(Deployment {
                chart,
                values,
                replicas,
            }) => {
                let replicas = ReplicasBody {
                    min: Some(replicas.min),
                    max: Some(replicas.max),
                };
                (Some(chart), values, Some(replicas))
            }
            None => (None, Bytes::new(), None),
        };
        Self {
            name: pipeline.path.pipeline,
            application: pipeline.path.application,
            number: pipeline.id.0,
            version: pipeline.version,
            created_at: Moment(pipeline.created_at),
            paused: pipeline.paused,
            deleting: pipeline.deleting,
            partitions: pipeline.partitions,
            replication: pipeline.topic.replication,
            topic_settings: pipeline.topic.settings,
            chart,
            values,
            replicas,
            definition: pipeline.definition,
            policy: PolicyBody::from(&pipeline.policy),
            rollout: rollout.map(RolloutBody::from),
            counts: counts.into(),
            problems,
        }
    }
}

/// What is going on with a deployment.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RolloutPhase)]
enum PhaseText {
    /// It has not begun.
    Pending,
    /// Workers are being started.
    Deploying,
    /// As many workers run as are wanted.
    Ready,
    /// It will not come up as it is; `problem` says why, and whether what was there before runs in its place.
    Failed,
}

/// How a deployment fares.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rollout)]
struct RolloutBody {
    phase: PhaseText,
    /// How many workers are wanted now.
    wanted: u32,
    /// How many of them run.
    ready: u32,
    /// What went wrong last.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    problem: String,
}

impl From<Rollout> for RolloutBody {
    fn from(rollout: Rollout) -> Self {
        Self {
            phase: match rollout.phase {
                RolloutPhase::Pending => PhaseText::Pending,
                RolloutPhase::Deploying => PhaseText::Deploying,
                RolloutPhase::Ready => PhaseText::Ready,
                RolloutPhase::Failed => PhaseText::Failed,
            },
            wanted: rollout.wanted,
            ready: rollout.ready,
            problem: rollout.problem,
        }
    }
}

/// How many tasks are where.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Counts)]
struct CountsBody {
    /// In the log, not in memory yet.
    backlog: u64,
    /// Ready to run.
    ready: u64,
    /// Waiting for their time: not-before, backoff.
    delayed: u64,
    /// With workers.
    running: u64,
    /// Ended well since the pipeline was created.
    succeeded: u64,
    /// Dead letters that are kept.
    dead: u64,
    /// Cancelled, expired or duplicates since the pipeline was created.
    cancelled: u64,
    /// Sessions of connected workers: in a cluster a worker has one with each node that owns partitions.
    workers: u64,
}

impl From<PipelineCounts> for CountsBody {
    fn from(counts: PipelineCounts) -> Self {
        let PipelineCounts {
            backlog,
            ready,
            delayed,
            running,
            succeeded,
            dead,
            cancelled,
            workers,
        } = counts;
        Self {
            backlog,
            ready,
            delayed,
            running,
            succeeded,
            dead,
            cancelled,
            workers,
        }
    }
}
