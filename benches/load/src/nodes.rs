//! What a task costs on a cluster, by the parts of it: nodes, Kafka, TiDB, and those who submit and work. For the model of `docs/capacity.md`.
//!
//! ```sh
//! cargo build --release -p scheduler-server -p scheduler-load
//! cargo xtask services up --dir target/nodes       # and paste the exports that it prints
//! ./target/release/nodes --services target/nodes   # or `nodes 1 3 --tasks 1000000`
//! cargo xtask services down --dir target/nodes --wipe
//! ```
#![expect(clippy::print_stdout, reason = "a tool for a terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use scheduler_examples::{Server, ServerOptions};
use scheduler_load::cost::{Cost, Spent};
use scheduler_load::measure::{Amount, Test};
use scheduler_load::people::{Load, Place};

/// Client and servers share the machine, as with `load`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long everything is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// Tasks that are piped before anything counts.
const WARM: u64 = 50_000;

/// Measures what a task costs on clusters of one Kafka and one TiDB.
#[derive(Debug, Parser)]
#[command(name = "nodes", version)]
struct Arguments {
    /// Tasks of a figure.
    #[arg(long, default_value_t = 500_000)]
    tasks: u64,
    /// Partitions of the pipeline.
    #[arg(long, default_value_t = 12)]
    partitions: u32,
    /// The brokers.
    #[arg(long, env = "SCHEDULER_TEST_KAFKA")]
    kafka: String,
    /// TiDB, as `mysql://user@host:port`; its database `test` is used, of this alone.
    #[arg(long, env = "SCHEDULER_TEST_TIDB")]
    tidb: String,
    /// The directory in which `cargo xtask services` has them.
    #[arg(long)]
    services: PathBuf,
    /// Clusters of so many nodes, one after the other.
    #[arg(default_values_t = [1, 3])]
    nodes: Vec<u32>,
}

/// The processes of a cluster, by their part in it.
struct Parts {
    nodes: Vec<u32>,
    kafka: Vec<u32>,
    tidb: Vec<u32>,
}

/// What the parts have taken so far.
struct Taken {
    nodes: Cost,
    kafka: Cost,
    tidb: Cost,
    client: Cost,
    /// Bytes that went over loopback, everybody's.
    network: f64,
}

impl Parts {
    fn now(&self) -> anyhow::Result<Taken> {
        Ok(Taken {
            nodes: Cost::of_all(&self.nodes)?,
            kafka: Cost::of_all(&self.kafka)?,
            tidb: Cost::of_all(&self.tidb)?,
            client: Cost::of(std::process::id())?,
            network: loopback()?,
        })
    }
}

impl Taken {
    /// A row of a table.
    fn since(&self, before: &Self, tasks: u64) -> String {
        let parts: [Spent; 4] = [
            self.nodes.since(before.nodes, tasks),
            self.kafka.since(before.kafka, tasks),
            self.tidb.since(before.tidb, tasks),
            self.client.since(before.client, tasks),
        ];
        let [nodes, kafka, tidb, _] = parts;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let network = (self.network - before.network) / tasks as f64;
        format!(
            "{} | {network:.0} | {:.0} | {:.0} | {:.0} |",
            parts
                .map(|part| format!("{:.2}", part.cpu_seconds_per_million))
                .join(" | "),
            kafka.written_per_task,
            tidb.written_per_task,
            nodes.resident_mib,
        )
    }
}

/// What the loopback device has sent.
fn loopback() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let sent = line.and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    sent.context("/proc/net/dev has no loopback")
}

/// The processes that `cargo xtask services` remembers under names that begin so.
fn processes(services: &Path, name: &str) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(services).with_context(|| services.display().to_string())? {
        let path = entry?.path();
        let is_one = path.extension().is_some_and(|kind| kind == "process")
            && path
                .file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(name));
        if is_one {
            let text = fs::read_to_string(&path)?;
            let pid = text.lines().find_map(|line| line.strip_prefix("pid="));
            found.push(
                pid.with_context(|| format!("{} has no pid", path.display()))?
                    .parse()?,
            );
        }
    }
    ensure!(!found.is_empty(), "{} has no {name}", services.display());
    Ok(found)
}

async fn measure(arguments: &Arguments, count: u32) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut servers = Vec::new();
    for number in 0..count {
        let tidb = format!("{}/test", arguments.tidb.trim_end_matches('/'));
        let flags = [
            ("--kafka", arguments.kafka.as_str()),
            ("--tidb", &tidb),
            ("--cluster", "nodes"),
            ("--cluster-secret", "of a measurement alone"),
            ("--deployer", "none"),
        ];
        servers.push(
            Server::start(&ServerOptions {
                data: directory.path().join(format!("data-{number}")),
                log: directory.path().join(format!("server-{number}.log")),
                arguments: flags
                    .iter()
                    .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
                    .collect(),
            })
            .await?,
        );
    }
    let pids = servers.iter().map(|server| u32::try_from(server.pid().as_raw()));
    let parts = Parts {
        nodes: pids.collect::<Result<_, _>>()?,
        kafka: processes(&arguments.services, "kafka")?,
        tidb: processes(&arguments.services, "tidb")?,
    };
    let load = Load {
        servers: servers.iter().map(|server| server.grpc().to_owned()).collect(),
        http: String::new(),
        connections: 0,
        partitions: arguments.partitions,
        producers: 8,
        workers: 8,
        concurrency: 500,
        batch: 500,
        params: 128,
    };
    let place = Place::open(&load, "nodes").await?;
    let amount = |tasks| Amount {
        tasks,
        rate: 0,
        seconds: 0,
        warm: 0,
        limit: Duration::from_mins(5),
    };
    Test::Pipe.run(&place, amount(WARM), || (), || ()).await?;

    let before = parts.now()?;
    tokio::time::sleep(IDLE).await;
    let after = parts.now()?;
    println!(
        "| {count} | idle, a second | | {}",
        after.since(&before, IDLE.as_secs() * 1_000_000)
    );
    for (name, test) in [
        ("submit", Test::Submit),
        ("drain", Test::Drain),
        ("pipe", Test::Pipe),
    ] {
        let before = parts.now()?;
        let outcome = test.run(&place, amount(arguments.tasks), || (), || ()).await?;
        let after = parts.now()?;
        ensure!(!outcome.capped, "{name} was cut off");
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = outcome.count as f64 / outcome.secs;
        println!(
            "| {count} | {name} | {rate:.0} | {}",
            after.since(&before, outcome.count)
        );
    }
    place.close().await?;
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!(
        "| nodes | what | tasks/s | CPU-s a million: nodes | Kafka | TiDB | client | bytes a task: loopback | Kafka's disk | TiDB's disk | MiB of the nodes |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for &count in &arguments.nodes {
        measure(&arguments, count)
            .await
            .with_context(|| format!("{count} nodes"))?;
    }
    Ok(())
}
