//! The store: checkpoints, and the archive of what has ended.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::BoxError;
use crate::checkpoint::Checkpoint;
use crate::id::{Epoch, NodeId, Offset, PipelineId, ShardId, TaskId, Tenure};
use crate::key::SeenKey;
use crate::outcome::{DeadTask, FinishedTask, ParkedTask};
use crate::time::Timestamp;

/// What a new owner of a shard finds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claimed {
    /// Its own epoch, one more than the last.
    pub epoch: Epoch,
    /// How the last owner left.
    pub previous: PreviousOwner,
    /// Where to start to read the log.
    pub resume: Offset,
    /// The state of the last checkpoint; empty if there is none.
    pub state: Bytes,
    /// Epochs in a row, up to this one's predecessor, that ended without a checkpoint of theirs. An epoch that the same node raised by
    /// claiming again does not count: it lives.
    pub barren_epochs: u32,
}

/// How the last owner of a shard left it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PreviousOwner {
    /// There was none.
    None,
    /// It saved a last checkpoint and released the shard.
    Released,
    /// It did not: what it did after its last checkpoint is known to workers alone.
    Vanished,
}

/// Keeps the newest checkpoint of every shard.
///
/// # Contract
///
/// - [`claim`](Self::claim) raises the epoch by one, atomically: of two claims one gets the lower epoch. Whoever does not hear the answer
///   claims again under the same [`NodeId`], and [`Claimed::barren_epochs`] stays as it was.
/// - [`save`](Self::save) is atomic for all its checkpoints that are not fenced: a reader sees all of it or nothing, whatever happens in between.
/// - A checkpoint under an epoch that is not the stored one changes nothing and is [`Saved::Fenced`].
/// - A `save` that failed or was dropped may have happened; the same call again is safe and ends in the same state.
/// - After [`release`](Self::release) the tenure's saves are fenced.
/// - What was read of a shard before [`epoch`](Self::epoch) answered with a tenure's epoch is that tenure's own or older: an owner that is fenced
///   and does not know it must not take in what its successor has saved, for it may have ended itself what it finds there.
#[async_trait]
pub trait CheckpointStore: fmt::Debug + Send + Sync + 'static {
    /// Takes the shard over for `node`.
    async fn claim(&self, shard: ShardId, node: NodeId) -> Result<Claimed, StoreError>;

    /// Saves checkpoints of different shards, in one transaction. The answers are in their order.
    async fn save(&self, checkpoints: &[&Checkpoint]) -> Result<Vec<Saved>, StoreError>;

    /// Says that the tenure's last checkpoint is its last word. A tenure that is replaced already stays so.
    async fn release(&self, tenure: Tenure) -> Result<(), StoreError>;

    /// The epoch of the shard's last claim; 0 if nobody has claimed it.
    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError>;

    /// Parked tasks with `wake_at` up to `until`, the earliest first (at equal times by offset), at most `limit`, beginning after `after`.
    async fn parked(
        &self,
        shard: ShardId,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError>;

    /// Idempotency keys of a shard that were saved and have not been forgotten by [`Archive::expire`], in any order, at most `limit`.
    async fn keys(&self, shard: ShardId, limit: usize) -> Result<Vec<SeenKey>, StoreError>;

    /// The parked task at `offset`.
    async fn parked_task(&self, id: TaskId) -> Result<Option<ParkedTask>, StoreError>;

    /// Forgets everything about a pipeline: shards, parked tasks, results, dead letters.
    async fn forget(&self, pipeline: PipelineId) -> Result<(), StoreError>;
}

/// What became of one checkpoint of a [`CheckpointStore::save`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Saved {
    /// It is the newest.
    Done,
    /// The shard has another owner, or none; this one must stop.
    Fenced {
        /// The stored epoch.
        stored: Epoch,
    },
}

/// Finds what has ended. What was saved in a checkpoint is found from then on, until it expires.
#[async_trait]
pub trait Archive: fmt::Debug + Send + Sync + 'static {
    /// The result of a task.
    async fn result(&self, id: TaskId) -> Result<Option<FinishedTask>, StoreError>;

    /// Results of a shard with offsets below `before`, the highest first, at most `limit`.
    async fn results(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<FinishedTask>, StoreError>;

    /// A dead letter.
    async fn dead_task(&self, id: TaskId) -> Result<Option<DeadTask>, StoreError>;

    /// Dead letters of a shard with offsets below `before`, the highest first, at most `limit`.
    async fn dead_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<DeadTask>, StoreError>;

    /// How many dead letters the pipeline has.
    async fn dead_count(&self, pipeline: PipelineId) -> Result<u64, StoreError>;

    /// Parked tasks of a shard with offsets below `before`, the highest first, at most `limit`.
    async fn parked_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError>;

    /// Deletes dead letters for good and answers how many there were of them.
    async fn purge(&self, ids: &[TaskId]) -> Result<u64, StoreError>;

    /// Forgets results, dead letters and idempotency keys that have expired by `now`, a bounded part of it; answers whether there may be more.
    async fn expire(&self, now: Timestamp) -> Result<bool, StoreError>;
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store could not answer now; later the same call may succeed.
    #[error("the store is unavailable")]
    Unavailable(#[source] BoxError),
    /// What is stored cannot be read.
    #[error("the store is damaged at {place}")]
    Damaged {
        /// Which row.
        place: String,
        /// What is wrong.
        source: BoxError,
    },
}
