//! The task log in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use scheduler_core::port::log::{Bounds, LogError, LogReader, ReadLimit, TaskLog, Topic};
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;
use tokio::sync::Notify;

use super::lock;

/// A [`TaskLog`] in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    now: Timestamp,
    partitions: BTreeMap<ShardId, PartitionState>,
    /// Where the offsets of a pipeline's new partitions begin, if it was deleted before.
    bases: BTreeMap<PipelineId, u64>,
}

#[derive(Debug)]
struct PartitionState {
    start: u64,
    records: VecDeque<Record>,
}

impl PartitionState {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }
}

impl MemoryLog {
    /// The largest task that it takes, in bytes.
    pub const MAX_TASK_BYTES: usize = 4 << 20;

    /// An empty log, at [`Timestamp::ZERO`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what time it is: what records appended from now on carry.
    pub fn set_now(&self, now: Timestamp) {
        lock(&self.state).now = now;
    }

    /// Appends something that is not a task, as a foreign producer may.
    pub fn append_undecodable(
        &self,
        shard: ShardId,
        raw: impl Into<bytes::Bytes>,
        problem: &str,
    ) -> Result<Offset, LogError> {
        let body = RecordBody::Undecodable {
            raw: raw.into(),
            problem: problem.to_owned(),
        };
        self.push(shard, [body]).map(|offsets| offsets[0])
    }

    fn push(
        &self,
        shard: ShardId,
        bodies: impl IntoIterator<Item = RecordBody>,
    ) -> Result<Vec<Offset>, LogError> {
        let mut state = lock(&self.state);
        let appended_at = state.now;
        let partition = state
            .partitions
            .get_mut(&shard)
            .ok_or(LogError::NotFound(shard))?;
        let offsets = bodies.into_iter().map(|body| {
            let offset = Offset(partition.end());
            partition.records.push_back(Record {
                offset,
                appended_at,
                body,
            });
            offset
        });
        let offsets = offsets.collect();
        drop(state);
        self.changed.notify_waiters();
        Ok(offsets)
    }
}

#[async_trait]
impl TaskLog for MemoryLog {
    async fn check(&self, _topic: &Topic) -> Result<(), LogError> {
        Ok(())
    }

    async fn ensure(&self, topic: &Topic) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let start = state.bases.get(&topic.pipeline).copied().unwrap_or_default();
        for partition in 0..topic.partitions.max(1) {
            let shard = ShardId::new(topic.pipeline, Partition(partition));
            state.partitions.entry(shard).or_insert_with(|| PartitionState {
                start,
                records: VecDeque::new(),
            });
        }
        Ok(())
    }

    async fn delete(&self, pipeline: PipelineId) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let of_it = |shard: &ShardId| shard.pipeline == pipeline;
        let ends = state
            .partitions
            .iter()
            .filter(|(shard, _)| of_it(shard))
            .map(|(_, partition)| partition.end());
        if let Some(end) = ends.max() {
            state.bases.insert(pipeline, end);
        }
        state.partitions.retain(|shard, _| !of_it(shard));
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn append(&self, shard: ShardId, tasks: Vec<TaskSpec>) -> Result<Vec<Offset>, LogError> {
        let limit = Self::MAX_TASK_BYTES;
        if let Some(bytes) = tasks.iter().map(TaskSpec::weight).find(|&bytes| bytes > limit) {
            return Err(LogError::TooLarge { bytes, limit });
        }
        self.push(shard, tasks.into_iter().map(RecordBody::Task))
    }

    async fn bounds(&self, shard: ShardId) -> Result<Bounds, LogError> {
        let state = lock(&self.state);
        let partition = state.partitions.get(&shard).ok_or(LogError::NotFound(shard))?;
        Ok(Bounds {
            start: Offset(partition.start),
            end: Offset(partition.end()),
        })
    }

    async fn read(&self, shard: ShardId, from: Offset) -> Result<Box<dyn LogReader>, LogError> {
        let start = self.bounds(shard).await?.start;
        if from < start {
            return Err(LogError::Truncated {
                shard,
                asked: from,
                start,
            });
        }
        Ok(Box::new(MemoryReader {
            log: self.clone(),
            shard,
            next: from,
        }))
    }

    async fn truncate(&self, shard: ShardId, before: Offset) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let partition = state
            .partitions
            .get_mut(&shard)
            .ok_or(LogError::NotFound(shard))?;
        while partition.start < before.0 && partition.records.pop_front().is_some() {
            partition.start += 1;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryReader {
    log: MemoryLog,
    shard: ShardId,
    next: Offset,
}

impl MemoryReader {
    /// Whether anything was there to be taken.
    fn take(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<bool, LogError> {
        let state = lock(&self.log.state);
        let partition = state
            .partitions
            .get(&self.shard)
            .ok_or(LogError::NotFound(self.shard))?;
        let start = Offset(partition.start);
        if self.next < start {
            return Err(LogError::Truncated {
                shard: self.shard,
                asked: self.next,
                start,
            });
        }
        let skip = usize::try_from(self.next.0 - start.0).unwrap_or(usize::MAX);
        let (mut records, mut bytes) = (0, 0);
        for record in partition.records.iter().skip(skip) {
            let weight = match &record.body {
                RecordBody::Task(task) => task.params.len(),
                RecordBody::Undecodable { raw, .. } => raw.len(),
            };
            if records > 0 && (records >= limit.records || bytes + weight > limit.bytes) {
                break;
            }
            records += 1;
            bytes += weight;
            self.next = record.offset.next();
            into.push(record.clone());
        }
        Ok(records > 0)
    }
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn next(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError> {
        loop {
            // Made before the look, so that no append between the two is missed.
            let changed = self.log.changed.clone().notified_owned();
            if self.take(limit, into)? {
                return Ok(());
            }
            changed.await;
        }
    }
}
