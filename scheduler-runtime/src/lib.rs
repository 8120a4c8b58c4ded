//! The driver of the workload scheduler: composes a task log, a store and a deployer into a running [`Node`], which a service can embed.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use scheduler_core::port::gateway::{AdminApi as _, Caller, NewPipeline, TaskApi as _};
//! use scheduler_core::task::TaskSpec;
//! use scheduler_runtime::Node;
//! # use scheduler_testkit::memory::{MemoryLog, MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In production: `Embedded::open(dir, config)?` of scheduler-embedded, or the Kafka and TiDB adapters.
//! let (log, store) = (Arc::new(MemoryLog::new()), Arc::new(MemoryStore::new()));
//! let node = Node::builder(log, store).start().await?;
//!
//! let me = Caller { client: "default".parse()? };
//! node.add_client(me.client.clone()).await?;
//! let new = NewPipeline { name: "double".parse()?, deployment: None, definition: None, partitions: None, topic: None, policy: None };
//! let path = node.create_pipeline(&me, &"math".parse()?, new).await?.pipeline.path;
//!
//! let worker = tokio::spawn({
//!     let (node, path) = (node.clone(), path.clone());
//!     async move { node.work(&path, 4, async |params| Ok([&params[..], &params[..]].concat().into())).await }
//! });
//! let ids = node.submit(&path, vec![TaskSpec::new("12")]).await?;
//! let task = node.wait(&path, ids[0], Duration::from_secs(10)).await?;
//! assert_eq!(task.output, "1212");
//!
//! node.shutdown().await;
//! worker.await??;
//! # Ok(())
//! # }
//! ```
//!
//! | file | idea |
//! | --- | --- |
//! | `node.rs` | the parts composed: [`NodeBuilder`], start and shutdown |
//! | `directory.rs` | the catalog in memory, where every request begins |
//! | `actor/` | one task for each pipeline, which drives its machines |
//! | `saver.rs` | the checkpointer: many shards in one transaction |
//! | `gateway.rs` | what transports call: one node, or its cluster |
//! | `api/` | the gateway of one node: for the shards that live on it |
//! | `cluster/` | one node of several: members, the catalog's feed, routing, and the gateway that answers for all |
//! | `background.rs` | what a node does by itself |
//! | `deployments.rs` | which node deploys a pipeline |
//! | `scale.rs` | how many workers a deployment has |
//! | `spare.rs` | which of them stay when there are going to be fewer |
//! | `worker.rs` | a worker in the same process |

mod actor;
mod api;
mod background;
mod clock;
mod cluster;
mod config;
mod deployments;
mod directory;
mod gateway;
mod node;
mod placement;
mod retry;
mod saver;
mod scale;
mod spare;
mod worker;

pub use self::api::LocalNode;
pub use self::cluster::ClusterConfig;
pub use self::config::NodeConfig;
pub use self::node::{Node, NodeBuilder, StartError, Store};
pub use self::placement::AllHere;
pub use self::worker::Failure;
