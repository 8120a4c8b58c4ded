//! Reads a partition in order: from memory what was appended just now, from the segments or the engine what is older.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::id::{Offset, ShardId};
use scheduler_core::port::log::{LogError, LogReader, ReadLimit};
use scheduler_core::task::{Record, RecordBody};
use tokio::sync::futures::OwnedNotified;

use super::Shared;
use super::frame::{FrameHeader, FrameReader, split};
use super::index::HotFrame;
use super::segment::Segment;
use crate::error::{Corrupt, blocking, log_unavailable};

/// About how much is taken out of memory at once.
const HOT_BYTES: usize = 256 << 10;

/// Where the next record is.
enum Located {
    Hot(Vec<HotFrame>),
    Segment {
        segment: Segment,
        position: u32,
        len: u32,
    },
    Backlog,
    /// Not there yet.
    Ahead(OwnedNotified),
}

/// A reader of the embedded log.
pub(crate) struct EmbeddedReader {
    shared: Arc<Shared>,
    shard: ShardId,
    next: u64,
    /// Frames that are not read to their end; the first holds `next`.
    ready: VecDeque<FrameReader>,
    /// A record that was decoded and found no room.
    held: Option<Record>,
}

impl fmt::Debug for EmbeddedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedReader")
            .field("shard", &self.shard)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl EmbeddedReader {
    pub(crate) fn new(shared: Arc<Shared>, shard: ShardId, from: Offset) -> Self {
        Self {
            shared,
            shard,
            next: from.0,
            ready: VecDeque::new(),
            held: None,
        }
    }

    fn damaged(&self, source: impl std::error::Error + Send + Sync + 'static) -> LogError {
        LogError::Damaged {
            shard: self.shard,
            offset: Offset(self.next),
            source: Box::new(source),
        }
    }

    fn locate(&self) -> Result<Located, LogError> {
        let mut index = self.shared.index();
        let partition = index
            .partitions
            .get_mut(&self.shard)
            .ok_or(LogError::NotFound(self.shard))?;
        if self.next < partition.start {
            let start = Offset(partition.start);
            return Err(LogError::Truncated {
                shard: self.shard,
                asked: Offset(self.next),
                start,
            });
        }
        if self.next >= partition.end {
            // Made under the lock, so that no append between this and the waiting is missed.
            return Ok(Located::Ahead(partition.arrival().notified_owned()));
        }
        let hot = partition.hot_from(self.next, HOT_BYTES);
        if !hot.is_empty() {
            return Ok(Located::Hot(hot));
        }
        if self.next < partition.backlog_end {
            return Ok(Located::Backlog);
        }
        let run = partition.run_of(self.next);
        let found = run.and_then(|run| Some((run, index.segment(run.segment)?.clone())));
        let Some((run, segment)) = found else {
            return Err(self.damaged(Corrupt("the record's place in the index")));
        };
        Ok(Located::Segment {
            segment,
            position: run.position,
            len: run.len,
        })
    }

    /// Takes in frames, as far as they are not read; `whole` is the size of the buffer that each of them shares.
    fn take_in(
        &mut self,
        frames: impl IntoIterator<Item = (FrameHeader, Bytes)>,
        whole: impl Fn(&Bytes) -> usize,
    ) -> Result<(), LogError> {
        let shard = self.shard;
        for (header, bytes) in frames {
            if header.shard == shard && header.end() > self.next {
                self.ready
                    .push_back(FrameReader::new(&header, &bytes, whole(&bytes)));
            }
        }
        if self.ready.is_empty() {
            // The record may have been given up since it was located; then locating it again says so.
            return match self.locate()? {
                Located::Backlog | Located::Segment { .. } => {
                    Err(self.damaged(Corrupt("the record at its place")))
                }
                Located::Hot(_) | Located::Ahead(_) => Ok(()),
            };
        }
        Ok(())
    }

    /// Moves ready records into `into`, as many as `limit` allows, but one at least.
    fn deliver(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError> {
        let mut records = 0;
        let mut bytes = 0usize;
        loop {
            let record = match self.held.take() {
                Some(record) => Some(record),
                None => self.decode_next()?,
            };
            let Some(record) = record else { return Ok(()) };
            let weight = match &record.body {
                RecordBody::Task(task) => task.params.len(),
                RecordBody::Undecodable { raw, .. } => raw.len(),
            };
            if records > 0 && (records >= limit.records || bytes + weight > limit.bytes) {
                self.held = Some(record);
                return Ok(());
            }
            records += 1;
            bytes += weight;
            into.push(record);
        }
    }

    fn decode_next(&mut self) -> Result<Option<Record>, LogError> {
        while let Some(frame) = self.ready.front_mut() {
            if frame.end() <= self.next {
                self.ready.pop_front();
                continue;
            }
            match frame.next() {
                Ok(Some(record)) if record.offset.0 < self.next => {}
                Ok(Some(record)) => {
                    self.next = record.offset.0 + 1;
                    return Ok(Some(record));
                }
                Ok(None) => {
                    self.ready.pop_front();
                }
                Err(problem) => return Err(self.damaged(problem)),
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl LogReader for EmbeddedReader {
    async fn next(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError> {
        loop {
            let before = into.len();
            self.deliver(limit, into)?;
            if into.len() > before {
                return Ok(());
            }
            match self.locate()? {
                Located::Hot(frames) => {
                    self.take_in(
                        frames.into_iter().map(|frame| (frame.header, frame.bytes)),
                        Bytes::len,
                    )?;
                }
                Located::Segment {
                    segment,
                    position,
                    len,
                } => {
                    let read = move || segment.read(position.into(), len as usize);
                    let bytes = blocking(read)
                        .await
                        .map_err(log_unavailable)?
                        .map_err(log_unavailable)?;
                    let frames = split(bytes).map_err(|problem| self.damaged(problem))?;
                    self.take_in(frames, |_| len as usize)?;
                }
                Located::Backlog => {
                    let (shared, shard, next) = (self.shared.clone(), self.shard, self.next);
                    let frames = blocking(move || shared.backlog.frames(shard, next))
                        .await
                        .map_err(log_unavailable)?;
                    let frames = frames.map_err(|error| match error {
                        super::backlog::ChunkError::Engine(error) => log_unavailable(error),
                        super::backlog::ChunkError::Corrupt(problem) => self.damaged(problem),
                    })?;
                    let whole = frames.iter().map(|(_, bytes)| bytes.len()).sum();
                    self.take_in(frames, |_| whole)?;
                }
                Located::Ahead(arrival) => arrival.await,
            }
        }
    }
}
