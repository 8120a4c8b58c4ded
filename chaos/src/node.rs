//! A server, which keeps its addresses over its starts, and its links to everybody else.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use scheduler_examples::{Server, ServerOptions};
use tokio::time::{sleep, timeout};

use crate::proxy::{Link, Weather};
use crate::services::{Service, Services};

/// How long the last owner's workers have to come back.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Without a word from Kafka for so long a node gives up its shards.
pub(crate) const SESSION: Duration = Duration::from_secs(6);
/// The database, and the name of the cluster.
pub(crate) const CLUSTER: &str = "chaos";

/// Saves are logged, as evidence.
const LOGGED: &str = "info,fjall=warn,lsm_tree=warn,scheduler_runtime::saver=debug";
/// How long a server may take to start or end before that counts as a failure.
const PATIENCE: Duration = Duration::from_mins(5);
/// Before a server that did not start is started again, as whoever runs servers does.
const PAUSE: Duration = Duration::from_millis(500);
/// Below those that systems hand out for outgoing connections, which would take a server's while it is down.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// A server's ways to the others. Each can be cut and delayed.
#[derive(Debug)]
pub(crate) struct Ways {
    /// From workers and other servers to it.
    pub(crate) inwards: Link,
    /// From it to TiDB.
    pub(crate) store: Link,
    /// From it to each broker.
    pub(crate) log: Vec<Link>,
}

impl Ways {
    pub(crate) async fn start(brokers: u16) -> std::io::Result<Self> {
        let mut log = Vec::new();
        for _ in 0..brokers {
            log.push(Link::start().await?);
        }
        Ok(Self {
            inwards: Link::start().await?,
            store: Link::start().await?,
            log,
        })
    }

    /// At which ports brokers say to be when this server asks.
    pub(crate) fn detour(&self) -> Vec<u16> {
        self.log.iter().map(|link| link.address().port()).collect()
    }

    /// Leads the ways of the server of that number to the services.
    pub(crate) fn lead_to(&self, services: &Services, number: usize) -> anyhow::Result<()> {
        self.store.lead_to(services.address(Service::Tidb, 0)?);
        for (broker, link) in self.log.iter().enumerate() {
            link.lead_to(services.address(Service::Broker(broker), 2 + number)?);
        }
        Ok(())
    }

    pub(crate) fn log(&self, weather: Weather) {
        for link in &self.log {
            link.set(weather);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    number: usize,
    directory: PathBuf,
    arguments: Vec<String>,
    /// How often it was started.
    starts: u32,
    server: Option<Server>,
}

impl Node {
    /// Starts it, in a cluster if there are services.
    pub(crate) async fn start(
        directory: &Path,
        number: usize,
        ways: &Ways,
        is_clustered: bool,
    ) -> anyhow::Result<Self> {
        let (http, grpc) = (free_port()?, free_port()?);
        ways.inwards.lead_to(grpc);
        let mut arguments: Vec<String> = ["--deployer", "none", "--log-format", "json"]
            .map(str::to_owned)
            .to_vec();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("--http", http.to_string());
        add("--grpc", grpc.to_string());
        add("--advertise", ways.inwards.url());
        add("--grace-seconds", GRACE.as_secs().to_string());
        if is_clustered {
            let brokers: Vec<String> = ways.log.iter().map(|link| link.address().to_string()).collect();
            add("--kafka", brokers.join(","));
            add(
                "--tidb",
                format!("mysql://root@{}/{CLUSTER}", ways.store.address()),
            );
            add("--cluster", CLUSTER.to_owned());
            add("--cluster-secret", "known to all nodes of the run".to_owned());
            add("--node-name", format!("node-{number}"));
            add("--session-seconds", SESSION.as_secs().to_string());
        }
        let mut node = Self {
            number,
            directory: directory.to_owned(),
            arguments,
            starts: 0,
            server: None,
        };
        node.begin().await?;
        Ok(node)
    }

    pub(crate) fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("the server did not come back")
    }

    /// Starts it, and again while it ends because those whom it needs are away.
    pub(crate) async fn begin(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let options = ServerOptions {
                data: self.directory.join(format!("data-{}", self.number)),
                // Each start has a log of its own, so that what one said is not taken for another's.
                log: log(&self.directory, self.number, self.starts),
                arguments: self.arguments.clone(),
            };
            self.starts += 1;
            let started = timeout(PATIENCE, Server::start_with(&options, &[("RUST_LOG", LOGGED)])).await;
            match started.context("a server did not get ready")? {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(problem) if begun.elapsed() > PATIENCE => return Err(problem),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(self.server()?.signal(signal)?)
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let server = self.server.take().context("the server did not come back")?;
        Ok(server.kill().await?)
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let server = self.server.take().context("the server did not come back")?;
        timeout(PATIENCE, server.stop())
            .await
            .with_context(|| format!("server {} does not end", self.number))?
    }

    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }
}

/// What the server of that number logged at one of its starts, counted from 0.
pub(crate) fn log(directory: &Path, number: usize, start: u32) -> PathBuf {
    directory.join(format!("node-{number}.{start}.log"))
}

fn free_port() -> anyhow::Result<SocketAddr> {
    let begin = fastrand::u16(PORTS);
    let mut ports = (begin..PORTS.end).chain(PORTS.start..begin);
    ports
        .find_map(|port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            TcpListener::bind(address).is_ok().then_some(address)
        })
        .context("no port between 10000 and 20000 is free on 127.0.0.1")
}
