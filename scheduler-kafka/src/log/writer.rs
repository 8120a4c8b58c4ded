//! Appends: idempotent producers, a bound on what waits for them, and one completion for each append.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};
use scheduler_core::id::{Offset, ShardId};
use scheduler_core::port::log::LogError;
use scheduler_core::task::TaskSpec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::record::encode;
use super::topics::{Topics, index};
use crate::config::KafkaConfig;
use crate::context;
use crate::error::{Problem, aside, blocking, is_missing, unavailable};

/// What a task weighs beside its bytes while it waits; also the unit in which room is counted.
const UNIT: usize = 256;

/// An append that waits to be acknowledged. It is shared by its records, and ends with the last of them.
struct Append {
    state: Mutex<Answers>,
    /// Given back when the last record is answered.
    _room: OwnedSemaphorePermit,
}

struct Answers {
    missing: usize,
    offsets: Vec<Offset>,
    failed: Option<KafkaError>,
    done: Option<oneshot::Sender<Result<Vec<Offset>, KafkaError>>>,
}

impl Append {
    fn answer(&self, answers: usize, result: Result<Offset, KafkaError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(offset) => state.offsets.push(offset),
            Err(error) => state.failed = Some(error),
        }
        state.missing -= answers;
        if state.missing > 0 {
            return;
        }
        let result = match state.failed.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.offsets)),
        };
        if let Some(done) = state.done.take() {
            // Nobody waits any more: what was written is written.
            let _ = done.send(result);
        }
    }
}

/// Takes the answers of one producer.
#[derive(Default)]
struct Deliveries {
    /// What librdkafka last said about a broker that could not be used: of an answer that does not come, it says the reason there alone.
    complaint: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::complain(&error, reason);
        // It follows from what was said of each.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
            *complaint = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Append>;

    fn delivery(&self, result: &DeliveryResult<'_>, append: Arc<Append>) {
        let answer = match result {
            // A record that was already there is answered without its offset when the broker has forgotten it.
            Ok(message) => u64::try_from(message.offset())
                .map(Offset)
                .map_err(|_| KafkaError::MessageProduction(Code::Unknown)),
            Err((error, _)) => Err(error.clone()),
        };
        append.answer(1, answer);
    }
}

type Kafka = ThreadedProducer<Deliveries>;

/// Writes to all topics.
pub(crate) struct Writer {
    config: KafkaConfig,
    producers: Vec<RwLock<Arc<Kafka>>>,
    room: Arc<Semaphore>,
    units: usize,
}

impl Writer {
    pub(crate) fn new(config: KafkaConfig) -> Result<Self, KafkaError> {
        let mut producers = Vec::with_capacity(config.producers);
        for _ in 0..config.producers {
            producers.push(RwLock::new(Arc::new(producer(&config)?)));
        }
        let units = config.queue_bytes / UNIT;
        Ok(Self {
            producers,
            room: Arc::new(Semaphore::new(units)),
            units,
            config,
        })
    }

    /// Why brokers could not be used, as a producer was last told.
    pub(crate) fn last_complaint(&self) -> Option<String> {
        self.producers.iter().find_map(|slot| {
            let kafka = slot.read().unwrap_or_else(PoisonError::into_inner).clone();
            let complaint = &kafka.context().complaint;
            complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
        })
    }

    /// Appends `tasks` to the partition of topic `name` and answers their offsets once all replicas in sync have them.
    pub(crate) async fn append(
        &self,
        topics: &Topics,
        shard: ShardId,
        name: &str,
        tasks: &[TaskSpec],
    ) -> Result<Vec<Offset>, LogError> {
        let limit = self.config.max_task_bytes;
        if let Some(bytes) = tasks.iter().map(TaskSpec::weight).find(|bytes| *bytes > limit) {
            return Err(LogError::TooLarge { bytes, limit });
        }
        let mut offsets = Vec::with_capacity(tasks.len());
        let mut rest = tasks;
        while !rest.is_empty() {
            // An append larger than a part of the room goes part by part, so that others get in between.
            let (part, weight) = self.part(rest);
            let room = self.enter(weight).await?;
            offsets.extend(self.send(topics, shard, name, part, room).await?);
            rest = &rest[part.len()..];
        }
        Ok(offsets)
    }

    /// As many tasks as a quarter of the room has place for, one at least, and their weight in units.
    fn part<'a>(&self, tasks: &'a [TaskSpec]) -> (&'a [TaskSpec], usize) {
        let mut weight = 0;
        let mut count = 0;
        for task in tasks {
            let next = 1 + task.weight().div_ceil(UNIT);
            if count > 0 && weight + next > self.units / 4 {
                break;
            }
            weight += next;
            count += 1;
        }
        (&tasks[..count], weight.min(self.units))
    }

    async fn enter(&self, weight: usize) -> Result<OwnedSemaphorePermit, LogError> {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let entering = self.room.clone().acquire_many_owned(weight);
        match tokio::time::timeout(self.config.append_patience, entering).await {
            Ok(room) => room.map_err(unavailable),
            Err(_) => Err(LogError::Overloaded),
        }
    }

    async fn send(
        &self,
        topics: &Topics,
        shard: ShardId,
        name: &str,
        tasks: &[TaskSpec],
        room: OwnedSemaphorePermit,
    ) -> Result<Vec<Offset>, LogError> {
        let partition = index(shard)?;
        let slot = &self.producers[shard.pipeline.0 as usize % self.producers.len()];
        let kafka = slot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (done, answer) = oneshot::channel();
        let append = Arc::new(Append {
            state: Mutex::new(Answers {
                missing: tasks.len(),
                offsets: Vec::with_capacity(tasks.len()),
                failed: None,
                done: Some(done),
            }),
            _room: room,
        });
        let mut from = 0;
        let mut asked = false;
        while let Err((at, error)) = enqueue(&kafka, name, partition, &tasks[from..], &append) {
            from += at;
            let missing = error.rdkafka_error_code().is_some_and(is_missing);
            if missing && !asked && topics.exists(shard, name).await? {
                // It was made or has grown since the producer last looked.
                asked = true;
                self.look(kafka.clone(), name).await?;
            } else {
                append.answer(tasks.len() - from, Err(error));
                break;
            }
        }
        drop(append);
        match answer.await {
            Ok(Ok(mut offsets)) => {
                // A partition keeps the order of its records; their answers come in that order but for retries.
                offsets.sort_unstable();
                Ok(offsets)
            }
            Ok(Err(error)) => {
                let code = error.rdkafka_error_code();
                if code == Some(Code::Fatal) {
                    self.renew(slot, &kafka);
                }
                if code.is_some_and(is_missing) && !topics.exists(shard, name).await? {
                    return Err(LogError::NotFound(shard));
                }
                Err(unavailable(error))
            }
            Err(_) => Err(unavailable(Problem("the producer was closed".to_owned()))),
        }
    }

    /// Lets a producer learn about a topic.
    async fn look(&self, kafka: Arc<Kafka>, name: &str) -> Result<(), LogError> {
        let (name, patience) = (name.to_owned(), self.config.request_timeout);
        let look = move || kafka.client().fetch_metadata(Some(&name), patience).map(drop);
        blocking(look).await?.map_err(unavailable)
    }

    /// Puts a new producer into the place of one that can go on no more.
    fn renew(&self, slot: &RwLock<Arc<Kafka>>, dead: &Arc<Kafka>) {
        let mut current = slot.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, dead) {
            return;
        }
        match producer(&self.config) {
            Ok(new) => {
                let old = std::mem::replace(&mut *current, Arc::new(new));
                aside(move || drop(old));
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "a producer that can go on no more could not be replaced; the next append tries again"
            ),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let producers = std::mem::take(&mut self.producers);
        aside(move || drop(producers));
    }
}

fn producer(config: &KafkaConfig) -> Result<Kafka, KafkaError> {
    ThreadedProducer::from_config_and_context(&config.producer(), Deliveries::default())
}

/// Gives tasks to the producer; an error says how many it took before.
fn enqueue(
    kafka: &Kafka,
    name: &str,
    partition: i32,
    tasks: &[TaskSpec],
    append: &Arc<Append>,
) -> Result<(), (usize, KafkaError)> {
    for (at, task) in tasks.iter().enumerate() {
        let record = BaseRecord {
            topic: name,
            partition: Some(partition),
            payload: Some(&*task.params),
            key: None::<&[u8]>,
            timestamp: None,
            headers: encode(task),
            delivery_opaque: append.clone(),
        };
        kafka.send(record).map_err(|(error, _)| (at, error))?;
    }
    Ok(())
}
