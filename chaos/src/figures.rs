//! What moves of shards cost: figures, with the same evidence as a run of faults.

mod failover;
mod percentiles;
mod rolling;

pub use failover::{Failover, failover};
pub use percentiles::Percentiles;
pub use rolling::{Rolling, rolling};
