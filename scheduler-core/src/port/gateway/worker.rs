//! What workers ask of a node.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::ApiError;
use crate::id::{Epoch, LeaseToken, Offset, Partition, WorkerId};
use crate::name::PipelinePath;
use crate::outcome::AttemptOutcome;
use crate::task::TaskSpec;
use crate::time::Timestamp;

/// How a worker introduces itself, at first and after every loss of its connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkerHello {
    /// Which worker.
    pub worker: WorkerId,
    /// Its name, for people.
    pub name: String,
    /// Leases that it holds still.
    pub held: Vec<HeldLease>,
    /// Reports that were not settled, in the order in which they were made.
    pub reported: Vec<Report>,
    /// Whether the worker has sessions with other nodes too, each for the shards that live there.
    ///
    /// Its room is dealt out among them, so that it wants [`WorkerEvent::Waiting`]; and what this hello says of shards that are not here
    /// may be old when they come: then the session ends, and the worker introduces itself anew.
    pub shares: bool,
    /// Counts the sessions that the worker opens, with whatever node; 0 if it does not count.
    ///
    /// A connection that was given up may bring its hello after that of the next one. It knows nothing of what was leased meanwhile, so its
    /// session is ended at once.
    pub number: u64,
}

/// A lease that a worker holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldLease {
    /// Of which task.
    pub partition: Partition,
    /// Of which task.
    pub offset: Offset,
    /// By what right.
    pub token: LeaseToken,
}

/// How an attempt ended, as its worker says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Which attempt.
    pub lease: HeldLease,
    /// How it ended.
    pub outcome: AttemptOutcome,
}

/// The right of a worker to run one attempt of a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Of which task.
    pub partition: Partition,
    /// Of which task.
    pub offset: Offset,
    /// What to show with its report.
    pub token: LeaseToken,
    /// When the attempt's time is over, whatever signs of life there are.
    pub run_until: Timestamp,
    /// What the task is.
    pub spec: TaskSpec,
}

/// What a worker says. In batches; order matters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WorkerCommand {
    /// It has room for so many tasks more.
    Credit(u32),
    /// Attempts have ended.
    Reports(Vec<Report>),
    /// It is alive, and so are all its leases.
    Alive,
    /// How far an attempt is.
    Progress {
        /// Which.
        lease: HeldLease,
        /// How far; JSON by convention.
        progress: Bytes,
    },
    /// It wants no more tasks. Credits that are not used are void: answered by [`WorkerEvent::Recalled`].
    Drain,
    /// Credits that are not used are void: answered by [`WorkerEvent::Recalled`].
    Recall,
}

/// What a worker is told. In batches; order matters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WorkerEvent {
    /// Tasks to run. Each uses up one credit.
    Leases(Vec<Lease>),
    /// A checkpoint covers the first `count` reports of this session for the partition, those of its hello included: they need not be kept.
    Settled {
        /// Whose.
        partition: Partition,
        /// By which activation.
        epoch: Epoch,
        /// How many since the session's beginning.
        count: u64,
    },
    /// These leases are over: stop, and report [`AttemptOutcome::Stopped`].
    Stop(Vec<HeldLease>),
    /// The pipeline's definition is now this, for leases after this event.
    Definition(Bytes),
    /// The partition's shard is gone from this node: unsettled reports for it must be presented to its new owner.
    Moved(Partition),
    /// The node goes down soon: finish, report, then reconnect elsewhere.
    GoAway,
    /// Whether tasks wait here for credit of this session, which [`shares`](WorkerHello::shares) its worker with others.
    ///
    /// Said on change alone: `true` when tasks are ready and the session has no credit, `false` when credit that came since is left over.
    Waiting(bool),
    /// So many credits were not used and are void: the answer to [`WorkerCommand::Recall`] and [`WorkerCommand::Drain`]. Leases before it count.
    Recalled(u32),
}

/// The node's side of a worker's session.
#[derive(Debug)]
pub struct WorkerSession {
    /// What the workers of the pipeline run; see [`Pipeline::definition`](crate::port::catalog::Pipeline::definition).
    pub definition: Bytes,
    /// How often the worker must give a sign of life.
    pub heartbeat: Duration,
    /// What the worker says goes here. Dropping it ends the session; leases stay until their heartbeat timeout.
    pub commands: Box<dyn CommandSink>,
    /// What the worker is told comes from here.
    pub events: Box<dyn EventSource>,
}

/// Takes what a worker says.
#[async_trait]
pub trait CommandSink: fmt::Debug + Send + Sync + 'static {
    /// Hands commands over, waiting while the node is behind. An error means that the session is over.
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError>;
}

/// Gives what a worker is told.
#[async_trait]
pub trait EventSource: fmt::Debug + Send + 'static {
    /// Waits for events; `None` when the session is over. Cancel safe.
    async fn next(&mut self) -> Option<Vec<WorkerEvent>>;
}

/// What became of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It counts.
    Taken,
    /// The task had ended, or the attempt was no longer the worker's: it changes nothing.
    Late,
}

/// Which node owns a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// Which.
    pub partition: Partition,
    /// The address of its owner's gRPC endpoint; empty if it has none now.
    pub address: String,
}

/// Workers.
#[async_trait]
pub trait WorkerApi: fmt::Debug + Send + Sync + 'static {
    /// Opens a session. One worker has one session: an older one of the same worker ends.
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError>;
    /// Asks for up to `limit` leases without a session, waiting up to `patience` for the first.
    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError>;
    /// Reports without a session; when it answers, a checkpoint covers the reports.
    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError>;
    /// Signs of life without a session; answers for each lease whether the worker still has it.
    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError>;
    /// Which node owns each partition.
    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError>;
}
