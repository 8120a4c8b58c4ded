//! What tests of the workload scheduler stand on.
//!
//! - [`memory`]: the storage ports in memory, deterministic.
//! - [`contract`]: suites that every adapter of a storage port has to pass, one test for each sentence of the port's contract.
//! - [`fault`]: the same with faults, when a test says so.
//! - [`strategy`]: proptest strategies of the core's types.
//!
//! ```
//! use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
//! use scheduler_core::port::log::{ReadLimit, TaskLog, Topic};
//! use scheduler_core::task::TaskSpec;
//! use scheduler_testkit::contract::topic;
//! use scheduler_testkit::memory::MemoryLog;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), scheduler_core::port::log::LogError> {
//! let log = MemoryLog::new();
//! log.ensure(&topic(1, 1)).await?;
//! let shard = ShardId::new(PipelineId(1), Partition(0));
//! log.append(shard, vec![TaskSpec::new("{}")]).await?;
//!
//! let mut records = Vec::new();
//! let mut reader = log.read(shard, Offset::ZERO).await?;
//! reader.next(ReadLimit { records: 10, bytes: 1024 }, &mut records).await?;
//! assert_eq!(records.len(), 1);
//! # Ok(())
//! # }
//! ```

pub mod contract;
pub mod fault;
pub mod memory;
pub mod strategy;
