//! The pure part of the workload scheduler: everything that decides, and the traits of everything that it needs.
//!
//! Nothing here has a clock, does IO or draws random numbers. A machine is told the time and one input, and appends what must be done to a
//! buffer of its caller; the same inputs give the same decisions. The runtime drives the machines against the world, the simulator against
//! a simulated one.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use scheduler_core::id::{Epoch, Offset, Partition, PipelineId, ShardId, Tenure, WorkerId};
//! use scheduler_core::outcome::AttemptOutcome;
//! use scheduler_core::shard::{Input, Output, Shard, ShardConfig};
//! use scheduler_core::task::{Record, RecordBody, TaskSpec};
//! use scheduler_core::time::Timestamp;
//!
//! let mut now = Timestamp::from_millis(1_000);
//! let mut shard = Shard::new(now, ShardConfig {
//!     tenure: Tenure { shard: ShardId::new(PipelineId(1), Partition(0)), epoch: Epoch(1) },
//!     policy: Arc::default(),
//!     resume: Offset::ZERO,
//!     state: Default::default(),
//!     log_start: Offset::ZERO,
//!     log_end: Offset::ZERO,
//!     unclean: false,
//!     grace: Duration::from_secs(5),
//! })?;
//! let mut out = Vec::new();
//!
//! // A record of the log arrives, and a worker has room for it.
//! let body = RecordBody::Task(TaskSpec::new("{}"));
//! shard.handle(now, Input::Arrive(Record { offset: Offset(0), appended_at: now, body }), &mut out);
//! shard.handle(now, Input::Ask { worker: WorkerId(7), limit: 1 }, &mut out);
//! let token = out.iter().find_map(|output| match output {
//!     Output::Lease { lease, .. } => Some(lease.token),
//!     _ => None,
//! }).expect("the task is leased");
//!
//! // The worker succeeds; some seconds later a checkpoint says so.
//! let outcome = AttemptOutcome::Succeeded { output: "42".into() };
//! shard.handle(now, Input::Report { worker: WorkerId(7), offset: Offset(0), token, outcome }, &mut out);
//! now = now + Duration::from_secs(5);
//! shard.handle(now, Input::Tick, &mut out);
//! let saved = out.iter().any(|output| matches!(output, Output::Save(checkpoint) if checkpoint.finished.len() == 1));
//! assert!(saved);
//! # Ok::<(), scheduler_core::codec::DecodeError>(())
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`shard`] | the scheduler of one partition: dictionary, leases, retry, checkpoints |
//! | [`pipeline`] | a pipeline on one node: its shards and the sessions of its workers |
//! | [`activation`] | how a shard comes up and lets go |
//! | [`host`] | a pipeline where it lives: which shards are here, what they are fed, and who waits for what |
//! | [`saver`], [`retry`] | which checkpoints are saved together, and when what has failed is tried again |
//! | [`scaling`] | how many workers are wanted |
//! | [`tape`] | recordings of what a shard was told, and their replay |
//! | [`encoding`], [`codec`] | how policies and tasks become bytes |
//! | [`port`] | what the machines need of the world, and what transports call |
//! | [`id`], [`name`], [`task`], [`outcome`], [`policy`], [`checkpoint`], [`key`] | the words |

pub mod activation;
pub mod checkpoint;
pub mod codec;
pub mod encoding;
pub mod host;
pub mod id;
pub mod key;
pub mod name;
pub mod outcome;
pub mod pipeline;
pub mod policy;
pub mod port;
pub mod retry;
pub mod saver;
pub mod scaling;
pub mod session;
pub mod shard;
mod snapshot;
pub mod tape;
pub mod task;
pub mod time;
