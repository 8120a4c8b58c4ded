//! What the log knows in memory: where each partition begins and ends, and where its records lie.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::id::{PipelineId, ShardId};
use tokio::sync::Notify;

use super::frame::FrameHeader;
use super::segment::Segment;

/// A run grows to this size; a reader takes one at a time.
const RUN_BYTES: u32 = 256 << 10;
/// Bounds the queue of hot frames where frames are small.
const HOT_FRAMES: usize = 16_384;

/// Frames of one partition that lie one behind the other in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// The first offset in it.
    pub(crate) first: u64,
    pub(crate) position: u32,
    pub(crate) len: u32,
    pub(crate) segment: u64,
}

/// A frame in memory.
#[derive(Clone, Debug)]
pub(crate) struct HotFrame {
    pub(crate) header: FrameHeader,
    pub(crate) bytes: Bytes,
}

/// One partition.
///
/// Its offsets fall into three parts: `start..backlog_end` lies in the engine, `backlog_end..end` in segments,
/// and the last of these also in `hot`. What is before `start` is given up.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    pub(crate) start: u64,
    /// Up to where given-up chunks have been removed from the engine.
    pub(crate) trimmed: u64,
    pub(crate) backlog_end: u64,
    pub(crate) end: u64,
    pub(crate) runs: VecDeque<Run>,
    hot: VecDeque<HotFrame>,
    /// Made by the first reader that waits.
    arrival: Option<Arc<Notify>>,
}

impl PartitionLog {
    pub(crate) fn beginning_at(base: u64) -> Self {
        Self {
            start: base,
            trimmed: base,
            backlog_end: base,
            end: base,
            ..Self::default()
        }
    }

    /// Adds a frame that lies at `position` of `segment`.
    pub(crate) fn add_run(&mut self, header: &FrameHeader, segment: u64, position: u64) -> bool {
        // A segment is far below 4 GiB; see `Log::open`.
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        let len = u32::try_from(header.frame_len()).unwrap_or(u32::MAX);
        self.end = header.end();
        if let Some(last) = self.runs.back_mut()
            && last.segment == segment
            && last.position + last.len == position
            && last.len + len <= RUN_BYTES
        {
            last.len += len;
            return false;
        }
        self.runs.push_back(Run {
            first: header.first,
            position,
            len,
            segment,
        });
        true
    }

    /// The run that holds `offset`.
    pub(crate) fn run_of(&self, offset: u64) -> Option<Run> {
        let after = self.runs.partition_point(|run| run.first <= offset);
        self.runs.get(after.checked_sub(1)?).copied()
    }

    /// The hot frames from the one that holds `offset` on, up to about `bytes`.
    pub(crate) fn hot_from(&self, offset: u64, bytes: usize) -> Vec<HotFrame> {
        if self.hot.front().is_none_or(|frame| frame.header.first > offset) {
            return Vec::new();
        }
        let from = self.hot.partition_point(|frame| frame.header.end() <= offset);
        let mut left = bytes;
        let mut frames = Vec::new();
        for frame in self.hot.range(from..) {
            frames.push(frame.clone());
            left = left.saturating_sub(frame.bytes.len());
            if left == 0 {
                break;
            }
        }
        frames
    }

    pub(crate) fn arrival(&mut self) -> Arc<Notify> {
        self.arrival.get_or_insert_default().clone()
    }

    /// Wakes the readers that wait.
    pub(crate) fn wake(&self) {
        if let Some(arrival) = &self.arrival {
            arrival.notify_waiters();
        }
    }
}

/// A segment and whose frames it holds.
#[derive(Debug)]
pub(crate) struct SegmentEntry {
    pub(crate) segment: Segment,
    /// One past the last offset in it, for each partition that it holds.
    pub(crate) ends: BTreeMap<ShardId, u64>,
    /// A partition that still wants it, as found the last time.
    wanted_by: Option<ShardId>,
}

impl SegmentEntry {
    pub(crate) fn new(segment: Segment) -> Self {
        Self {
            segment,
            ends: BTreeMap::new(),
            wanted_by: None,
        }
    }
}

/// One topic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct TopicRow {
    /// How many partitions; 0 once it is deleted.
    pub(crate) partitions: u32,
    /// Where the offsets of new partitions begin.
    pub(crate) base: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) topics: BTreeMap<PipelineId, TopicRow>,
    pub(crate) partitions: BTreeMap<ShardId, PartitionLog>,
    /// The oldest first; the last is the one that is written.
    pub(crate) segments: VecDeque<SegmentEntry>,
    /// How many runs there are.
    pub(crate) runs: usize,
    hot_queue: VecDeque<(ShardId, u64)>,
    hot_bytes: usize,
}

impl Index {
    /// Adds a frame that is durable at `position` of the newest segment.
    pub(crate) fn add(&mut self, header: &FrameHeader, position: u64) {
        let Some(partition) = self.partitions.get_mut(&header.shard) else {
            return;
        };
        let Some(entry) = self.segments.back_mut() else {
            return;
        };
        entry.ends.insert(header.shard, header.end());
        self.runs += usize::from(partition.add_run(header, entry.segment.number, position));
    }

    /// Keeps a frame in memory, and lets the oldest go for it.
    pub(crate) fn add_hot(&mut self, header: FrameHeader, bytes: Bytes, limit: usize) {
        let Some(partition) = self.partitions.get_mut(&header.shard) else {
            return;
        };
        self.hot_bytes += bytes.len();
        self.hot_queue.push_back((header.shard, header.first));
        partition.hot.push_back(HotFrame { header, bytes });
        while let Some(&(shard, first)) = self.hot_queue.front() {
            let hot = self
                .partitions
                .get_mut(&shard)
                .map(|partition| &mut partition.hot);
            if let Some(hot) = hot
                && hot.front().is_some_and(|frame| frame.header.first == first)
            {
                if self.hot_bytes <= limit && self.hot_queue.len() <= HOT_FRAMES {
                    break;
                }
                self.hot_bytes -= hot.pop_front().map_or(0, |frame| frame.bytes.len());
            }
            self.hot_queue.pop_front();
        }
    }

    /// Gives up what is before `before`. Answers whether anything changed.
    pub(crate) fn truncate(&mut self, shard: ShardId, before: u64) -> bool {
        let Some(partition) = self.partitions.get_mut(&shard) else {
            return false;
        };
        let before = before.min(partition.end);
        if before <= partition.start {
            return false;
        }
        partition.start = before;
        while let Some(frame) = partition.hot.pop_front_if(|frame| frame.header.end() <= before) {
            self.hot_bytes -= frame.bytes.len();
        }
        while partition.runs.get(1).map_or(partition.end, |next| next.first) <= before
            && partition.runs.pop_front().is_some()
        {
            self.runs -= 1;
        }
        true
    }

    /// Forgets a pipeline's partitions and wakes their readers.
    pub(crate) fn remove(&mut self, pipeline: PipelineId) {
        let shards: Vec<ShardId> = self.shards_of(pipeline);
        for shard in shards {
            if let Some(partition) = self.partitions.remove(&shard) {
                self.hot_bytes -= partition.hot.iter().map(|frame| frame.bytes.len()).sum::<usize>();
                self.runs -= partition.runs.len();
                partition.wake();
            }
        }
    }

    pub(crate) fn shards_of(&self, pipeline: PipelineId) -> Vec<ShardId> {
        self.partitions
            .range(ShardId::new(pipeline, scheduler_core::id::Partition(0))..)
            .map(|(&shard, _)| shard)
            .take_while(|shard| shard.pipeline == pipeline)
            .collect()
    }

    pub(crate) fn segment(&self, number: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|entry| entry.segment.number == number)
            .map(|entry| &entry.segment)
    }

    /// A full segment that nobody wants any more.
    pub(crate) fn unwanted_segment(&mut self) -> Option<u64> {
        let partitions = &self.partitions;
        let wants = |shard: &ShardId, end: u64| {
            partitions
                .get(shard)
                .is_some_and(|partition| partition.start < end)
        };
        let sealed = self.segments.len().saturating_sub(1);
        self.segments.iter_mut().take(sealed).find_map(|entry| {
            let still = entry
                .wanted_by
                .filter(|shard| entry.ends.get(shard).is_some_and(|&end| wants(shard, end)));
            entry.wanted_by = still.or_else(|| {
                entry
                    .ends
                    .iter()
                    .find(|&(shard, &end)| wants(shard, end))
                    .map(|(&shard, _)| shard)
            });
            entry.wanted_by.is_none().then_some(entry.segment.number)
        })
    }

    /// Forgets a segment whose records are in the engine or given up, and answers it.
    /// Of the partitions for which `moved` says no, nothing of it went into the engine.
    pub(crate) fn drop_segment(&mut self, number: u64, moved: impl Fn(ShardId) -> bool) -> Option<Segment> {
        let at = self
            .segments
            .iter()
            .position(|entry| entry.segment.number == number)?;
        let entry = self.segments.remove(at)?;
        for (shard, &end) in &entry.ends {
            let Some(partition) = self.partitions.get_mut(shard) else {
                continue;
            };
            if partition.trimmed >= partition.backlog_end && !moved(*shard) {
                partition.trimmed = partition.trimmed.max(end);
            }
            partition.backlog_end = partition.backlog_end.max(end);
            while partition.runs.pop_front_if(|run| run.segment <= number).is_some() {
                self.runs -= 1;
            }
        }
        Some(entry.segment)
    }
}
