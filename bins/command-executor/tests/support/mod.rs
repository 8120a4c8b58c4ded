//! A real `command-executor` process, and what can be seen of the processes it starts.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use scheduler_proto::exec::ExecCommands;
use scheduler_proto::exec::exec_service_client::ExecServiceClient;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tonic::transport::Channel;

pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: String,
    _log: Lines<BufReader<ChildStderr>>,
}

impl Process {
    /// Starts the binary on a free port, with these variables set besides.
    pub(crate) async fn start(environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_command-executor"))
            .env("COMMAND_EXECUTOR_SERVER_GRPC_PORT", "127.0.0.1:0")
            .env("COMMAND_EXECUTOR_KILL_GRACE_MS", "200")
            .env("COMMAND_EXECUTOR_DRAIN_IDLE_MS", "20")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log
                .next_line()
                .await
                .unwrap()
                .expect("the executor says where it listens");
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split(' ').next().unwrap().to_owned();
            }
        };
        Self {
            child,
            address,
            _log: log,
        }
    }

    pub(crate) async fn client(&self) -> ExecServiceClient<Channel> {
        ExecServiceClient::connect(format!("http://{}", self.address))
            .await
            .unwrap()
    }

    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::SIGTERM).unwrap();
    }
}

pub(crate) fn commands(commands: &[&str]) -> ExecCommands {
    ExecCommands {
        commands: commands.iter().map(ToString::to_string).collect(),
        ..ExecCommands::default()
    }
}

/// Whether the process runs; one that has ended and is not yet reaped does not.
pub(crate) fn runs(id: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", id.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Waits until it holds; fails after a time far longer than it takes.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}
