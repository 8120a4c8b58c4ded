//! The pure part of the workload scheduler.

pub mod activation;
pub mod checkpoint;
pub mod codec;
pub mod id;
pub mod key;
pub mod name;
pub mod outcome;
pub mod pipeline;
pub mod policy;
pub mod port;
pub mod scaling;
pub mod session;
pub mod shard;
mod snapshot;
pub mod task;
pub mod time;
