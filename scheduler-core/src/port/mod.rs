//! The ports: what the machines need of the world, as traits that adapters implement, and the one trait
//! ([`Gateway`](gateway::Gateway)) that adapters of transports call.
//!
//! Futures are boxed, because every call carries a batch: no port is called once per task.

pub mod catalog;
pub mod cluster;
pub mod deploy;
pub mod gateway;
pub mod inspect;
pub mod log;
pub mod placement;
pub mod store;

/// The cause of an error, whatever it is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
