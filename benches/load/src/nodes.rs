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
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use scheduler_examples::{Server, ServerOptions};
use scheduler_load::cost::Cost;
use scheduler_load::measure::{Amount, Test};
use scheduler_load::people::{Load, Place};

/// Client and servers share the machine, as with `load`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long everything is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(15);
/// Tasks that are piped before anything counts.
const WARM: u64 = 50_000;
/// Nodes, Kafka, TiDB, and those who submit and work.
const PARTS: usize = 4;

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
    processes: [Vec<u32>; PARTS],
    services: PathBuf,
}

/// What has been taken so far.
struct Taken {
    /// CPU-seconds of the parts.
    cpu: [f64; PARTS],
    /// Bytes that went over loopback, everybody's.
    network: f64,
    /// Bytes of the segments of Kafka's log.
    log: f64,
    at: Instant,
}

impl Parts {
    fn now(&self) -> anyhow::Result<Taken> {
        let mut cpu = [0.0; PARTS];
        for (cpu, processes) in cpu.iter_mut().zip(&self.processes) {
            *cpu = Cost::of_all(processes)?.cpu_seconds;
        }
        Ok(Taken {
            cpu,
            network: loopback()?,
            log: segments(&self.services)?,
            at: Instant::now(),
        })
    }
}

impl Taken {
    fn since(&self, before: &Self) -> [f64; PARTS] {
        std::array::from_fn(|part| self.cpu[part] - before.cpu[part])
    }
}

/// What a cluster takes: for a second in which nothing happens, and for a task besides.
#[derive(Clone, Copy)]
struct Model {
    idle: [f64; PARTS],
    task: [f64; PARTS],
}

impl Model {
    fn of(idle: [f64; PARTS], taken: [f64; PARTS], seconds: f64, tasks: f64) -> Self {
        Self {
            idle,
            task: std::array::from_fn(|part| (taken[part] - idle[part] * seconds) / tasks),
        }
    }

    fn predict(self, seconds: f64, tasks: f64) -> [f64; PARTS] {
        std::array::from_fn(|part| self.idle[part] * seconds + self.task[part] * tasks)
    }
}

fn cells(seconds: [f64; PARTS], factor: f64) -> String {
    seconds
        .map(|seconds| format!("{:.2}", seconds * factor))
        .join(" | ")
}

/// What the loopback device has sent.
fn loopback() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let sent = line.and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    sent.context("/proc/net/dev has no loopback")
}

/// The lengths of Kafka's segments, which are named by twenty digits.
fn segments(directory: &Path) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let is_segment = path.extension().is_some_and(|kind| kind == "log")
            && path.file_stem().is_some_and(|stem| stem.len() == 20);
        if path.is_dir() {
            sum += segments(&path)?;
        } else if is_segment {
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let length = path.metadata().map_or(0, |file| file.len()) as f64;
            sum += length;
        }
    }
    Ok(sum)
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

async fn start(arguments: &Arguments, count: u32, directory: &Path) -> anyhow::Result<Vec<Server>> {
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
        let options = ServerOptions {
            data: directory.join(format!("data-{number}")),
            log: directory.join(format!("server-{number}.log")),
            arguments: flags
                .iter()
                .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
                .collect(),
        };
        servers.push(Server::start(&options).await?);
    }
    Ok(servers)
}

/// `before` is what was found of the first cluster.
async fn measure(arguments: &Arguments, count: u32, before: Option<Model>) -> anyhow::Result<Model> {
    let directory = tempfile::tempdir()?;
    let servers = start(arguments, count, directory.path()).await?;
    let pids = servers.iter().map(|server| u32::try_from(server.pid().as_raw()));
    let parts = Parts {
        processes: [
            pids.collect::<Result<_, _>>()?,
            processes(&arguments.services, "kafka")?,
            processes(&arguments.services, "tidb")?,
            vec![std::process::id()],
        ],
        services: arguments.services.clone(),
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

    let begun = parts.now()?;
    tokio::time::sleep(IDLE).await;
    let idle = parts
        .now()?
        .since(&begun)
        .map(|seconds| seconds / IDLE.as_secs_f64());
    println!(
        "| {count} | idle, thousandths of a core | | {} | | |",
        cells(idle, 1e3)
    );
    let mut model = None;
    for (name, test) in [
        ("submit", Test::Submit),
        ("drain", Test::Drain),
        ("pipe", Test::Pipe),
    ] {
        let begun = parts.now()?;
        let outcome = test.run(&place, amount(arguments.tasks), || (), || ()).await?;
        let ended = parts.now()?;
        ensure!(!outcome.capped, "{name} was cut off");
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let tasks = outcome.count as f64;
        let (taken, seconds) = (ended.since(&begun), (ended.at - begun.at).as_secs_f64());
        // Later on Kafka deletes what nobody needs any more.
        let log = (test == Test::Submit).then(|| format!("{:.0}", (ended.log - begun.log) / tasks));
        println!(
            "| {count} | {name} | {:.0} | {} | {:.0} | {} |",
            tasks / outcome.secs,
            cells(taken, 1e6 / tasks),
            (ended.network - begun.network) / tasks,
            log.unwrap_or_default(),
        );
        if test == Test::Pipe {
            let of_task = before.map_or_else(
                || Model::of(idle, taken, seconds, tasks),
                |first| Model { idle, ..first },
            );
            let predicted = cells(of_task.predict(seconds, tasks), 1e6 / tasks);
            if before.is_some() {
                println!("| {count} | pipe, as predicted from the first | | {predicted} | | |");
            } else {
                println!(
                    "| {count} | pipe, without what idling takes | | {} | | |",
                    cells(of_task.task, 1e6)
                );
            }
            model = Some(of_task);
        }
    }
    place.close().await?;
    for server in servers {
        server.stop().await?;
    }
    model.context("nothing was piped")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!(
        "| nodes | what | tasks/s | CPU-s a million: nodes | Kafka | TiDB | client | bytes a task: loopback | Kafka's log |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    let mut first = None;
    for &count in &arguments.nodes {
        let model = measure(&arguments, count, first)
            .await
            .with_context(|| format!("{count} nodes"))?;
        first.get_or_insert(model);
    }
    Ok(())
}
