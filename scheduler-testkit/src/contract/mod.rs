//! Suites that every adapter of a storage port has to pass.
//!
//! An adapter says how to open it, over data that outlives it, and a macro makes one test of each sentence:
//!
//! ```
//! use std::sync::Arc;
//! use scheduler_core::port::log::TaskLog;
//! use scheduler_testkit::contract::LogWorld;
//! use scheduler_testkit::memory::MemoryLog;
//!
//! #[derive(Default)]
//! struct Memory(MemoryLog);
//!
//! #[async_trait::async_trait]
//! impl LogWorld for Memory {
//!     async fn open(&mut self) -> Arc<dyn TaskLog> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! scheduler_testkit::log_contract!(Memory::default());
//! # fn main() {}
//! ```

#![expect(
    clippy::missing_panics_doc,
    reason = "a test panics when what it tests is wrong"
)]

pub mod archive;
pub mod catalog;
pub mod checkpoint;
pub mod cluster;
pub mod log;
pub mod parked;

use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, NodeId, Offset, Partition, PipelineId, ShardId, Tenure};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::Catalog;
use scheduler_core::port::cluster::ClusterStore;
use scheduler_core::port::log::{TaskLog, Topic, TopicSettings};
use scheduler_core::port::store::{Archive, CheckpointStore, Saved};
use scheduler_core::time::Timestamp;

/// A log's data, and how to open an adapter over it.
#[async_trait]
pub trait LogWorld: Send {
    /// Opens the log; again, after the last one was dropped.
    async fn open(&mut self) -> Arc<dyn TaskLog>;
}

/// The parts of a store.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Its checkpoints.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Its archive.
    pub archive: Arc<dyn Archive>,
    /// Its catalog.
    pub catalog: Arc<dyn Catalog>,
}

/// A store's data, and how to open an adapter over it.
#[async_trait]
pub trait StoreWorld: Send {
    /// Opens the store; again, after the last one was dropped.
    async fn open(&mut self) -> Stores;
}

/// What the nodes of a cluster share.
#[derive(Clone, Debug)]
pub struct ClusterStores {
    /// What they know of each other.
    pub cluster: Arc<dyn ClusterStore>,
    /// The checkpoints of all.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The catalog of all.
    pub catalog: Arc<dyn Catalog>,
}

/// A shared store's data, and how to open an adapter over it.
#[async_trait]
pub trait ClusterWorld: Send {
    /// Opens the store for one more node, beside those that have it open.
    async fn open(&mut self) -> ClusterStores;
}

/// Makes a test of each function of a suite.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($suite:ident, $world:expr, $($test:ident),+ $(,)?) => {
        $(
            #[::tokio::test]
            async fn $test() {
                $crate::contract::$suite::$test(&mut $world).await;
            }
        )+
    };
}

/// A topic of pipeline number `pipeline`.
pub fn topic(pipeline: u32, partitions: u32) -> Topic {
    let path = PipelinePath {
        client: name("default"),
        application: name("test"),
        pipeline: name(&format!("p{pipeline}")),
    };
    Topic {
        pipeline: PipelineId(pipeline),
        path,
        partitions,
        settings: TopicSettings::default(),
    }
}

/// The shard of partition `partition` of pipeline number `pipeline`.
pub fn shard(pipeline: u32, partition: u32) -> ShardId {
    ShardId::new(PipelineId(pipeline), Partition(partition))
}

fn name(text: &str) -> Name {
    text.parse().expect("a suite's names are names")
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A checkpoint without changes.
fn checkpoint(tenure: Tenure, id: u64) -> Checkpoint {
    Checkpoint::empty(tenure, CheckpointId(id), at(0), Offset::ZERO)
}

async fn claim(stores: &Stores, shard: ShardId) -> Tenure {
    let claimed = stores
        .checkpoints
        .claim(shard, NodeId(1))
        .await
        .expect("a claim succeeds");
    Tenure {
        shard,
        epoch: claimed.epoch,
    }
}

/// Saves one checkpoint, which is not fenced.
async fn save(stores: &Stores, checkpoint: &Checkpoint) {
    let saved = stores
        .checkpoints
        .save(&[checkpoint])
        .await
        .expect("a save succeeds");
    assert_eq!(saved, [Saved::Done]);
}
