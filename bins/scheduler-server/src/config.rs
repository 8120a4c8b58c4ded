//! What the server is told on its command line or in its environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use scheduler_core::name::Name;
use scheduler_runtime::NodeConfig;

/// A multi-tenant workload scheduler: takes tasks over HTTP and gRPC, hands them to workers, and keeps what came of them.
#[derive(Clone, Debug, Parser)]
#[command(name = "scheduler-server", version)]
pub(crate) struct Arguments {
    /// The data directory: task log, store, and what local workers need. Of this process alone.
    #[arg(long, env = "SCHEDULER_DATA", default_value = "scheduler-data")]
    pub(crate) data: PathBuf,

    /// Where HTTP is served; port 0 takes a free one.
    #[arg(long, env = "SCHEDULER_HTTP", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,

    /// Where gRPC is served; port 0 takes a free one.
    #[arg(long, env = "SCHEDULER_GRPC", default_value = "127.0.0.1:50050")]
    pub(crate) grpc: SocketAddr,

    /// The address at which workers reach this node over gRPC, as `http://host:port`. Default: where gRPC is served.
    #[arg(long, env = "SCHEDULER_ADVERTISE")]
    pub(crate) advertise: Option<String>,

    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,

    /// A client and a key of it, as `CLIENT=KEY`; may be given several times, with commas in the environment.
    /// Without any, requests need no key and are the client `default`'s.
    #[arg(
        long = "api-key",
        env = "SCHEDULER_API_KEYS",
        value_name = "CLIENT=KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) api_keys: Vec<ClientKey>,

    /// Where workers come from.
    #[arg(long, env = "SCHEDULER_DEPLOYER", value_enum, default_value_t = DeployerKind::Local)]
    pub(crate) deployer: DeployerKind,

    /// Charts must lie below this directory; may be given several times. Default: anywhere, which trusts every client.
    #[arg(
        long = "chart-root",
        env = "SCHEDULER_CHART_ROOTS",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub(crate) chart_roots: Vec<PathBuf>,

    /// Whether an application must be created before its first pipeline.
    #[arg(long, env = "SCHEDULER_EXPLICIT_APPLICATIONS")]
    pub(crate) explicit_applications: bool,

    /// Partitions of a pipeline's log, where the request does not say.
    #[arg(long, env = "SCHEDULER_PARTITIONS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) partitions: u32,

    /// Most bytes of a task's params.
    #[arg(long, env = "SCHEDULER_MAX_PARAMS", default_value_t = 512 << 10)]
    pub(crate) max_params: usize,

    /// Seconds that workers have to come back after the server died, before their tasks are given to others.
    #[arg(long, env = "SCHEDULER_GRACE_SECONDS", default_value_t = 5)]
    pub(crate) grace_seconds: u64,

    /// On SIGTERM: seconds that running tasks may take to end.
    #[arg(long, env = "SCHEDULER_DRAIN_SECONDS", default_value_t = 20)]
    pub(crate) drain_seconds: u64,

    /// How the log is written to standard error; what is in it is chosen by `RUST_LOG`, as `info` or `scheduler_runtime=debug`.
    #[arg(long, env = "SCHEDULER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// One node of several, on Kafka and TiDB. Without `--kafka` everything is in files below `--data`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArguments {
    /// The brokers of the Kafka that keeps the task log, as `host:port`, several with commas between them.
    #[arg(long, env = "SCHEDULER_KAFKA", value_name = "BROKERS", requires = "tidb")]
    pub(crate) kafka: Option<String>,

    /// The TiDB that keeps everything else, as `mysql://user:password@host:port/database`; see docs/tidb.md for TLS.
    #[arg(
        long,
        env = "SCHEDULER_TIDB",
        value_name = "URL",
        requires = "kafka",
        hide_env_values = true
    )]
    pub(crate) tidb: Option<String>,

    /// The name of the cluster: begins the names of topics, and is the consumer group. The same for every node.
    #[arg(long, env = "SCHEDULER_CLUSTER", default_value = "scheduler")]
    pub(crate) cluster: String,

    /// What nodes show each other; at least 16 characters, the same for every node.
    #[arg(
        long,
        env = "SCHEDULER_CLUSTER_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(crate) cluster_secret: Option<String>,

    /// The node's name, for people. Default: the address that it advertises.
    #[arg(long, env = "SCHEDULER_NODE_NAME")]
    pub(crate) node_name: Option<String>,

    /// Replicas of each partition of a new topic; -1 leaves it to the brokers.
    #[arg(
        long,
        env = "SCHEDULER_KAFKA_REPLICATION",
        default_value_t = -1,
        allow_negative_numbers = true
    )]
    pub(crate) kafka_replication: i16,

    /// A property of librdkafka, as `NAME=VALUE`, such as `security.protocol=SASL_SSL`; may be given several times.
    #[arg(
        long = "kafka-property",
        env = "SCHEDULER_KAFKA_PROPERTIES",
        value_name = "NAME=VALUE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) kafka_properties: Vec<Property>,

    /// Seconds without Kafka's group coordinator after which a node gives up its shards.
    #[arg(long, env = "SCHEDULER_SESSION_SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(crate) session_seconds: u64,

    /// Most connections to TiDB.
    #[arg(long, env = "SCHEDULER_TIDB_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) tidb_connections: u32,
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The text is not repeated in the error: it may be a password.
        let (name, value) = text.split_once('=').ok_or("there is no `=`; write NAME=VALUE")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Where workers come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum DeployerKind {
    /// Processes on this machine; charts are local directories.
    Local,
    /// They come by themselves.
    None,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `CLIENT=KEY`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClientKey {
    pub(crate) client: Name,
    pub(crate) key: String,
}

impl FromStr for ClientKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The text is not repeated in the error: it may be a secret.
        let (client, key) = text.split_once('=').ok_or("there is no `=`; write CLIENT=KEY")?;
        let client = client
            .parse()
            .map_err(|problem| format!("the client's name {problem}"))?;
        if key.len() < 8 {
            return Err("the key has fewer than 8 characters; take a longer one".into());
        }
        Ok(Self {
            client,
            key: key.to_owned(),
        })
    }
}

impl Arguments {
    /// How the node is set up.
    pub(crate) fn node(&self, advertise: &str) -> anyhow::Result<NodeConfig> {
        Ok(NodeConfig {
            anonymous: if self.api_keys.is_empty() {
                Some("default".parse()?)
            } else {
                None
            },
            create_applications: !self.explicit_applications,
            partitions: self.partitions,
            max_params: self.max_params,
            grace: Duration::from_secs(self.grace_seconds),
            patience: Duration::from_secs(self.drain_seconds),
            address: advertise.to_owned(),
            ..NodeConfig::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_bad_key_is_refused_without_being_repeated() {
        for bad in ["secret-key", "Upper=secret-key", "a=short"] {
            let problem = bad.parse::<ClientKey>().expect_err("it is bad");
            assert!(
                !problem.contains("secret-key") && !problem.contains("short;"),
                "{problem}"
            );
        }
        assert!("a=long-enough".parse::<ClientKey>().is_ok());
    }
}
