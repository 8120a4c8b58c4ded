//! The log's housekeeping, on a thread of its own: segments that nobody wants are removed, the oldest of too many move into
//! the engine, and what is given up there is removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use scheduler_core::id::ShardId;

use super::Shared;
use super::chores::Work;
use super::frame::split;
use super::index::{Index, Run};
use super::segment::Segment;
use crate::error::Corrupt;

/// The engine's files are rewritten when at least so many bytes in them are given up.
const COMPACT_BYTES: u64 = 64 << 20;

/// What an interrupted keeper may have left behind.
pub(super) fn left(index: &Index) -> Work {
    let trim = index
        .partitions
        .iter()
        .filter(|(_, p)| p.trimmed < p.start.min(p.backlog_end));
    let deleted = index.topics.iter().filter(|(_, row)| row.partitions == 0);
    Work {
        segments: true,
        trim: trim.map(|(&shard, _)| shard).collect(),
        deleted: deleted.map(|(&id, _)| id).collect(),
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Engine(#[from] fjall::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("a frame of {0} cannot be read: {1}")]
    Damaged(String, #[source] Corrupt),
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    /// Bytes given up in the engine since its files were last rewritten.
    trimmed: u64,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, trimmed: 0 }
    }

    pub(crate) fn run(mut self) {
        while let Some(mut work) = self.shared.chores.take() {
            if let Err(error) = self.keep(&mut work) {
                tracing::error!(%error, "the task log's housekeeping failed; it is tried again");
                self.shared.chores.put_back(work);
            }
        }
    }

    fn keep(&mut self, work: &mut Work) -> Result<(), KeeperError> {
        self.keep_segments()?;
        while let Some(shard) = work.trim.first().copied() {
            self.trim(shard)?;
            work.trim.remove(&shard);
        }
        while let Some(pipeline) = work.deleted.first().copied() {
            loop {
                let (removed, more) = self.shared.backlog.remove_pipeline(pipeline)?;
                self.trimmed += removed;
                if !more {
                    break;
                }
            }
            work.deleted.remove(&pipeline);
        }
        self.give_back()
    }

    fn keep_segments(&mut self) -> Result<(), KeeperError> {
        loop {
            let mut index = self.shared.index();
            let unwanted = index.unwanted_segment();
            let many = index.segments.len() > self.shared.config.sealed_segments() + 1
                || (index.runs > self.shared.config.index_entries && index.segments.len() > 1);
            let oldest = index
                .segments
                .front()
                .map(|entry| entry.segment.number)
                .filter(|_| many);
            drop(index);
            let Some(number) = unwanted.or(oldest) else {
                return Ok(());
            };
            if self.shared.chores.is_closed() {
                return Ok(());
            }
            self.move_segment(number)?;
        }
    }

    /// Moves what is still wanted of a segment into the engine, and removes its file.
    fn move_segment(&mut self, number: u64) -> Result<(), KeeperError> {
        let Some((segment, parts)) = self.parts(number) else {
            return Ok(());
        };
        let mut intake = self.shared.backlog.intake();
        let mut moved = BTreeSet::new();
        for part in parts {
            for run in part.runs {
                let bytes = segment.read(run.position.into(), run.len as usize)?;
                let frames = split(bytes)
                    .map_err(|problem| KeeperError::Damaged(segment.path.display().to_string(), problem))?;
                for (header, frame) in frames {
                    if header.end() > part.start {
                        intake.add(&header, &frame, part.start)?;
                        moved.insert(part.shard);
                    }
                }
            }
            intake.finish(part.shard, part.start, part.end)?;
        }
        intake.commit()?;
        if let Some(segment) = self
            .shared
            .index()
            .drop_segment(number, |shard| moved.contains(&shard))
        {
            std::fs::remove_file(&segment.path)?;
        }
        self.shared.segment_gone.notify_all();
        Ok(())
    }

    fn parts(&self, number: u64) -> Option<(Segment, Vec<Part>)> {
        let index = self.shared.index();
        let entry = index
            .segments
            .iter()
            .find(|entry| entry.segment.number == number)?;
        let parts = entry.ends.iter().filter_map(|(&shard, &end)| {
            let partition = index.partitions.get(&shard)?;
            let runs = partition
                .runs
                .iter()
                .filter(|run| run.segment == number && partition.start < end);
            Some(Part {
                shard,
                start: partition.start,
                end,
                runs: runs.copied().collect(),
            })
        });
        Some((entry.segment.clone(), parts.collect()))
    }

    fn trim(&mut self, shard: ShardId) -> Result<(), KeeperError> {
        let bounds = self
            .shared
            .index()
            .partitions
            .get(&shard)
            .map(|p| (p.trimmed, p.start, p.backlog_end));
        let Some((trimmed, start, backlog_end)) = bounds else {
            return Ok(());
        };
        let (trimmed, removed) = self.shared.backlog.trim(shard, trimmed, start, backlog_end)?;
        self.trimmed += removed;
        if let Some(partition) = self.shared.index().partitions.get_mut(&shard) {
            partition.trimmed = partition.trimmed.max(trimmed);
        }
        Ok(())
    }

    /// Gives the room of removed records back to the file system.
    fn give_back(&mut self) -> Result<(), KeeperError> {
        if self.trimmed == 0 {
            return Ok(());
        }
        let backlog = &self.shared.backlog.engine.backlog;
        let empty = self
            .shared
            .index()
            .partitions
            .values()
            .all(|p| p.start >= p.backlog_end);
        // Not `Keyspace::clear`: after a crash the engine would repeat it on what was written since.
        let enough = if empty {
            COMPACT_BYTES / 8
        } else {
            COMPACT_BYTES.max(backlog.disk_space() / 2)
        };
        if self.trimmed >= enough {
            backlog.rotate_memtable_and_wait()?;
            backlog.major_compact()?;
            self.shared.backlog.engine.drop_old_files()?;
            self.trimmed = 0;
        }
        Ok(())
    }
}

/// One partition's part of a segment.
struct Part {
    shard: ShardId,
    start: u64,
    end: u64,
    runs: Vec<Run>,
}
