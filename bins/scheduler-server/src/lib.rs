//! The options of the `scheduler-server` binary, for those who document them.

mod cluster;
mod config;
mod helm;

pub use cluster::{ClusterArguments, Property, Protocol};
pub use config::{Arguments, ClientKey, DeployerKind, LogFormat};
pub use helm::HelmArguments;
