//! The consumers that readers share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Offset as KafkaOffset, TopicPartitionList};
use scheduler_core::id::{Offset, PipelineId, ShardId};
use scheduler_core::port::log::LogError;
use tokio::sync::Notify;

use crate::config::KafkaConfig;
use crate::context;
use crate::error::{Problem, aside, unavailable};
use crate::log::topics::index;

/// How long a thread waits for events of its consumer before it looks whether anybody still needs it.
const GLANCE: Duration = Duration::from_secs(1);

/// The context of a reading consumer: problems of partitions are met by their readers.
#[derive(Debug, Default)]
pub(crate) struct Reading;

impl ClientContext for Reading {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = &error as &dyn std::error::Error, "Kafka: {reason}");
    }
}

impl ConsumerContext for Reading {}

pub(super) type Queue = PartitionQueue<Reading>;

/// Most partitions of an eager consumer, whose requests are frequent and so must be small.
const EAGER_PARTITIONS: usize = 64;
/// Most eager consumers; each has threads and connections of its own.
const EAGER_CONSUMERS: usize = 8;

/// How a consumer asks for records.
///
/// It has one request at a broker at a time, for those of its partitions that have room just then. While none of *these* gets
/// a record the broker holds the request, and the others, which have room again by now, have to wait for it. So
/// partitions with a backlog are read apart from those that stand still, with requests that are held only for moments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lane {
    /// Requests are held long: standing still costs next to nothing.
    Patient,
    /// Requests are held for moments.
    Eager,
}

/// How a reader learns that something has come.
#[derive(Debug, Default)]
pub(super) struct Bell {
    pub(super) rung: Notify,
    /// The topic was deleted by this process.
    pub(super) deleted: AtomicBool,
}

/// A consumer and the partitions that are read through it.
pub(super) struct Shared {
    lane: Lane,
    consumer: Arc<BaseConsumer<Reading>>,
    partitions: Mutex<HashMap<ShardId, Arc<Bell>>>,
    /// Topics whose partitions the consumer has asked about, and how many there were.
    seen: Mutex<HashMap<PipelineId, i32>>,
    /// It can go on no more: no further partition is read through it.
    broken: AtomicBool,
}

/// A partition that is being read.
pub(super) struct Tap {
    pub(super) bell: Arc<Bell>,
    shared: Arc<Shared>,
    shard: ShardId,
    name: Arc<str>,
    /// None only while it is dropped.
    queue: Option<Queue>,
}

/// All consumers that read.
pub(crate) struct Pool {
    config: KafkaConfig,
    consumers: Mutex<Vec<Arc<Shared>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(config: KafkaConfig) -> Self {
        Self {
            config,
            consumers: Mutex::default(),
        }
    }

    /// Begins to read the partition at `from`; patiently if eager consumers are full. Blocks for as long as the brokers take
    /// to tell about its topic.
    pub(super) fn tap(
        &self,
        shard: ShardId,
        name: &Arc<str>,
        from: Offset,
        lane: Lane,
    ) -> Result<Tap, LogError> {
        let bell = Arc::new(Bell::default());
        let shared = self.place(shard, &bell, lane)?;
        // From here on dropping it takes it out again.
        let mut tap = Tap {
            bell,
            shared,
            shard,
            name: name.clone(),
            queue: None,
        };
        tap.learn(self.config.request_timeout)?;
        tap.start(from)?;
        Ok(tap)
    }

    /// Whether so much, read without a pause, says that a partition has a backlog.
    pub(super) fn is_burst(&self, records: usize, bytes: usize) -> bool {
        records >= self.config.prefetch_records.div_ceil(2) || bytes >= self.config.prefetch_bytes / 2
    }

    /// Whether one more partition can be read eagerly.
    pub(super) fn has_eager_room(&self) -> bool {
        let consumers = lock(&self.consumers);
        let mut eager = consumers.iter().filter(|shared| shared.lane == Lane::Eager);
        let has_room = |shared: &Arc<Shared>| lock(&shared.partitions).len() < self.most(Lane::Eager);
        eager.clone().count() < EAGER_CONSUMERS || eager.any(has_room)
    }

    /// How many partitions a consumer of the lane reads.
    fn most(&self, lane: Lane) -> usize {
        match lane {
            Lane::Patient => self.config.partitions_per_consumer,
            Lane::Eager => self.config.partitions_per_consumer.min(EAGER_PARTITIONS),
        }
    }

    /// The first consumer of the lane that has room and does not read this partition for another reader.
    fn place(&self, shard: ShardId, bell: &Arc<Bell>, lane: Lane) -> Result<Arc<Shared>, LogError> {
        let mut consumers = lock(&self.consumers);
        let mut first = true;
        consumers.retain(|shared| {
            let kept = shared.lane == Lane::Patient && std::mem::take(&mut first);
            (kept || !lock(&shared.partitions).is_empty()) && !shared.broken.load(Ordering::Relaxed)
        });
        let most = self.most(lane);
        let mut among = 0;
        for shared in consumers.iter().filter(|shared| shared.lane == lane) {
            among += 1;
            let mut partitions = lock(&shared.partitions);
            if partitions.len() < most && !partitions.contains_key(&shard) {
                partitions.insert(shard, bell.clone());
                return Ok(shared.clone());
            }
        }
        if lane == Lane::Eager && among >= EAGER_CONSUMERS {
            drop(consumers);
            return self.place(shard, bell, Lane::Patient);
        }
        let shared = Shared::open(&self.config, lane)?;
        lock(&shared.partitions).insert(shard, bell.clone());
        consumers.push(shared.clone());
        Ok(shared)
    }

    /// Tells the readers of a pipeline that its topic is deleted.
    pub(crate) fn deleted(&self, pipeline: PipelineId) {
        for shared in lock(&self.consumers).iter() {
            lock(&shared.seen).remove(&pipeline);
            for (shard, bell) in lock(&shared.partitions).iter() {
                if shard.pipeline == pipeline {
                    bell.deleted.store(true, Ordering::Release);
                    bell.rung.notify_one();
                }
            }
        }
    }
}

impl Shared {
    fn open(config: &KafkaConfig, lane: Lane) -> Result<Arc<Self>, LogError> {
        let consumer =
            BaseConsumer::from_config_and_context(&config.reader(lane), Reading).map_err(unavailable)?;
        let shared = Arc::new(Self {
            lane,
            consumer: Arc::new(consumer),
            partitions: Mutex::default(),
            seen: Mutex::default(),
            broken: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || serve(&weak))
            .map_err(unavailable)?;
        Ok(shared)
    }
}

/// Serves what a consumer has to say beside its partitions, until nobody reads through it.
fn serve(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        // Other problems are logged by the context; readers meet what is about their partitions.
        if let Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) = shared.consumer.poll(GLANCE) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a consumer can go on no more"
            );
            shared.broken.store(true, Ordering::Relaxed);
            for bell in lock(&shared.partitions).values() {
                bell.rung.notify_one();
            }
            return;
        }
    }
}

impl Tap {
    /// Has the consumer ask about the topic if it has not heard of the partition.
    fn learn(&self, patience: Duration) -> Result<(), LogError> {
        let partition = index(self.shard)?;
        let known = lock(&self.shared.seen).get(&self.shard.pipeline).copied();
        if known.is_some_and(|known| partition < known) {
            return Ok(());
        }
        let metadata = self
            .shared
            .consumer
            .fetch_metadata(Some(&self.name), patience)
            .map_err(unavailable)?;
        let found = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        let found = i32::try_from(found).unwrap_or(i32::MAX);
        if partition >= found {
            return Err(LogError::NotFound(self.shard));
        }
        lock(&self.shared.seen).insert(self.shard.pipeline, found);
        Ok(())
    }

    /// (Re)starts the reading at `from`.
    pub(super) fn start(&mut self, from: Offset) -> Result<(), LogError> {
        if self.queue.take().is_some() {
            self.shared
                .consumer
                .incremental_unassign(&self.list(None)?)
                .map_err(unavailable)?;
        }
        let split = self
            .shared
            .consumer
            .split_partition_queue(&self.name, index(self.shard)?);
        let problem = || unavailable(Problem(format!("there is no queue for {}", self.name)));
        let mut queue = split.ok_or_else(problem)?;
        let bell = self.bell.clone();
        queue.set_nonempty_callback(move || bell.rung.notify_one());
        self.shared
            .consumer
            .incremental_assign(&self.list(Some(from))?)
            .map_err(unavailable)?;
        self.queue = Some(queue);
        Ok(())
    }

    fn list(&self, from: Option<Offset>) -> Result<TopicPartitionList, LogError> {
        let offset = match from {
            Some(from) => KafkaOffset::Offset(i64::try_from(from.0).map_err(unavailable)?),
            None => KafkaOffset::Invalid,
        };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.name, index(self.shard)?, offset)
            .map_err(unavailable)?;
        Ok(list)
    }

    pub(super) fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// How it is read.
    pub(super) fn lane(&self) -> Lane {
        self.shared.lane
    }

    pub(super) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let (queue, list) = (self.queue.take(), self.list(None));
        let (shared, shard) = (self.shared.clone(), self.shard);
        // The queue's consumer may be waiting for the brokers.
        aside(move || {
            if let (Some(queue), Ok(list)) = (queue, list)
                && let Err(error) = shared.consumer.incremental_unassign(&list)
            {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a partition was not given back to its consumer"
                );
                drop(queue);
            }
            lock(&shared.partitions).remove(&shard);
        });
    }
}
