//! The options of the `scheduler-server` binary, for those who document them.

mod cluster;
mod config;

pub use cluster::{ClusterArguments, Property, Protocol};
pub use config::{Arguments, ClientKey, DeployerKind, LogFormat};
