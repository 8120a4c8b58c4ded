//! The Kafka adapters: the task log on topics, and placement by a consumer group.
//!
//! ```no_run
//! use scheduler_core::port::log::{TaskLog, Topic};
//! use scheduler_core::port::placement::Placement;
//! use scheduler_kafka::{KafkaConfig, KafkaLog, KafkaPlacement};
//!
//! # async fn run(topic: Topic) -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = KafkaConfig::new("kafka-1:9092,kafka-2:9092", "prod");
//! config.replication = 3;
//! config.properties.push(("security.protocol".into(), "SSL".into()));
//!
//! let log = KafkaLog::open(config.clone()).await?;
//! let placement = KafkaPlacement::open(config)?;
//! log.ensure(&topic).await?;
//! placement.set_topics(vec![topic]).await?;
//! let event = placement.next().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Topics
//!
//! A pipeline's topic is `<cluster>.<client>.<application>.<pipeline>.<number>`. It keeps its records until they are truncated
//! (`retention.ms=-1`, `retention.bytes=-1`, `cleanup.policy=delete`), says when the log took a record
//! (`message.timestamp.type=LogAppendTime`), and has segments of 64 MiB, since a truncation frees whole ones.
//! Any producer may write to it: the value of a record is the params of a task, and [`headers`] names the rest. A record whose headers
//! cannot be read, or that has no value (a tombstone), becomes a dead letter. Records of transactions that were aborted are not tasks.
//!
//! # Writing and reading
//!
//! Producers are idempotent and wait for all replicas in sync. What waits to be acknowledged is bounded by
//! [`KafkaConfig::queue_bytes`]: over it an append waits, then is refused as overload; what no broker acknowledges within
//! [`KafkaConfig::delivery_timeout`] fails as unavailable. Readers share consumers, each partition with a queue of its own of about
//! [`KafkaConfig::prefetch_bytes`]; nothing is polled on a timer.
//!
//! A deleted topic leaves nothing behind: offsets begin at 0 if its number is used again, which the catalog never does.
//!
//! # Placement
//!
//! The consumer group has the cluster's name, and its members read nothing. Shards that are revoked stay with this node until they are
//! released; a node that cannot reach the group for [`KafkaConfig::session_timeout`] gives up its shards by itself.

mod config;
mod context;
mod error;
mod log;
mod placement;

pub use config::{GroupProtocol, KafkaConfig};
pub use error::OpenError;
pub use log::KafkaLog;
pub use log::headers;
pub use placement::KafkaPlacement;
