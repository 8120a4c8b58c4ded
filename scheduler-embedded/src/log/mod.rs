//! The task log: segments that all partitions share, written by one thread in group commits, with the engine behind them for the backlog.

mod backlog;
mod chores;
mod committer;
pub(crate) mod frame;
mod index;
mod keeper;
mod queue;
mod reader;
pub(crate) mod segment;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use scheduler_core::port::log::{Bounds, LogError, LogReader, TaskLog, Topic};
use scheduler_core::task::TaskSpec;
use tokio::sync::{Semaphore, oneshot};

use self::backlog::Backlog;
use self::chores::Chores;
use self::committer::{Append, Command};
use self::index::{Index, PartitionLog, SegmentEntry, TopicRow};
use self::queue::{Closed, Queue};
use self::reader::EmbeddedReader;
use self::segment::SegmentWriter;
use crate::config::EmbeddedConfig;
use crate::directory::Directory;
use crate::engine::Engine;
use crate::error::{OpenError, Shared as SharedError, blocking, log_unavailable};

/// What a task weighs beside its bytes while it waits to be written.
const TASK_OVERHEAD: usize = 64;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the log's handles and threads share.
pub(crate) struct Shared {
    config: EmbeddedConfig,
    dir: PathBuf,
    backlog: Backlog,
    index: Mutex<Index>,
    /// Told when a segment has gone.
    segment_gone: Condvar,
    queue: Queue<Command>,
    /// Bytes that may still wait in the queue.
    room: Arc<Semaphore>,
    chores: Chores,
    /// Taken by who changes topics.
    topics: Mutex<()>,
    _directory: Arc<Directory>,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn ask(&self, command: Command) -> Result<(), LogError> {
        self.queue.push(command).map_err(|Closed| gone())
    }
}

/// The embedded task log. See the crate's front page.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    pub(crate) fn open(
        directory: Arc<Directory>,
        engine: Engine,
        mut config: EmbeddedConfig,
    ) -> Result<Self, OpenError> {
        // Positions in a segment are kept in 32 bits, and a group commit may go past its end.
        config.segment_bytes = config.segment_bytes.clamp(4096, 1 << 30);
        config.queue_bytes = config.queue_bytes.clamp(4096, 1 << 30);
        config.max_task_bytes = config.max_task_bytes.clamp(1, 1 << 30);

        let dir = directory.part("log");
        std::fs::create_dir_all(&dir).map_err(OpenError::io(&dir))?;
        let backlog = Backlog { engine };
        let (index, writer, next_group) = recover(&dir, &backlog, &config)?;
        let shared = Arc::new(Shared {
            room: Arc::new(Semaphore::new(config.queue_bytes)),
            chores: Chores::new(keeper::left(&index)),
            index: Mutex::new(index),
            segment_gone: Condvar::new(),
            queue: Queue::new(),
            topics: Mutex::new(()),
            config,
            dir,
            backlog,
            _directory: directory,
        });
        let committer = committer::Committer::new(shared.clone(), writer, next_group);
        let keeper = keeper::Keeper::new(shared.clone());
        let mut log = Self {
            threads: Vec::new(),
            shared,
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(OpenError::io(&log.shared.dir))
        };
        let committer = spawn("log-committer", Box::new(move || committer.run()))?;
        let keeper = spawn("log-keeper", Box::new(move || keeper.run()))?;
        log.threads = vec![committer, keeper];
        Ok(log)
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.chores.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Reads what is there: topics and partitions from the engine, then every frame of the segments.
fn recover(
    dir: &std::path::Path,
    backlog: &Backlog,
    config: &EmbeddedConfig,
) -> Result<(Index, SegmentWriter, u64), OpenError> {
    let mut index = Index::default();
    backlog.topics(|pipeline, row| {
        index.topics.insert(pipeline, row);
        add_partitions(&mut index, pipeline, row);
    })?;
    backlog.partitions(|shard, start, backlog_end| {
        if let Some(partition) = index.partitions.get_mut(&shard) {
            partition.start = start.max(partition.start);
            partition.backlog_end = backlog_end.max(partition.start);
            partition.end = partition.backlog_end;
            partition.trimmed = 0;
        }
    })?;

    let numbers = segment::list(dir)?;
    let mut next_number = 1;
    let mut next_group = 1;
    let mut writer = None;
    for (at, &number) in numbers.iter().enumerate() {
        let newest = at + 1 == numbers.len();
        let entry_at = index.segments.len();
        let path = segment::path_of(dir, number);
        let file = std::fs::File::open(&path).map_err(OpenError::io(&path))?;
        index.segments.push_back(SegmentEntry::new(segment::Segment {
            number,
            path: path.clone(),
            file: Arc::new(file),
        }));
        let scanned = segment::scan(dir, number, newest, |header, position| {
            // A partition that is not known was deleted; what the engine has already is passed over.
            let Some(partition) = index.partitions.get(&header.shard) else {
                return Ok(());
            };
            if header.end() <= partition.end {
                return Ok(());
            }
            if header.first > partition.end {
                return Err("records before this frame are missing");
            }
            index.add(header, position);
            Ok(())
        })?;
        let Some(scanned) = scanned else {
            index.segments.truncate(entry_at);
            std::fs::remove_file(&path).map_err(OpenError::io(&path))?;
            continue;
        };
        if scanned.torn > 0 {
            tracing::warn!(
                file = %path.display(), position = scanned.end, bytes = scanned.torn,
                "cut off a write that a crash left torn; it had not been acknowledged"
            );
        }
        next_number = number + 1;
        next_group = scanned.next_group;
        writer = Some(scanned);
    }
    let writer = if let Some(scanned) = writer {
        SegmentWriter::resume(&scanned.segment, scanned.end, config.segment_bytes)?
    } else {
        let writer = SegmentWriter::create(dir, next_number, next_group, config.segment_bytes)?;
        index
            .segments
            .push_back(SegmentEntry::new(writer.segment.clone()));
        writer
    };
    Ok((index, writer, next_group))
}

fn add_partitions(index: &mut Index, pipeline: PipelineId, row: TopicRow) {
    for partition in 0..row.partitions {
        index
            .partitions
            .entry(ShardId::new(pipeline, Partition(partition)))
            .or_insert_with(|| PartitionLog::beginning_at(row.base));
    }
}

impl Shared {
    fn ensure(&self, pipeline: PipelineId, partitions: u32) -> Result<(), LogError> {
        let _changing = lock(&self.topics);
        let old = self.index().topics.get(&pipeline).copied().unwrap_or_default();
        if old.partitions >= partitions {
            return Ok(());
        }
        let row = TopicRow { partitions, ..old };
        self.backlog.put_topic(pipeline, row).map_err(log_unavailable)?;
        let mut index = self.index();
        index.topics.insert(pipeline, row);
        add_partitions(&mut index, pipeline, row);
        Ok(())
    }
}

fn gone() -> LogError {
    log_unavailable(SharedError("the log was closed".into()))
}

#[async_trait]
impl TaskLog for EmbeddedLog {
    async fn check(&self, topic: &Topic) -> Result<(), LogError> {
        let refused = |field, problem| Err(LogError::Refused { field, problem });
        if let Some(copies) = topic.settings.replication.filter(|copies| *copies > 1) {
            let problem = format!(
                "is {copies}; the embedded log keeps one copy: leave it out, or run the server on Kafka"
            );
            return refused("replication".to_owned(), problem);
        }
        match topic.settings.settings.keys().next() {
            Some(name) => refused(
                format!("topic_settings.{name}"),
                "is a setting of Kafka's; the embedded log has none: leave it out".to_owned(),
            ),
            None => Ok(()),
        }
    }

    async fn ensure(&self, topic: &Topic) -> Result<(), LogError> {
        let (pipeline, partitions) = (topic.pipeline, topic.partitions.max(1));
        if self
            .shared
            .index()
            .topics
            .get(&pipeline)
            .is_some_and(|row| row.partitions >= partitions)
        {
            return Ok(());
        }
        let shared = self.shared.clone();
        blocking(move || shared.ensure(pipeline, partitions))
            .await
            .map_err(log_unavailable)?
    }

    async fn delete(&self, pipeline: PipelineId) -> Result<(), LogError> {
        // The committer does it, so that no append to the pipeline is in flight meanwhile.
        let (reply, done) = oneshot::channel();
        self.shared.ask(Command::Delete { pipeline, reply })?;
        done.await.map_err(|_| gone())?
    }

    async fn append(&self, shard: ShardId, tasks: Vec<TaskSpec>) -> Result<Vec<Offset>, LogError> {
        let limit = self.shared.config.max_task_bytes;
        let mut bytes = 0;
        for task in &tasks {
            let weight = task.weight();
            if weight > limit {
                return Err(LogError::TooLarge { bytes: weight, limit });
            }
            bytes += weight + TASK_OVERHEAD;
        }
        if tasks.is_empty() {
            return self.bounds(shard).await.map(|_| Vec::new());
        }
        let permits = u32::try_from(bytes.min(self.shared.config.queue_bytes)).unwrap_or(u32::MAX);
        let room = self.shared.room.clone();
        let room = match room.clone().try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(
                self.shared.config.append_patience,
                room.acquire_many_owned(permits),
            )
            .await
            .map_err(|_| LogError::Overloaded)?
            .map_err(log_unavailable)?,
        };
        let (reply, done) = oneshot::channel();
        self.shared.ask(Command::Append(Append {
            shard,
            tasks,
            bytes,
            reply,
            room,
        }))?;
        done.await.map_err(|_| gone())?
    }

    async fn bounds(&self, shard: ShardId) -> Result<Bounds, LogError> {
        let index = self.shared.index();
        let partition = index.partitions.get(&shard).ok_or(LogError::NotFound(shard))?;
        Ok(Bounds {
            start: Offset(partition.start),
            end: Offset(partition.end),
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
        Ok(Box::new(EmbeddedReader::new(self.shared.clone(), shard, from)))
    }

    async fn truncate(&self, shard: ShardId, before: Offset) -> Result<(), LogError> {
        let mut index = self.shared.index();
        if !index.partitions.contains_key(&shard) {
            return Err(LogError::NotFound(shard));
        }
        if index.truncate(shard, before.0) {
            let trim = index
                .partitions
                .get(&shard)
                .is_some_and(|p| p.trimmed < p.start.min(p.backlog_end));
            drop(index);
            self.shared.chores.truncated(trim.then_some(shard));
        }
        Ok(())
    }
}
