use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::{Config, ListenAddress};

/// Runs shell commands for pipeline steps, over gRPC (`exec.ExecService`).
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Name of this executor, for its log.
    #[arg(long, env = "COMMAND_EXECUTOR_NAME", default_value = "command-executor")]
    pub name: String,

    /// Where to listen: `:50051`, or `127.0.0.1:50051` (port 0: any that is free).
    #[arg(long, env = "COMMAND_EXECUTOR_SERVER_GRPC_PORT", default_value = ":50051")]
    pub listen: ListenAddress,

    /// Run commands by bash instead of sh. Off when empty, `0` or `false`.
    #[arg(long, env = "COMMAND_EXECUTOR_DEBUG", num_args = 0..=1, default_missing_value = "1")]
    pub debug: Option<String>,

    /// Bytes kept of one command's standard output.
    #[arg(long, env = "COMMAND_EXECUTOR_MAX_OUTPUT_BYTES", default_value_t = Config::default().max_output_bytes)]
    pub max_output_bytes: usize,

    /// Calls that may run at once.
    #[arg(long, env = "COMMAND_EXECUTOR_MAX_CALLS", default_value_t = Config::default().max_calls)]
    pub max_calls: usize,

    /// Milliseconds between SIGTERM and SIGKILL when a command is stopped.
    #[arg(long, env = "COMMAND_EXECUTOR_KILL_GRACE_MS", default_value_t = 5_000)]
    pub kill_grace_ms: u64,

    /// On SIGTERM: milliseconds until running commands are stopped.
    #[arg(long, env = "COMMAND_EXECUTOR_DRAIN_TIMEOUT_MS", default_value_t = 25_000)]
    pub drain_timeout_ms: u64,

    /// On SIGTERM: milliseconds without a call after which to end at once.
    #[arg(long, env = "COMMAND_EXECUTOR_DRAIN_IDLE_MS", default_value_t = 1_000)]
    pub drain_idle_ms: u64,

    /// Copy this program to a file and end: for the containers of other tools, which need not have it in their images.
    #[arg(long, value_name = "FILE")]
    pub install: Option<PathBuf>,

    /// Drain when standard input ends, as it does when the process that started this one dies.
    #[arg(long, env = "EXIT_WITH_STDIN", value_parser = clap::builder::FalseyValueParser::new())]
    pub exit_with_stdin: bool,
}

impl Arguments {
    /// How commands are run.
    pub fn config(&self) -> Config {
        let bash = self
            .debug
            .as_deref()
            .is_some_and(|debug| !matches!(debug, "" | "0" | "false"));
        Config {
            shell: if bash { "bash" } else { "sh" }.to_owned(),
            max_output_bytes: self.max_output_bytes,
            max_calls: self.max_calls,
            kill_grace: Duration::from_millis(self.kill_grace_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            drain_idle: Duration::from_millis(self.drain_idle_ms),
        }
    }
}
