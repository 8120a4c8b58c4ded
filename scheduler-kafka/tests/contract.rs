//! The task log passes the suite of its contract, on a real Kafka.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::Cluster;
use scheduler_core::port::log::TaskLog;
use scheduler_kafka::KafkaLog;
use scheduler_testkit::contract::LogWorld;

struct World(Cluster);

#[async_trait]
impl LogWorld for World {
    async fn open(&mut self) -> Arc<dyn TaskLog> {
        Arc::new(KafkaLog::open(self.0.config()).await.unwrap())
    }
}

scheduler_testkit::log_contract!(World(Cluster::new()), numbers_never_return);
