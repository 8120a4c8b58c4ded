//! The processes that faults happen to.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler_examples::{Server, ServerOptions, binaries};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::proxy::Link;

pub(crate) const APPLICATION: &str = "chaos";
pub(crate) const PIPELINE: &str = "work";

/// A server, which keeps its addresses over its starts, and the link over which workers reach it.
#[derive(Debug)]
pub(crate) struct Node {
    options: ServerOptions,
    server: Option<Server>,
    pub(crate) link: Link,
    _upstream: watch::Sender<Option<SocketAddr>>,
}

impl Node {
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let (upstream, seen) = watch::channel(None);
        let link = Link::start(seen).await?;
        let arguments = ["--deployer", "none", "--grace-seconds", "3", "--advertise"];
        let mut options = ServerOptions {
            data: directory.join("data"),
            log: directory.join("server.log"),
            arguments: arguments.map(str::to_owned).to_vec(),
        };
        options.arguments.push(link.url());
        let server = Server::start(&options).await?;
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        let (http, grpc) = (address(server.http()), address(server.grpc()));
        upstream.send_replace(Some(grpc.parse()?));
        options
            .arguments
            .extend(["--http".to_owned(), http, "--grpc".to_owned(), grpc]);
        Ok(Self {
            options,
            server: Some(server),
            link,
            _upstream: upstream,
        })
    }

    pub(crate) fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("the server did not come back")
    }

    /// Ends it by SIGKILL, or in order, and starts it on the same data.
    pub(crate) async fn restart(&mut self, in_order: bool) -> anyhow::Result<()> {
        let server = self.server.take().context("the server did not come back")?;
        if in_order {
            server.stop().await?;
        } else {
            server.kill().await?;
        }
        self.server = Some(Server::start(&self.options).await?);
        Ok(())
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

/// A worker process and its ledger, which outlives it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    server: String,
    directory: PathBuf,
    number: usize,
}

impl Worker {
    pub(crate) fn start(server: &str, directory: &Path, number: usize) -> anyhow::Result<Self> {
        let program = binaries()?.join("chaos-worker");
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("worker-{number}.log")))?;
        let child = Command::new(&program)
            .args(["--server", server, "--application", APPLICATION])
            .args(["--pipeline", PIPELINE, "--name", &format!("worker-{number}")])
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
            server: server.to_owned(),
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
        *self = Self::start(&self.server, &self.directory, self.number)?;
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
