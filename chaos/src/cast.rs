//! Everybody that faults happen to, and how each fault happens and is mended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use nix::sys::signal::Signal;
use scheduler_examples::Api;
use serde_json::json;
use sqlx::{Connection as _, MySqlConnection};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::guard::Guard;
use crate::ledger::{Happened, now};
use crate::node::{CLUSTER, Node, Ways};
use crate::options::{Options, Stage};
use crate::plan::{Fault, Step};
use crate::proxy::{Link, Weather};
use crate::say;
use crate::services::{Service, Services};
use crate::worker::{APPLICATION, PIPELINE, Worker};

/// How much later things come over a delayed link.
const DELAY: Duration = Duration::from_millis(150);
/// Partitions that a growth adds.
const MORE: u32 = 2;
/// Tries of a change, and the pause between them.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(300);

const CUT: Weather = Weather {
    cut: true,
    delay: Duration::ZERO,
};
const SLOW: Weather = Weather {
    cut: false,
    delay: DELAY,
};

#[derive(Debug)]
pub(crate) struct Cast {
    pub(crate) nodes: Vec<Mutex<Node>>,
    pub(crate) ways: Vec<Ways>,
    pub(crate) workers: Vec<Mutex<Worker>>,
    pub(crate) services: Option<Services>,
    /// The run's own way to TiDB, which nothing happens to.
    tidb: Link,
    /// The HTTP API of each node.
    pub(crate) apis: Vec<Api>,
    /// Of its last creation or growth.
    pub(crate) partitions: Mutex<u32>,
    /// The number of the pipeline.
    pub(crate) pipeline: u32,
    directory: PathBuf,
    _guard: Guard,
}

impl Cast {
    /// Starts everything, and a pipeline with so many partitions that needs a sign of life from its workers so often.
    pub(crate) async fn start(
        options: &Options,
        directory: &Path,
        partitions: u32,
        heartbeat: Duration,
    ) -> anyhow::Result<Self> {
        let guard = Guard::start(directory)?;
        let brokers = options.stage.brokers();
        let mut ways = Vec::new();
        for _ in 0..options.stage.nodes() {
            ways.push(Ways::start(brokers).await?);
        }
        let tidb = Link::start().await?;
        let services = match options.stage {
            Stage::Embedded => None,
            Stage::Cluster { brokers, .. } => {
                let detours = ways.iter().map(Ways::detour).collect();
                let services = Services::start(&directory.join("services"), brokers, detours).await?;
                for (number, ways) in ways.iter().enumerate() {
                    ways.lead_to(&services, number)?;
                }
                tidb.lead_to(services.address(Service::Tidb, 0)?);
                let mut database = MySqlConnection::connect(&database(&tidb)).await?;
                sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {CLUSTER}")))
                    .execute(&mut database)
                    .await?;
                Some(services)
            }
        };
        let starts = ways
            .iter()
            .enumerate()
            .map(|(number, ways)| Node::start(directory, number, ways, services.is_some()));
        let nodes = try_join_all(starts).await?;
        let apis = nodes
            .iter()
            .map(|node| Ok(node.server()?.api()))
            .collect::<anyhow::Result<Vec<_>>>()?;

        let policy = json!({"timeouts": {"heartbeat": format!("{}s", heartbeat.as_secs())}});
        let mut new = json!({"name": PIPELINE, "partitions": partitions, "policy": policy});
        if brokers > 1 {
            // With one of them away the others have what was accepted, and take more.
            new["replication"] = json!(brokers);
            new["topic_settings"] = json!({"min.insync.replicas": (brokers - 1).to_string()});
        }
        let pipelines = format!("/api/applications/{APPLICATION}/pipelines");
        let made = apis[0]
            .post(&pipelines, &new)
            .await?
            .ok()
            .context("the pipeline")?;
        let pipeline = made["number"].as_u64().context("the pipeline has no number")?;

        let servers: Vec<String> = ways.iter().map(|ways| ways.inwards.url()).collect();
        let workers = (0..options.workers)
            .map(|number| {
                // Not all begin at the same door.
                let mut servers = servers.clone();
                servers.rotate_left(number % options.stage.nodes());
                Worker::start(&servers, directory, number).map(Mutex::new)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            nodes: nodes.into_iter().map(Mutex::new).collect(),
            ways,
            workers,
            services,
            tidb,
            apis,
            partitions: Mutex::new(partitions),
            pipeline: u32::try_from(pipeline)?,
            directory: directory.to_owned(),
            _guard: guard,
        })
    }

    pub(crate) fn path() -> String {
        format!("/api/applications/{APPLICATION}/pipelines/{PIPELINE}")
    }

    /// Where TiDB is for the run itself.
    pub(crate) fn database(&self) -> String {
        database(&self.tidb)
    }

    /// The pipeline's topic.
    pub(crate) fn topic(&self) -> String {
        format!("{CLUSTER}.default.{APPLICATION}.{PIPELINE}.{}", self.pipeline)
    }

    /// Lets the faults of a step happen together, and mends each.
    pub(crate) async fn suffer(&self, step: &Step) -> anyhow::Result<Vec<Happened>> {
        let faults = step.faults.iter().map(|(fault, lasts)| async move {
            let from = now();
            say(&fault.to_string());
            self.happen(*fault, *lasts)
                .await
                .with_context(|| fault.to_string())?;
            say(&format!("{fault}: mended after {} ms", now() - from));
            Ok(Happened {
                fault: *fault,
                from,
                to: now(),
            })
        });
        try_join_all(faults).await
    }

    async fn happen(&self, fault: Fault, lasts: Duration) -> anyhow::Result<()> {
        match fault {
            Fault::KillServer(node) => {
                let mut node = self.nodes[node].lock().await;
                node.kill().await?;
                sleep(lasts).await;
                node.begin().await
            }
            Fault::PauseServer(node) => {
                let node = self.nodes[node].lock().await;
                node.signal(Signal::SIGSTOP)?;
                sleep(lasts).await;
                node.signal(Signal::SIGCONT)
            }
            Fault::RestartServer(node) => self.restart(node).await,
            Fault::RestartAll => {
                for node in 0..self.nodes.len() {
                    self.restart(node).await?;
                }
                Ok(())
            }
            Fault::KillWorker(worker) => self.workers[worker].lock().await.replace().await,
            Fault::PauseWorker(worker) => {
                let worker = self.workers[worker].lock().await;
                worker.signal(Signal::SIGSTOP)?;
                sleep(lasts).await;
                worker.signal(Signal::SIGCONT)
            }
            Fault::CutServer(node) => {
                weather(lasts, CUT, |weather| self.ways[node].inwards.set(weather)).await
            }
            Fault::DelayServer(node) => {
                weather(lasts, SLOW, |weather| self.ways[node].inwards.set(weather)).await
            }
            Fault::CutStore(node) => weather(lasts, CUT, |weather| self.ways[node].store.set(weather)).await,
            Fault::DelayStore(node) => {
                weather(lasts, SLOW, |weather| self.ways[node].store.set(weather)).await
            }
            Fault::CutLog(node) => weather(lasts, CUT, |weather| self.ways[node].log(weather)).await,
            Fault::DelayLog(node) => weather(lasts, SLOW, |weather| self.ways[node].log(weather)).await,
            Fault::KillBroker(broker) => self.kill_service(Service::Broker(broker), lasts).await,
            Fault::PauseBroker(broker) => self.pause_service(Service::Broker(broker), lasts).await,
            Fault::KillStore => self.kill_service(Service::Tidb, lasts).await,
            Fault::PauseStore => self.pause_service(Service::Tidb, lasts).await,
            Fault::Grow => self.grow().await,
        }
    }

    /// Ends a node in order and starts it again.
    pub(crate) async fn restart(&self, node: usize) -> anyhow::Result<()> {
        let mut node = self.nodes[node].lock().await;
        node.stop().await?;
        node.begin().await
    }

    fn services(&self) -> anyhow::Result<&Services> {
        self.services.as_ref().context("there are no services")
    }

    async fn kill_service(&self, service: Service, lasts: Duration) -> anyhow::Result<()> {
        let services = self.services()?;
        services.kill(service).await?;
        sleep(lasts).await;
        services.heal(service).await?;
        // Somebody else may have taken its port meanwhile.
        self.tidb.lead_to(services.address(Service::Tidb, 0)?);
        for (number, ways) in self.ways.iter().enumerate() {
            ways.lead_to(services, number)?;
        }
        Ok(())
    }

    async fn pause_service(&self, service: Service, lasts: Duration) -> anyhow::Result<()> {
        self.services()?.signal(service, Signal::SIGSTOP)?;
        sleep(lasts).await;
        self.services()?.signal(service, Signal::SIGCONT)
    }

    /// Adds partitions, through any node that answers.
    async fn grow(&self) -> anyhow::Result<()> {
        let mut partitions = self.partitions.lock().await;
        let wanted = *partitions + MORE;
        let change = json!({"partitions": wanted});
        let mut last = String::new();
        for (_, api) in (0..TRIES).zip(self.apis.iter().cycle()) {
            match api.send(reqwest::Method::PATCH, &Self::path(), &change).await {
                Ok(answer) if answer.status.is_success() => {
                    *partitions = wanted;
                    return Ok(());
                }
                Ok(answer) => last = format!("{} {}", answer.status, answer.body),
                Err(problem) => last = format!("{problem:#}"),
            }
            sleep(PAUSE).await;
        }
        anyhow::bail!("the pipeline does not grow: {last}")
    }

    /// What nodes logged at each of their starts: the node's number and the file.
    pub(crate) async fn logs(&self) -> Vec<(usize, PathBuf)> {
        let mut logs = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let starts = node.lock().await.starts();
            logs.extend((0..starts).map(|start| (number, crate::node::log(&self.directory, number, start))));
        }
        logs
    }

    /// Ends everybody in order: workers first, since they take leave of servers.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        try_join_all(self.workers.into_iter().map(|worker| worker.into_inner().stop())).await?;
        for node in self.nodes {
            node.into_inner().stop().await?;
        }
        match self.services {
            Some(services) => services.end().await,
            None => Ok(()),
        }
    }
}

fn database(way: &Link) -> String {
    format!("mysql://root@{}", way.address())
}

async fn weather(lasts: Duration, bad: Weather, set: impl Fn(Weather)) -> anyhow::Result<()> {
    set(bad);
    sleep(lasts).await;
    set(Weather::default());
    Ok(())
}
