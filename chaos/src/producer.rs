//! A plain Kafka producer, which knows nothing of the scheduler but the name of a topic and the documented headers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use serde_json::json;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clients::{Known, NUMBERS};
use crate::ledger::{Accepted, now};

/// Its number among the submitters: clients have smaller ones.
const NUMBER: u64 = 1 << 16;
/// Records under way at once.
const UNDER_WAY: usize = 1_000;
/// Until a record is tried again that found no room.
const BACKOFF: Duration = Duration::from_millis(100);
/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);

type Producer = ThreadedProducer<Deliveries>;
/// Where a record lies: partition and offset.
type Delivered = Result<(i32, i64), KafkaError>;

/// Tells whoever produced a record what became of it.
#[derive(Debug)]
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Delivered>>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivered: Self::DeliveryOpaque) {
        let result = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((problem, _)) => Err(problem.clone()),
        };
        // An error says that the run has ended.
        let _ = delivered.send(result);
    }
}

/// Where records go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) pipeline: u32,
}

/// Starts it; it ends, with all its records delivered, when the token is cancelled.
pub(crate) fn start(
    target: Target,
    seed: u64,
    rate: f64,
    known: &Arc<Known>,
    stop: &CancellationToken,
    into: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let producer: Producer = ClientConfig::new()
        .set("bootstrap.servers", &target.brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        // Partitions are added while it runs.
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("reconnect.backoff.max.ms", "1000")
        .create_with_context(Deliveries)?;
    let producer = Arc::new(producer);
    let (known, stop) = (Arc::clone(known), stop.clone());
    into.spawn(async move {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let room = Arc::new(Semaphore::new(UNDER_WAY));
        let mut deliveries = JoinSet::new();
        for number in NUMBER * NUMBERS.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            while let Some(delivered) = deliveries.try_join_next() {
                delivered??;
            }
            let permit = Arc::clone(&room).acquire_owned().await?;
            let (producer, target, known) = (Arc::clone(&producer), target.clone(), Arc::clone(&known));
            let (milliseconds, priority) = (random.u64(1..30), random.u32(0..10));
            deliveries.spawn(async move {
                let accepted = deliver(&producer, &target, number, milliseconds, priority).await?;
                known.accepted.lock().await.insert(number, accepted);
                drop(permit);
                anyhow::Ok(())
            });
        }
        while let Some(delivered) = deliveries.join_next().await {
            delivered??;
        }
        Ok(())
    });
    Ok(())
}

async fn deliver(
    producer: &Producer,
    target: &Target,
    number: u64,
    milliseconds: u64,
    priority: u32,
) -> anyhow::Result<Accepted> {
    let asked = now();
    let params = json!({"number": number, "milliseconds": milliseconds, "due": asked}).to_string();
    let (key, priority) = (number.to_string(), priority.to_string());
    loop {
        let header = Header {
            key: "scheduler-priority",
            value: Some(&priority),
        };
        let (send, delivered) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&target.topic, Box::new(send))
            .key(&key)
            .payload(&params)
            .headers(OwnedHeaders::new().insert(header));
        match producer.send(record) {
            Ok(()) => {
                // What is not delivered may be in the log all the same, and is not tried again: the producer has tried for minutes.
                let (partition, offset) = delivered
                    .await?
                    .with_context(|| format!("record {number} was not delivered"))?;
                let shard = ShardId::new(PipelineId(target.pipeline), Partition(u32::try_from(partition)?));
                return Ok(Accepted {
                    id: shard.task(Offset(u64::try_from(offset)?)).to_string(),
                    asked,
                    answered: now(),
                    has_key: false,
                });
            }
            // It was never sent.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                tokio::time::sleep(BACKOFF).await;
            }
            Err((problem, _)) => return Err(problem.into()),
        }
    }
}

/// One past the last offset of each partition.
pub(crate) fn ends(brokers: &str, topic: &str, partitions: u32) -> anyhow::Result<Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "chaos-ends")
        .create()?;
    let end = |partition| {
        let (_, end) = consumer.fetch_watermarks(topic, i32::try_from(partition)?, PATIENCE)?;
        Ok(u64::try_from(end)?)
    };
    (0..partitions).map(end).collect()
}
