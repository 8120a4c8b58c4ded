//! The task log: the durable, partitioned queue of every pipeline.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use super::BoxError;
use crate::id::{Offset, PipelineId, ShardId};
use crate::name::PipelinePath;
use crate::task::{Record, TaskSpec};

/// The log of one pipeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Topic {
    /// Whose.
    pub pipeline: PipelineId,
    /// Its full name, of which an adapter makes a name that people recognise.
    pub path: PipelinePath,
    /// How many partitions; at least 1. May grow, never shrink.
    pub partitions: u32,
    /// What else is asked of it.
    pub settings: TopicSettings,
}

/// What is asked of a topic when it is made, beside its partitions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopicSettings {
    /// Copies of each partition, at least 1; as the log is configured if not said.
    pub replication: Option<u16>,
    /// Settings by their names, in the words of the log, over those that it is configured with.
    pub settings: BTreeMap<String, String>,
}

/// The part of a partition that can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub start: Offset,
    /// One past the last offset.
    pub end: Offset,
}

impl Bounds {
    /// How many offsets there are, whether each has a record or not.
    pub fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How much a reader may take at once. A single record larger than `bytes` is still taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadLimit {
    /// Most records; at least 1.
    pub records: usize,
    /// Most bytes of params.
    pub bytes: usize,
}

/// The durable, partitioned queue of every pipeline.
///
/// # Contract
///
/// - A successful [`append`](Self::append) is durable: it survives the crash of this process and of the machine as far as the log promises
///   durability (embedded: fdatasync; Kafka: acks=all). An `append` that failed or was dropped may have happened.
/// - Offsets of a partition rise. They may have gaps; no offset is given twice, not even after truncation, deletion or restart.
/// - The records of one `append` keep their order.
/// - What was appended stays until [`truncate`](Self::truncate) passes it or its topic is deleted.
/// - A log bounds what it buffers: over it, `append` waits, and answers [`LogError::Overloaded`] when the wait would be long.
#[async_trait]
pub trait TaskLog: fmt::Debug + Send + Sync + 'static {
    /// Whether a topic could be made as it is asked for; makes nothing. [`LogError::Refused`] names what cannot be.
    async fn check(&self, topic: &Topic) -> Result<(), LogError>;

    /// Makes sure that the topic exists with at least so many partitions; one that exists keeps its settings. Repeating it is safe.
    async fn ensure(&self, topic: &Topic) -> Result<(), LogError>;

    /// Deletes the topic and all its records. Deleting one that does not exist succeeds.
    async fn delete(&self, pipeline: PipelineId) -> Result<(), LogError>;

    /// Appends tasks to one partition and answers their offsets, in order, once they are durable.
    async fn append(&self, shard: ShardId, tasks: Vec<TaskSpec>) -> Result<Vec<Offset>, LogError>;

    /// What can be read now.
    async fn bounds(&self, shard: ShardId) -> Result<Bounds, LogError>;

    /// Opens a reader at `from`. A second reader of the same partition is independent of the first.
    ///
    /// [`LogError::Truncated`] if records at or after `from` are gone, [`LogError::NotFound`] without such a partition.
    async fn read(&self, shard: ShardId, from: Offset) -> Result<Box<dyn LogReader>, LogError>;

    /// Gives up the records before `before`. They may stay readable for a while.
    async fn truncate(&self, shard: ShardId, before: Offset) -> Result<(), LogError>;
}

/// Reads one partition in order.
#[async_trait]
pub trait LogReader: fmt::Debug + Send {
    /// Appends at least one record to `into`, waiting for one if need be, without polling on a timer.
    ///
    /// Cancel safe: a call that is dropped has taken nothing.
    async fn next(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError>;
}

/// Why the log did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Records were truncated before their time.
    #[error("the log of {shard} begins at {}, and was asked for {}: {} offsets are missing", start.0, asked.0, start.0 - asked.0)]
    Truncated {
        /// Whose log.
        shard: ShardId,
        /// What was asked for.
        asked: Offset,
        /// What is the first there.
        start: Offset,
    },
    /// There is no such topic or partition.
    #[error("there is no log of {0}")]
    NotFound(ShardId),
    /// A topic cannot be made so.
    #[error("{field} {problem}")]
    Refused {
        /// What was asked for: `replication`, or `topic_settings.` and a name.
        field: String,
        /// What is wrong with it, and what it may be.
        problem: String,
    },
    /// A task is larger than the log takes.
    #[error("a task of {bytes} bytes is larger than the {limit} bytes that the log takes")]
    TooLarge {
        /// Its weight.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// Too much is waiting to be written; later the same call may succeed.
    #[error("the log is overloaded")]
    Overloaded,
    /// The log could not answer now; later the same call may succeed.
    #[error("the log is unavailable")]
    Unavailable(#[source] BoxError),
    /// What is stored cannot be read.
    #[error("the log of {shard} is damaged at {}", offset.0)]
    Damaged {
        /// Whose log.
        shard: ShardId,
        /// Where.
        offset: Offset,
        /// What is wrong.
        source: BoxError,
    },
}
