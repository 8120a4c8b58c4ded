//! What the group says to its member.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::context;

/// A partition, by the name of its topic.
pub(super) type Place = (String, i32);

/// What the group decided.
#[derive(Debug)]
pub(super) enum Heard {
    Assigned(Vec<Place>),
    /// To be given back when their shards are released.
    Revoked(Vec<Place>),
    Lost(Vec<Place>),
}

/// Keeps what was heard until the member takes it.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    heard: Mutex<Vec<Heard>>,
    /// Counts whatever was served, so that the member knows when nothing is left.
    served: AtomicU64,
    /// Nobody releases anything any more: what is revoked is given back at once.
    pub(super) leaving: AtomicBool,
}

impl Hearing {
    pub(super) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.serve();
        context::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.serve();
        context::complain(&error, reason);
    }
}

impl ConsumerContext for Hearing {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.serve();
        let places: Vec<Place> = list
            .elements()
            .iter()
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        let heard = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            report(take(consumer, &places), "partitions were not taken");
            Heard::Assigned(places)
        } else if consumer.assignment_lost() {
            report(give(consumer, &places), "lost partitions were not given back");
            Heard::Lost(places)
        } else if self.leaving.load(Ordering::Relaxed) {
            report(give(consumer, &places), "partitions were not given back");
            return;
        } else {
            Heard::Revoked(places)
        };
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(heard);
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.serve();
    }
}

fn list(places: &[Place]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (name, partition) in places {
        // A position that needs no question: nothing is ever read from it.
        list.add_partition_offset(name, *partition, Offset::Offset(0))?;
    }
    Ok(list)
}

/// Takes partitions that were assigned, and reads nothing from them: readers of the log do that.
fn take(consumer: &BaseConsumer<Hearing>, places: &[Place]) -> KafkaResult<()> {
    let list = list(places)?;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&list)?,
        RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.assign(&list)?,
    }
    consumer.pause(&list)
}

/// Gives partitions back to the group.
pub(super) fn give(consumer: &BaseConsumer<Hearing>, places: &[Place]) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(&list(places)?),
        RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.unassign(),
    }
}

pub(super) fn report(result: KafkaResult<()>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(error = &error as &dyn std::error::Error, "{what}");
    }
}
