//! The store of a workload scheduler's cluster, on TiDB.
//!
//! [`TidbStore`] is the [`CheckpointStore`](scheduler_core::port::store::CheckpointStore), the
//! [`Archive`](scheduler_core::port::store::Archive), the [`Catalog`](scheduler_core::port::catalog::Catalog) and the
//! [`ClusterStore`](scheduler_core::port::cluster::ClusterStore) that the nodes of a cluster share. It makes its tables when it connects.
//!
//! ```no_run
//! use scheduler_core::id::{NodeId, Partition, PipelineId, ShardId};
//! use scheduler_core::port::store::CheckpointStore;
//! use scheduler_tidb::{TidbConfig, TidbStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "mysql://scheduler:secret@tidb:4000/scheduler?ssl-mode=VERIFY_CA&ssl-ca=/etc/tidb/ca.pem";
//! let store = TidbStore::connect(url, TidbConfig::default()).await?;
//! let claimed = store.claim(ShardId::new(PipelineId(1), Partition(0)), NodeId(7)).await?;
//! println!("epoch {:?}, from {:?}", claimed.epoch, claimed.resume);
//! # Ok(())
//! # }
//! ```
//!
//! # What it counts on
//!
//! - A shard's row is the fence: claims, saves and releases lock it and compare its epoch, in pessimistic transactions.
//! - A save is one transaction, up to 64 MiB of rows; a larger one is several, each of whole checkpoints.
//! - What TiDB refuses for a conflict or for being busy is tried again, a bounded number of times, with growing pauses. A lost connection is
//!   [`StoreError::Unavailable`](scheduler_core::port::store::StoreError::Unavailable) at once, and its call is safe to make again.
//! - Every write to the catalog raises one counter in its transaction, so versions are in the order of commits.

mod config;
mod database;
mod error;
mod packed;
#[cfg(test)]
mod packed_tests;
mod schema;
mod store;

pub use self::config::TidbConfig;
pub use self::error::ConnectError;
pub use self::store::TidbStore;
