//! The one thread that writes the log: what came while the last commit ran goes into the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use scheduler_core::id::{Offset, PipelineId, ShardId};
use scheduler_core::port::log::LogError;
use scheduler_core::task::TaskSpec;
use scheduler_core::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::frame::{FrameBuilder, FrameHeader};
use super::index::{SegmentEntry, TopicRow};
use super::segment::SegmentWriter;
use super::{Shared, TASK_OVERHEAD, lock};
use crate::error::{OpenError, Shared as SharedError, log_unavailable};

/// A group commit takes about this much at most.
const GROUP_BYTES: usize = 4 << 20;
/// How many full segments may wait for the keeper beyond those that are kept.
const SEGMENTS_BEHIND: usize = 4;

/// What the committer is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Append),
    Delete {
        pipeline: PipelineId,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
}

/// Tasks for one partition.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) shard: ShardId,
    pub(crate) tasks: Vec<TaskSpec>,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<Offset>, LogError>>,
    pub(crate) room: OwnedSemaphorePermit,
}

/// Why nothing more is written: after a failed sync nobody knows what is on the disk.
type Failure = Arc<str>;

pub(crate) struct Committer {
    shared: Arc<Shared>,
    writer: SegmentWriter,
    next_group: u64,
    failure: Option<Failure>,
}

/// Closes the queue however the thread ends, so that nobody waits for it in vain.
struct CloseOnExit(Arc<Shared>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.0.queue.abandon();
    }
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, writer: SegmentWriter, next_group: u64) -> Self {
        Self {
            shared,
            writer,
            next_group,
            failure: None,
        }
    }

    pub(crate) fn run(mut self) {
        let _close = CloseOnExit(self.shared.clone());
        while let Some(commands) = self.shared.queue.take() {
            let mut group = Vec::new();
            let mut bytes = 0;
            for command in commands {
                match command {
                    Command::Append(append) => {
                        bytes += append.bytes;
                        group.push(append);
                        if bytes >= GROUP_BYTES {
                            bytes = 0;
                            self.append(std::mem::take(&mut group));
                        }
                    }
                    Command::Delete { pipeline, reply } => {
                        self.append(std::mem::take(&mut group));
                        // Whoever asked may have gone; the deletion stands.
                        let _ = reply.send(self.delete(pipeline));
                    }
                }
            }
            self.append(group);
        }
        if let Err(error) = self.writer.seal() {
            tracing::warn!(%error, "cannot give back the unused room of the log's newest file");
        }
    }

    fn append(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let refusal = match self.make_room() {
            Ok(()) => match self.commit(appends) {
                Ok(()) => return,
                Err(refused) => refused,
            },
            Err(refusal) => (appends, refusal),
        };
        let (appends, refusal) = refusal;
        for append in appends {
            let error = match &refusal {
                Refusal::Overloaded => LogError::Overloaded,
                Refusal::Failed(text) => log_unavailable(SharedError(text.clone())),
            };
            let _ = append.reply.send(Err(error));
        }
    }

    /// Begins a new segment if this one is full, once the keeper is not too far behind.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if let Some(failure) = &self.failure {
            return Err(Refusal::Failed(failure.clone()));
        }
        if self.writer.position < self.shared.config.segment_bytes {
            return Ok(());
        }
        let most = self.shared.config.sealed_segments() + SEGMENTS_BEHIND;
        let patience = self.shared.config.append_patience;
        let (index, waited) = self
            .shared
            .segment_gone
            .wait_timeout_while(self.shared.index(), patience, |index| index.segments.len() > most)
            .unwrap_or_else(PoisonError::into_inner);
        drop(index);
        if waited.timed_out() {
            return Err(Refusal::Overloaded);
        }
        self.roll()
            .map_err(|error| Refusal::Failed(error.to_string().into()))
    }

    fn roll(&mut self) -> Result<(), OpenError> {
        let config = &self.shared.config;
        self.writer
            .seal()
            .map_err(OpenError::io(&self.writer.segment.path))?;
        let number = self.writer.segment.number + 1;
        self.writer = SegmentWriter::create(&self.shared.dir, number, self.next_group, config.segment_bytes)?;
        self.shared
            .index()
            .segments
            .push_back(SegmentEntry::new(self.writer.segment.clone()));
        self.shared.chores.wake();
        Ok(())
    }

    /// Writes a group and answers its appends; or gives back those that were not written, and why.
    fn commit(&mut self, appends: Vec<Append>) -> Result<(), (Vec<Append>, Refusal)> {
        let Group {
            appends,
            firsts,
            frames,
            bytes,
        } = self.build(appends);
        if appends.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.writer.commit(&bytes) {
            return Err((appends, self.fail(&error)));
        }
        self.next_group += 1;

        let mut position = self.writer.position - bytes.iter().map(|frame| frame.len() as u64).sum::<u64>();
        let mut index = self.shared.index();
        let mut readers = Vec::new();
        for (header, bytes) in frames.into_iter().zip(bytes) {
            index.add(&header, position);
            position += bytes.len() as u64;
            index.add_hot(header, bytes, self.shared.config.hot_bytes);
            if readers.last() != Some(&header.shard) {
                readers.push(header.shard);
            }
        }
        for shard in readers {
            if let Some(partition) = index.partitions.get(&shard) {
                partition.wake();
            }
        }
        let crowded = index.runs > self.shared.config.index_entries;
        drop(index);
        if crowded {
            self.shared.chores.wake();
        }
        for (append, first) in appends.into_iter().zip(firsts) {
            drop(append.room);
            let offsets = (first..).take(append.tasks.len()).map(Offset).collect();
            // Whoever asked may have gone; the records stand.
            let _ = append.reply.send(Ok(offsets));
        }
        Ok(())
    }

    /// Gives out offsets and packs frames. Appends to what does not exist are refused at once.
    fn build(&self, appends: Vec<Append>) -> Group {
        let now = now();
        let mut ends: BTreeMap<ShardId, (u64, usize)> = BTreeMap::new();
        let mut known = Vec::with_capacity(appends.len());
        let mut firsts = Vec::with_capacity(appends.len());
        {
            let index = self.shared.index();
            for append in appends {
                let Some(partition) = index.partitions.get(&append.shard) else {
                    let _ = append.reply.send(Err(LogError::NotFound(append.shard)));
                    continue;
                };
                let (end, bytes) = ends.entry(append.shard).or_insert((partition.end, 0));
                firsts.push(*end);
                *end += append.tasks.len() as u64;
                *bytes += append.bytes - append.tasks.len() * (TASK_OVERHEAD - 8);
                known.push(append);
            }
        }

        let mut open: BTreeMap<ShardId, FrameBuilder> = BTreeMap::new();
        let mut full = Vec::new();
        for (append, &first) in known.iter().zip(&firsts) {
            let shard = append.shard;
            let room =
                |ends: &BTreeMap<ShardId, (u64, usize)>| ends.get(&shard).map_or(0, |&(_, bytes)| bytes);
            let mut frame = open.remove(&shard);
            for (task, offset) in append.tasks.iter().zip(first..) {
                let filling = frame.get_or_insert_with(|| FrameBuilder::new(shard, offset, room(&ends)));
                filling.push(task);
                if filling.is_full() {
                    full.extend(frame.take());
                }
            }
            open.extend(frame.map(|frame| (shard, frame)));
        }
        full.extend(open.into_values());

        let count = full.len();
        let (frames, bytes) = full
            .into_iter()
            .enumerate()
            .map(|(at, frame)| frame.finish(self.next_group, at + 1 == count, now))
            .unzip();
        Group {
            appends: known,
            firsts,
            frames,
            bytes,
        }
    }

    fn fail(&mut self, error: &std::io::Error) -> Refusal {
        let text: Failure = format!("cannot write {}: {error}", self.writer.segment.path.display()).into();
        // A full disk is no reason to stop for good, once what was written of this group is taken back.
        match self.writer.roll_back(self.shared.config.segment_bytes) {
            Ok(()) if error.kind() == std::io::ErrorKind::StorageFull => {
                tracing::error!(%error, "the disk of the task log is full");
            }
            outcome => {
                tracing::error!(%error, ?outcome, "the task log has failed; restart to go on with what is durable");
                self.failure = Some(text.clone());
            }
        }
        Refusal::Failed(text)
    }

    fn delete(&mut self, pipeline: PipelineId) -> Result<(), LogError> {
        let _changing = lock(&self.shared.topics);
        let (base, shards) = {
            let index = self.shared.index();
            let Some(row) = index.topics.get(&pipeline).filter(|row| row.partitions > 0) else {
                return Ok(());
            };
            let shards = index.shards_of(pipeline);
            let ends = shards
                .iter()
                .filter_map(|shard| index.partitions.get(shard))
                .map(|partition| partition.end);
            (ends.max().unwrap_or_default().max(row.base), shards)
        };
        self.shared
            .backlog
            .delete_topic(pipeline, base, &shards)
            .map_err(log_unavailable)?;
        let mut index = self.shared.index();
        index.topics.insert(pipeline, TopicRow { partitions: 0, base });
        index.remove(pipeline);
        drop(index);
        self.shared.chores.deleted(pipeline);
        Ok(())
    }
}

/// Why a group was not written.
enum Refusal {
    Overloaded,
    Failed(Failure),
}

/// What one commit writes.
struct Group {
    appends: Vec<Append>,
    /// The first offset of each append.
    firsts: Vec<u64>,
    frames: Vec<FrameHeader>,
    bytes: Vec<Bytes>,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO + since
}
