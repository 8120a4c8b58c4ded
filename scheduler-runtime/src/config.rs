//! How a node is set up.

use std::time::Duration;

use scheduler_core::name::Name;
use scheduler_core::policy::PipelinePolicy;

/// How a node is set up. Every field has a default that suits one machine.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Whose requests without an API key are. Default: nobody's, a key is needed.
    pub anonymous: Option<Name>,
    /// Whether an application is created by the first pipeline in it. Default true.
    pub create_applications: bool,
    /// How many partitions a pipeline's log has if it is not said. Default 1.
    pub partitions: u32,
    /// Most partitions that may be asked for. Default 1,024.
    pub max_partitions: u32,
    /// What the shards of a pipeline go by if it is not said.
    pub policy: PipelinePolicy,
    /// Most bytes of a task's params. Default 1 MiB.
    pub max_params: usize,
    /// Most tasks in one submission. Default 10,000.
    pub max_batch: usize,
    /// Most workers that a deployment may ask for. Default 1,000.
    pub max_replicas: u32,
    /// How long the workers of a node that vanished have to come back before its tasks are given to others. Default 5 s.
    pub grace: Duration,
    /// How long a shutdown waits for running tasks. Default 20 s.
    pub patience: Duration,
    /// Where workers reach this node over gRPC, `host:port`. Empty: where they found it.
    pub address: String,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            anonymous: None,
            create_applications: true,
            partitions: 1,
            max_partitions: 1_024,
            policy: PipelinePolicy::default(),
            max_params: 1 << 20,
            max_batch: 10_000,
            max_replicas: 1_000,
            grace: Duration::from_secs(5),
            patience: Duration::from_secs(20),
            address: String::new(),
        }
    }
}
