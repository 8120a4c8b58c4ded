//! The pure part of the workload scheduler.

pub mod checkpoint;
pub mod id;
pub mod name;
pub mod outcome;
pub mod policy;
pub mod port;
pub mod task;
pub mod time;
