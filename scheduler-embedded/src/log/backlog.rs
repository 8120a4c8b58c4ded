//! The log's part of the engine: topics, what is known of partitions whose segments are gone, and the backlog itself.
//!
//! Records that nobody has read when their segment's turn comes move into the engine, as the frames that they are, packed into chunks. So
//! the log's own files stay few and its index small, whatever the backlog; and a slow pipeline does not hold the files of fast ones.

use bytes::Bytes;
use scheduler_core::id::{Partition, PipelineId, ShardId};

use super::frame::{FrameHeader, split};
use super::index::TopicRow;
use crate::codec::{Decoder, Encode};
use crate::engine::{Engine, Key, Space, Table};
use crate::error::{Corrupt, OpenError};

/// A chunk of the backlog grows to about this size.
const CHUNK_BYTES: usize = 128 << 10;
/// A commit takes about this much of it.
const COMMIT_BYTES: usize = 1 << 20;
/// Most chunks that one commit removes.
const REMOVE_AT_ONCE: usize = 256;

/// The log's part of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    pub(crate) engine: Engine,
}

fn topic_key(pipeline: PipelineId) -> Key {
    Key::of(Table::Topic).pipeline(pipeline)
}

fn partition_key(shard: ShardId) -> Key {
    Key::of(Table::LogPartition).shard(shard)
}

fn chunk_key(shard: ShardId, first: u64) -> Key {
    Key::bare().shard(shard).u64(first)
}

/// A chunk's key, by itself: the engine's is a part of the block that it was read from, and would keep all of that in memory.
fn own_key(chunk: fjall::Guard) -> fjall::Result<Vec<u8>> {
    Ok(chunk.key()?.to_vec())
}

fn topic_value(row: TopicRow) -> Vec<u8> {
    let mut value = Vec::new();
    value.number(row.partitions.into());
    value.number(row.base);
    value
}

fn partition_value(start: u64, backlog_end: u64) -> Vec<u8> {
    let mut value = Vec::new();
    value.number(start);
    value.number(backlog_end);
    value
}

fn decode_topic(key: &[u8], value: Bytes) -> Result<(PipelineId, TopicRow), Corrupt> {
    let pipeline = key
        .get(1..5)
        .and_then(<[u8]>::first_chunk)
        .ok_or(Corrupt("a topic's key"))?;
    let mut value = Decoder::new(value);
    let row = TopicRow {
        partitions: value.u32()?,
        base: value.u64()?,
    };
    value.end()?;
    Ok((PipelineId(u32::from_be_bytes(*pipeline)), row))
}

fn decode_partition(key: &[u8], value: Bytes) -> Result<(ShardId, u64, u64), Corrupt> {
    let number = Key::number_at(key, 1).ok_or(Corrupt("a partition's key"))?;
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    let shard = ShardId::new(PipelineId((number >> 32) as u32), Partition(number as u32));
    let mut value = Decoder::new(value);
    let (start, backlog_end) = (value.u64()?, value.u64()?);
    value.end()?;
    Ok((shard, start, backlog_end))
}

impl Backlog {
    /// Calls `found` for each topic.
    pub(crate) fn topics(&self, mut found: impl FnMut(PipelineId, TopicRow)) -> Result<(), OpenError> {
        self.load(Table::Topic, |key, value| {
            decode_topic(key, value).map(|(pipeline, row)| found(pipeline, row))
        })
    }

    /// Calls `found` with the start and the end of the engine's part of each partition that it knows.
    pub(crate) fn partitions(&self, mut found: impl FnMut(ShardId, u64, u64)) -> Result<(), OpenError> {
        self.load(Table::LogPartition, |key, value| {
            decode_partition(key, value).map(|(shard, start, backlog_end)| found(shard, start, backlog_end))
        })
    }

    fn load(
        &self,
        table: Table,
        mut found: impl FnMut(&[u8], Bytes) -> Result<(), Corrupt>,
    ) -> Result<(), OpenError> {
        let path = self.engine.rows.path();
        for row in self.engine.rows.prefix(Key::of(table)) {
            let (key, value) = row.into_inner().map_err(OpenError::engine(path))?;
            found(&key, value.into()).map_err(|problem| OpenError::Damaged {
                file: path.to_owned(),
                position: 0,
                problem: format!("row {key:?}: {problem}"),
            })?;
        }
        Ok(())
    }

    pub(crate) fn put_topic(&self, pipeline: PipelineId, row: TopicRow) -> fjall::Result<()> {
        let mut batch = self.engine.batch();
        batch.insert(&self.engine.rows, topic_key(pipeline), topic_value(row));
        batch.commit()
    }

    /// Marks a topic as deleted, so that new partitions of it will begin at `base`, and forgets its partitions.
    pub(crate) fn delete_topic(
        &self,
        pipeline: PipelineId,
        base: u64,
        shards: &[ShardId],
    ) -> fjall::Result<()> {
        let mut batch = self.engine.batch();
        batch.insert(
            &self.engine.rows,
            topic_key(pipeline),
            topic_value(TopicRow { partitions: 0, base }),
        );
        for &shard in shards {
            batch.remove(&self.engine.rows, partition_key(shard));
        }
        batch.commit()
    }

    /// Removes chunks of a deleted pipeline, a bounded part of them; answers about how many bytes went, and whether there may be more.
    pub(crate) fn remove_pipeline(&self, pipeline: PipelineId) -> fjall::Result<(u64, bool)> {
        let mut batch = self.engine.batch();
        for chunk in self
            .engine
            .backlog
            .prefix(Key::bare().pipeline(pipeline))
            .take(REMOVE_AT_ONCE)
        {
            batch.remove(&self.engine.backlog, own_key(chunk)?);
        }
        let count = batch.len();
        batch.commit()?;
        Ok(((count * CHUNK_BYTES) as u64, count == REMOVE_AT_ONCE))
    }

    /// The frames of the chunk that holds `offset`; none if there is no such chunk.
    pub(crate) fn frames(
        &self,
        shard: ShardId,
        offset: u64,
    ) -> Result<Vec<(FrameHeader, Bytes)>, ChunkError> {
        let upto = chunk_key(shard, 0)..=chunk_key(shard, offset);
        let Some(chunk) = self.engine.backlog.range(upto).next_back() else {
            return Ok(Vec::new());
        };
        Ok(split(chunk.value()?.into())?)
    }

    /// Gives up what lies between `trimmed` and `start` and answers up to where whole chunks are gone, and about how many bytes went.
    ///
    /// What is known of the partition is stored with it.
    pub(crate) fn trim(
        &self,
        shard: ShardId,
        trimmed: u64,
        start: u64,
        backlog_end: u64,
    ) -> fjall::Result<(u64, u64)> {
        let upto = start.min(backlog_end);
        let mut removed = 0;
        let mut from = trimmed;
        loop {
            let mut keys = Vec::new();
            for chunk in self
                .engine
                .backlog
                .range(chunk_key(shard, from)..=chunk_key(shard, upto))
                .take(REMOVE_AT_ONCE)
            {
                keys.push(own_key(chunk)?);
            }
            let full = keys.len() == REMOVE_AT_ONCE;
            // Where the last chunk ends is told by the one behind it, or by the end of the backlog.
            let last = if full || upto < backlog_end {
                keys.pop()
            } else {
                None
            };
            removed += (keys.len() * CHUNK_BYTES) as u64;
            if !keys.is_empty() {
                let mut batch = self.engine.batch();
                for key in keys {
                    batch.remove(&self.engine.backlog, key);
                }
                batch.insert(
                    &self.engine.rows,
                    partition_key(shard),
                    partition_value(start, backlog_end),
                );
                batch.commit()?;
            }
            from = last.and_then(|key| Key::number_at(&key, 8)).unwrap_or(upto);
            if !full {
                return Ok((from, removed));
            }
        }
    }

    /// Begins to move records in.
    pub(crate) fn intake(&self) -> Intake<'_> {
        Intake {
            backlog: self,
            batch: self.engine.batch(),
            batched: 0,
            chunk: Vec::new(),
            chunk_first: 0,
        }
    }
}

/// Moves records of partitions, one after the other, into the backlog.
pub(crate) struct Intake<'a> {
    backlog: &'a Backlog,
    batch: fjall::OwnedWriteBatch,
    batched: usize,
    chunk: Vec<u8>,
    chunk_first: u64,
}

impl Intake<'_> {
    /// Adds the next frame of the partition.
    pub(crate) fn add(&mut self, header: &FrameHeader, frame: &[u8], start: u64) -> fjall::Result<()> {
        if self.chunk.is_empty() {
            self.chunk_first = header.first;
        }
        self.chunk.extend_from_slice(frame);
        if self.chunk.len() >= CHUNK_BYTES {
            self.finish(header.shard, start, header.end())?;
        }
        Ok(())
    }

    /// Ends the partition's part: its records up to `end` are in the engine or given up.
    pub(crate) fn finish(&mut self, shard: ShardId, start: u64, end: u64) -> fjall::Result<()> {
        let engine = &self.backlog.engine;
        if !self.chunk.is_empty() {
            self.batched += self.chunk.len();
            self.batch.insert(
                &engine.backlog,
                chunk_key(shard, self.chunk_first),
                std::mem::take(&mut self.chunk),
            );
        }
        self.batch
            .insert(&engine.rows, partition_key(shard), partition_value(start, end));
        if self.batched >= COMMIT_BYTES {
            std::mem::replace(&mut self.batch, engine.batch()).commit()?;
            engine.wrote(Space::Backlog, std::mem::take(&mut self.batched))?;
        }
        Ok(())
    }

    /// Makes all of it durable.
    pub(crate) fn commit(self) -> fjall::Result<()> {
        self.batch.commit()
    }
}

/// Why a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChunkError {
    #[error(transparent)]
    Engine(#[from] fjall::Error),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}
