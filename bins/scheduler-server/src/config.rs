//! What the server is told on its command line or in its environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use scheduler_core::name::Name;
use scheduler_runtime::NodeConfig;

use crate::cluster::ClusterArguments;
use crate::helm::HelmArguments;

/// A multi-tenant workload scheduler: takes tasks over HTTP and gRPC, hands them to workers, and keeps what came of them.
#[derive(Clone, Debug, Parser)]
#[command(name = "scheduler-server", version)]
pub struct Arguments {
    /// The data directory: task log, store, and what local workers need. Of this process alone.
    #[arg(long, env = "SCHEDULER_DATA", default_value = "scheduler-data")]
    pub data: PathBuf,

    /// Where HTTP is served; port 0 takes a free one.
    #[arg(long, env = "SCHEDULER_HTTP", default_value = "127.0.0.1:8080", value_parser = address)]
    pub http: SocketAddr,

    /// Where gRPC is served; port 0 takes a free one.
    #[arg(long, env = "SCHEDULER_GRPC", default_value = "127.0.0.1:50050", value_parser = address)]
    pub grpc: SocketAddr,

    /// Where `/metrics` is served for Prometheus, of all clients and without a key; port 0 takes a free one. Nowhere if not said.
    #[arg(long, env = "SCHEDULER_METRICS", value_name = "ADDRESS", value_parser = address)]
    pub metrics: Option<SocketAddr>,

    /// The address at which workers reach this node over gRPC, as `http://host:port`. Default: where gRPC is served.
    #[arg(long, env = "SCHEDULER_ADVERTISE")]
    pub advertise: Option<String>,

    /// Whether it is one node of several.
    #[command(flatten)]
    pub cluster: ClusterArguments,

    /// A client and a key of it, as `CLIENT=KEY`; may be given several times, with commas in the environment. It stays a key until it is revoked.
    /// Without any, requests need no key and are the client `default`'s.
    #[arg(
        long = "api-key",
        env = "SCHEDULER_API_KEYS",
        value_name = "CLIENT=KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub api_keys: Vec<ClientKey>,

    /// A key that is none any more; may be given several times, with commas in the environment. Once is enough: it is forgotten for good.
    #[arg(
        long = "revoke-api-key",
        env = "SCHEDULER_REVOKE_API_KEYS",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub revoked_api_keys: Vec<String>,

    /// Where workers come from.
    #[arg(long, env = "SCHEDULER_DEPLOYER", value_enum, default_value_t = DeployerKind::Local)]
    pub deployer: DeployerKind,

    /// Charts must lie below this directory; may be given several times. Default: with `--deployer local` anywhere, which trusts every
    /// client, and with `helm` nowhere.
    #[arg(
        long = "chart-root",
        env = "SCHEDULER_CHART_ROOTS",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub chart_roots: Vec<PathBuf>,

    /// How charts are deployed by helm.
    #[command(flatten)]
    pub helm: HelmArguments,

    /// Whether an application must be created before its first pipeline.
    #[arg(long, env = "SCHEDULER_EXPLICIT_APPLICATIONS")]
    pub explicit_applications: bool,

    /// Partitions of a pipeline's log, where the request does not say.
    #[arg(long, env = "SCHEDULER_PARTITIONS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: u32,

    /// Most bytes of a task's params.
    #[arg(long, env = "SCHEDULER_MAX_PARAMS", default_value_t = 512 << 10)]
    pub max_params: usize,

    /// Seconds that workers have to come back after the server died, before their tasks are given to others.
    #[arg(long, env = "SCHEDULER_GRACE_SECONDS", default_value_t = 5)]
    pub grace_seconds: u64,

    /// On SIGTERM: seconds that running tasks may take to end.
    #[arg(long, env = "SCHEDULER_DRAIN_SECONDS", default_value_t = 20)]
    pub drain_seconds: u64,

    /// How the log is written to standard error; what is in it is chosen by `RUST_LOG`, as `info` or `scheduler_runtime=debug`.
    #[arg(long, env = "SCHEDULER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Where workers come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum DeployerKind {
    /// Processes on this machine; charts are local directories.
    Local,
    /// Pods of a Kubernetes cluster, by the helm CLI; see docs/helm.md.
    Helm,
    /// They come by themselves.
    None,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Where to listen.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write an IP address and a port, as 127.0.0.1:8080; 0.0.0.0:8080 is every interface")
}

/// `CLIENT=KEY`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientKey {
    /// Whose it is.
    pub client: Name,
    /// The key.
    pub key: String,
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
    /// Looks for what contradicts itself.
    ///
    /// # Errors
    ///
    /// What is wrong and what would be right. No key is in it.
    pub fn check(&self) -> anyhow::Result<()> {
        for ClientKey { client, key } in &self.api_keys {
            anyhow::ensure!(
                !self.revoked_api_keys.contains(key),
                "--revoke-api-key has a key that --api-key gives {client}; take it from one of them"
            );
        }
        Ok(())
    }

    /// How the node is set up, which others reach at `advertise`.
    ///
    /// # Errors
    ///
    /// None that a user could cause.
    pub fn node(&self, advertise: &str) -> anyhow::Result<NodeConfig> {
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
    fn an_address_that_is_none_is_refused_with_one_that_is() {
        for option in ["--http", "--grpc", "--metrics"] {
            let problem = Arguments::try_parse_from(["server", option, "localhost"]).expect_err("it is none");
            let problem = problem.to_string();
            assert!(
                problem.contains(option) && problem.contains("127.0.0.1:8080"),
                "{problem}"
            );
            assert!(Arguments::try_parse_from(["server", option, "[::1]:0"]).is_ok());
        }
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

    #[test]
    fn a_key_that_is_given_and_revoked_at_once_is_refused_without_being_repeated() {
        let parse = |revoked: &str| {
            let words = [
                "server",
                "--api-key",
                "a=long-enough",
                "--revoke-api-key",
                revoked,
            ];
            Arguments::try_parse_from(words).expect("well formed")
        };
        assert!(parse("another-key").check().is_ok());
        let problem = parse("long-enough").check().expect_err("it is both").to_string();
        assert!(
            problem.contains("--revoke-api-key") && !problem.contains("long-enough"),
            "{problem}"
        );
    }
}
