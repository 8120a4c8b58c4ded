//! A worker process and its ledger, which outlives it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler_examples::binaries;
use tokio::process::{Child, Command};

pub(crate) const APPLICATION: &str = "chaos";
pub(crate) const PIPELINE: &str = "work";

#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    servers: Vec<String>,
    directory: PathBuf,
    number: usize,
}

impl Worker {
    pub(crate) fn start(servers: &[String], directory: &Path, number: usize) -> anyhow::Result<Self> {
        let program = binaries()?.join("chaos-worker");
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("worker-{number}.log")))?;
        let mut command = Command::new(&program);
        for server in servers {
            command.args(["--server", server]);
        }
        let child = command
            .args(["--application", APPLICATION, "--pipeline", PIPELINE])
            .args(["--name", &format!("worker-{number}")])
            .arg("--ledger")
            .arg(ledger(directory, number))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} did not start", program.display()))?;
        Ok(Self {
            child,
            servers: servers.to_vec(),
            directory: directory.to_owned(),
            number,
        })
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().context("the worker has ended by itself")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Ends it by SIGKILL and starts another in its place.
    pub(crate) async fn replace(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        *self = Self::start(&self.servers, &self.directory, self.number)?;
        Ok(())
    }

    /// Lets it end in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "worker {} ended with {status}", self.number);
        Ok(())
    }
}

/// Where a worker writes what it ran.
pub(crate) fn ledger(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("worker-{number}.ledger"))
}
