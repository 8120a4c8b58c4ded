use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::{Api, binaries};

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its data directory.
    pub data: PathBuf,
    /// Where what it logs is appended to.
    pub log: PathBuf,
    /// Further arguments. Without `--http` and `--grpc` it takes free ports.
    pub arguments: Vec<String>,
}

/// A `scheduler-server` process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: Pid,
    http: String,
    grpc: String,
    metrics: Option<String>,
    log: PathBuf,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It did not start, or ended instead; the error has what it logged.
    pub async fn start(options: &ServerOptions) -> anyhow::Result<Self> {
        Self::start_with(options, &[]).await
    }

    /// The same, with these variables in its environment.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start_with(options: &ServerOptions, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let program = binaries()?.join("scheduler-server");
        let log = File::options().create(true).append(true).open(&options.log)?;
        let mut command = Command::new(&program);
        command.arg("--data").arg(&options.data).args(&options.arguments);
        for flag in ["--http", "--grpc"] {
            if !options.arguments.iter().any(|argument| argument == flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        let mut child = command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "{} did not start; build it with `cargo build --workspace --bins`",
                    program.display()
                )
            })?;
        let pid = child.id().context("the server ended at once")?;
        let stdout = child.stdout.take().context("the server has no standard output")?;
        let mut stdout = BufReader::new(stdout).lines();
        let Some(ready) = stdout.next_line().await? else {
            let status = child.wait().await?;
            bail!("the server ended with {status}:\n{}", read(&options.log));
        };
        let address = |name: &str| {
            let mut words = ready.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)).map(str::to_owned)
        };
        let (Some(http), Some(grpc)) = (address("http="), address("grpc=")) else {
            bail!("the server says {ready:?} instead of where it is");
        };
        Ok(Self {
            child,
            pid: Pid::from_raw(i32::try_from(pid)?),
            http,
            grpc,
            metrics: address("metrics="),
            log: options.log.clone(),
            _stdout: stdout,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Where it serves HTTP: `http://host:port`.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Where it serves gRPC: `http://host:port`.
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// Where it serves metrics, if it does: `http://host:port/metrics`.
    pub fn metrics(&self) -> Option<&str> {
        self.metrics.as_deref()
    }

    /// Its HTTP API.
    pub fn api(&self) -> Api {
        Api::new(&self.http)
    }

    /// What it has logged, with its predecessors on the same log.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(self.pid, signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// The system does not say.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Lets it end in order, as SIGTERM does.
    ///
    /// # Errors
    ///
    /// It ended with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // It may have ended by itself: then the status tells.
        let _ = self.signal(Signal::SIGTERM);
        let status = self.ended().await?;
        anyhow::ensure!(
            status.success(),
            "the server ended with {status}:\n{}",
            self.log()
        );
        Ok(())
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    ///
    /// The system does not let us.
    pub async fn kill(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}
