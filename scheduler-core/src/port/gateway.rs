//! The gateway: everything that can be asked of a node, whatever the transport.
//!
//! Adapters of transports (gRPC, HTTP) call it; the runtime implements it. Whoever calls has been authenticated into a [`Caller`],
//! and sees nothing that is not its client's.

mod waiting;
mod worker;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

pub use self::waiting::{MOST_AHEAD, Waiting};
pub use self::worker::{
    CommandSink, EventSource, HeldLease, Lease, Location, Report, Verdict, WorkerApi, WorkerCommand,
    WorkerEvent, WorkerHello, WorkerSession,
};
use super::BoxError;
use super::catalog::{Application, Deployment, Pipeline, Replicas};
use super::deploy::Rollout;
use super::log::TopicSettings;
use crate::id::{Attempt, Offset, Partition, PipelineId, ShardId, TaskId};
use crate::name::{Name, PipelinePath};
use crate::outcome::{DeadReason, DeadTask};
use crate::policy::PipelinePolicy;
use crate::task::{Priority, TaskSpec};
use crate::time::Timestamp;

/// Everything that can be asked of a node.
pub trait Gateway: AccessApi + AdminApi + TaskApi + WorkerApi {}

impl<T: AccessApi + AdminApi + TaskApi + WorkerApi> Gateway for T {}

/// Who asks. Only [`AccessApi::authenticate`] makes one outside of tests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// The tenant.
    pub client: Name,
}

/// Why a request was not carried out. One kind for each thing the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// A field is wrong. Mend it and ask again.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which, as a path: `retry.max_attempts`, `pipeline[0].executor`.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// What the request is about does not exist, or is not the caller's.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// What it would be: application, pipeline, task.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The request does not fit the state things are in.
    #[error("{0}")]
    Conflict(String),
    /// The API key is missing or unknown.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// Too much at once.
    #[error("{problem}")]
    Overloaded {
        /// Of what.
        problem: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Something the answer depends on is away.
    #[error("{problem}")]
    Unavailable {
        /// What.
        problem: String,
        /// When to try again.
        retry_after: Duration,
        /// The cause, for the log.
        source: Option<BoxError>,
    },
    /// The shard that the request is about is not on this node: between nodes only, which then ask its owner.
    #[error("{0} is on another node")]
    Elsewhere(ShardId),
    /// Our fault.
    #[error("internal error")]
    Internal(#[source] BoxError),
}

impl ApiError {
    /// [`ApiError::Invalid`].
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// [`ApiError::NotFound`].
    pub fn not_found(kind: &'static str, name: impl fmt::Display) -> Self {
        Self::NotFound {
            kind,
            name: name.to_string(),
        }
    }
}

/// Who is who.
#[async_trait]
pub trait AccessApi: fmt::Debug + Send + Sync + 'static {
    /// Finds the client that an API key belongs to. Without a key it is the anonymous client, where the node has one.
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError>;

    /// `Ok` when the node can take requests; otherwise why not.
    async fn ready(&self) -> Result<(), ApiError>;
}

/// What is asked for when a pipeline is created.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPipeline {
    /// Its name.
    pub name: Name,
    /// Where its workers come from; none if they come by themselves.
    pub deployment: Option<NewDeployment>,
    /// What its workers run, as JSON in one of the spellings of the scheduler-pipeline crate. Overrides the chart's.
    pub definition: Option<Bytes>,
    /// How many partitions its log has; the node's default if not said.
    pub partitions: Option<u32>,
    /// What else is asked of its topic; as the log is configured if not said.
    pub topic: Option<TopicSettings>,
    /// What its shards go by; the chart's or the default if not said.
    pub policy: Option<PipelinePolicy>,
}

/// What is asked for of a deployment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewDeployment {
    /// Where the chart is.
    pub chart: String,
    /// Values that override the chart's, as JSON; empty for none.
    pub values: Bytes,
    /// At least so many workers; the chart's minimum if not said.
    pub min_replicas: Option<u32>,
    /// At most so many; the chart's maximum if not said.
    pub max_replicas: Option<u32>,
}

impl NewDeployment {
    /// What is kept of it, where the chart says that there are to be so many workers: what the request says comes first, and one if nobody says.
    pub fn deployment(&self, of_chart: Option<Replicas>) -> Deployment {
        let of_chart = of_chart.unwrap_or(Replicas { min: 1, max: 1 });
        let most = self.max_replicas.unwrap_or(u32::MAX);
        let min = self.min_replicas.unwrap_or(of_chart.min.min(most));
        let max = self.max_replicas.unwrap_or(of_chart.max.max(min));
        Deployment {
            chart: self.chart.clone(),
            values: self.values.clone(),
            replicas: Replicas { min, max },
        }
    }
}

/// What is kept, asked for again.
impl From<Deployment> for NewDeployment {
    fn from(kept: Deployment) -> Self {
        Self {
            chart: kept.chart,
            values: kept.values,
            min_replicas: Some(kept.replicas.min),
            max_replicas: Some(kept.replicas.max),
        }
    }
}

/// What is to be changed about a pipeline; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineChange {
    /// A new deployment.
    pub deployment: Option<NewDeployment>,
    /// A new definition.
    pub definition: Option<Bytes>,
    /// A new policy.
    pub policy: Option<PipelinePolicy>,
    /// More partitions.
    pub partitions: Option<u32>,
    /// Whether its tasks wait.
    pub paused: Option<bool>,
    /// New bounds on the number of workers.
    pub min_replicas: Option<u32>,
    /// New bounds on the number of workers.
    pub max_replicas: Option<u32>,
}

/// A pipeline and how it fares.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineView {
    /// What was asked for.
    pub pipeline: Pipeline,
    /// How its deployment fares, if it has one.
    pub rollout: Option<Rollout>,
    /// What its shards on this node hold.
    pub counts: PipelineCounts,
    /// What is wrong with its shards, for people.
    pub problems: Vec<String>,
}

/// What the shards of a pipeline hold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PipelineCounts {
    /// In the log, not loaded yet.
    pub backlog: u64,
    /// Loaded and ready to run.
    pub ready: u64,
    /// Waiting for their time: not-before, backoff, parked.
    pub delayed: u64,
    /// Leased to workers.
    pub running: u64,
    /// Ended well since the pipeline was created.
    pub succeeded: u64,
    /// Dead letters that are kept.
    pub dead: u64,
    /// Cancelled, expired or duplicates since the pipeline was created.
    pub cancelled: u64,
    /// Connected worker sessions.
    pub workers: u64,
}

/// What a pipeline has to do: what scaling goes by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PipelineLoad {
    /// Whose. A pipeline that is created anew under the same name has another number.
    pub pipeline: PipelineId,
    /// Whether its tasks wait.
    pub paused: bool,
    /// In the log, not loaded yet.
    pub backlog: u64,
    /// Loaded and ready to run.
    pub ready: u64,
    /// Waiting for their time: not-before, backoff.
    pub delayed: u64,
    /// Leased to workers.
    pub running: u64,
    /// Ended well since their shards came up, by an attempt whose beginning is known.
    pub timed: u64,
    /// How long those attempts took, all together, in milliseconds.
    pub busy_ms: u64,
}

impl PipelineLoad {
    /// Tasks that could run now if there were workers.
    pub fn waiting(&self) -> u64 {
        if self.paused {
            0
        } else {
            self.backlog.saturating_add(self.ready)
        }
    }

    /// Whether there is nothing to do and nothing to come.
    pub fn is_idle(&self) -> bool {
        self.backlog == 0 && self.ready == 0 && self.delayed == 0 && self.running == 0
    }
}

/// Applications and pipelines.
#[async_trait]
pub trait AdminApi: fmt::Debug + Send + Sync + 'static {
    /// Creates an application; a conflict if there is one of the name.
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError>;
    /// The caller's applications, by name.
    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError>;
    /// One of them.
    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError>;
    /// Deletes an application without pipelines.
    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError>;

    /// Creates a pipeline, and its application where the node allows that.
    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError>;
    /// The pipelines of an application, by name.
    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError>;
    /// One of them.
    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError>;
    /// What a pipeline has to do. Unavailable rather than a part of it, and cheap while there is nothing: it may be asked every second.
    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError>;
    /// Changes a pipeline.
    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError>;
    /// Asks for so many workers now, within the bounds.
    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError>;
    /// Deletes a pipeline with all its tasks and results, and ends its workers.
    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError>;
}

/// How much waits in each pipeline, for a metric.
#[async_trait]
pub trait Queues: fmt::Debug + Send + Sync + 'static {
    /// The pipelines that it is up to this node to tell of, each told of by one node of a cluster, with what they have to do on all nodes.
    /// One whose load is not known now is left out.
    async fn queues(&self) -> Vec<(PipelinePath, PipelineLoad)>;
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TaskState {
    /// It waits for a worker.
    Queued,
    /// It waits for its time.
    Delayed,
    /// A worker has it.
    Running,
    /// It ended well.
    Succeeded,
    /// It is a dead letter.
    Dead,
    /// Somebody cancelled it.
    Cancelled,
    /// Its time was over.
    Expired,
}

impl TaskState {
    /// Whether it stays so for good, unless a dead letter is redriven.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Delayed | Self::Running)
    }
}

/// A task as its owner sees it. Fields that do not fit the state are empty or `None`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskView {
    /// Its name.
    pub id: TaskId,
    /// Where it is in its life.
    pub state: TaskState,
    /// Attempts begun.
    pub attempts: Attempt,
    /// Its priority, while it is live or dead.
    pub priority: Option<Priority>,
    /// When the log took it.
    pub submitted_at: Timestamp,
    /// When its last attempt was leased.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When a delayed task is next tried.
    pub next_attempt_at: Option<Timestamp>,
    /// The last sign of progress of the worker, JSON by convention.
    pub progress: Bytes,
    /// What came of it, JSON by convention; of a task that succeeded.
    pub output: Bytes,
    /// What went wrong last.
    pub error: String,
    /// Why it is dead.
    pub dead_reason: Option<DeadReason>,
    /// What was submitted, where it is still known.
    pub params: Option<Bytes>,
    /// Why it does not run, of one that waits and was asked for by itself; lists and watchers are not told.
    pub waiting: Option<Waiting>,
}

/// Which tasks are asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskFilter {
    /// In one of these states; in any if empty.
    pub states: Vec<TaskState>,
    /// Of this partition; of all if `None`.
    pub partition: Option<Partition>,
}

/// Where a page ended: partition and offset of the last task, in the order of listing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageCursor {
    /// Of the last task.
    pub partition: Partition,
    /// Of the last task.
    pub offset: Offset,
}

/// A part of a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Where to go on, if there may be more.
    pub next: Option<PageCursor>,
}

/// A stream of what happens to tasks. It ends when the pipeline is deleted, or when the reader is too slow.
pub type TaskStream = Pin<Box<dyn Stream<Item = TaskView> + Send>>;

/// Which dead letters are meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeadSelection {
    /// These.
    Ids(Vec<TaskId>),
    /// All that there are now.
    All,
}

/// Tasks.
#[async_trait]
pub trait TaskApi: fmt::Debug + Send + Sync + 'static {
    /// Takes tasks in. When it answers they are durable; the ids are in the order of the tasks.
    ///
    /// All or nothing is not promised: an error may mean that some were taken, but `Invalid` means that none was, so that the caller can try the others.
    /// An `Invalid` error's field begins with `[i]` when task `i` of several is at fault.
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError>;
    /// One task.
    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError>;
    /// The task once it has ended and that is saved, or as it is when `patience` is over.
    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError>;
    /// Tasks, by partition and then the newest first.
    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError>;
    /// What happens from now on to one task (beginning with how it is now) or to all of the pipeline.
    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError>;
    /// Cancels a task that has not ended; answers how it is then. A running attempt is told to stop.
    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError>;
    /// Makes a delayed task ready now, or a dead one live again with fresh attempts.
    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError>;

    /// Dead letters, by partition and then the newest first.
    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError>;
    /// Makes dead letters live again with fresh attempts; answers how many.
    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError>;
    /// Deletes dead letters for good; answers how many.
    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError>;
}
