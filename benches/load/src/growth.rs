//! How the cost of a task changes with the size of things: each figure from a server of its own, with its log and store on this disk.
//!
//! ```sh
//! cargo build --release -p scheduler-server -p scheduler-load
//! ./target/release/growth               # all of it, some minutes; or `growth partitions backlog`
//! ```
#![expect(clippy::print_stdout, reason = "a tool for a terminal")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scheduler_examples::{Server, ServerOptions};
use scheduler_load::cost::Cost;
use scheduler_load::measure::{Amount, Outcome, Test};
use scheduler_load::people::{Load, Place};
use serde_json::json;

/// Client and server share the machine, as with `load`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pipelines that are made at once.
const AT_ONCE: usize = 32;
/// Tasks that all workers together have at once.
const AT_WORK: u32 = 4_000;

/// Measures what a task costs as things grow.
#[derive(Debug, Parser)]
#[command(name = "growth", version)]
struct Arguments {
    /// Tasks of a figure, where they are not what grows.
    #[arg(long, default_value_t = 500_000)]
    tasks: u64,
    /// What grows.
    #[arg(default_values_t = [Dimension::Pipelines, Dimension::Partitions, Dimension::Sessions, Dimension::Backlog, Dimension::Params])]
    what: Vec<Dimension>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Dimension {
    /// Idle pipelines of four partitions beside the one at work.
    Pipelines,
    /// Partitions of the pipeline.
    Partitions,
    /// Workers, each with a session; together they have the same room.
    Sessions,
    /// Tasks that are all submitted before any is worked on.
    Backlog,
    /// Bytes of a task's params.
    Params,
}

impl std::fmt::Display for Dimension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pipelines => "pipelines",
            Self::Partitions => "partitions",
            Self::Sessions => "sessions",
            Self::Backlog => "backlog",
            Self::Params => "params",
        })
    }
}

impl Dimension {
    fn sizes(self) -> &'static [u32] {
        match self {
            Self::Pipelines => &[1, 100, 1_000, 10_000],
            Self::Partitions => &[1, 4, 16, 100, 1_000],
            Self::Sessions => &[1, 10, 100, 1_000, 10_000],
            Self::Backlog => &[1_000, 100_000, 1_000_000, 10_000_000],
            Self::Params => &[32, 128, 1_024, 16_384, 65_536, 262_144],
        }
    }
}

/// One figure.
struct Point {
    load: Load,
    tasks: u64,
    /// Pipelines beside the one at work.
    beside: u32,
}

impl Point {
    fn new(what: Dimension, size: u32, tasks: u64) -> Self {
        let mut point = Self {
            load: Load {
                servers: Vec::new(),
                http: String::new(),
                connections: 0,
                partitions: 4,
                producers: 8,
                workers: 8,
                concurrency: AT_WORK / 8,
                batch: 500,
                params: 128,
            },
            tasks,
            beside: 0,
        };
        match what {
            Dimension::Pipelines => point.beside = size - 1,
            Dimension::Partitions => point.load.partitions = size,
            Dimension::Sessions => {
                point.load.workers = size;
                point.load.concurrency = (AT_WORK / size).max(1);
            }
            Dimension::Backlog => point.tasks = u64::from(size),
            Dimension::Params => {
                point.load.params = size;
                // A batch of at most 1 MiB, and at most 1 GiB in all.
                point.load.batch = u64::from((1 << 20) / size).clamp(1, 500);
                point.tasks = tasks.min((1 << 30) / u64::from(size));
            }
        }
        point
    }

    async fn measure(mut self) -> anyhow::Result<String> {
        let directory = tempfile::tempdir()?;
        let server = Server::start(&ServerOptions {
            data: directory.path().join("data"),
            log: directory.path().join("server.log"),
            arguments: vec!["--deployer".to_owned(), "none".to_owned()],
        })
        .await?;
        self.load.servers = vec![server.grpc().to_owned()];
        self.fill(&server).await?;
        let pid = u32::try_from(server.pid().as_raw())?;
        let place = Place::open(&self.load, "growth").await?;
        let empty = Cost::of(pid)?;
        let (submit, _) = self.run(Test::Submit, &place, pid).await?;
        let queued = Cost::of(pid)?;
        let (drain, _) = self.run(Test::Drain, &place, pid).await?;
        let (pipe, spent) = self.run(Test::Pipe, &place, pid).await?;
        server.stop().await?;
        Ok(format!(
            "{submit:.0} | {drain:.0} | {pipe:.0} | {:.1} | {:.0} | {:.0} | {:.0} |",
            spent.cpu_seconds_per_million,
            empty.since(empty, 1).resident_mib,
            queued.since(empty, 1).resident_mib,
            spent.resident_mib,
        ))
    }

    /// Tasks a second, and what they took of the server.
    async fn run(
        &self,
        test: Test,
        place: &Place,
        pid: u32,
    ) -> anyhow::Result<(f64, scheduler_load::cost::Spent)> {
        let amount = Amount {
            tasks: self.tasks,
            rate: 0,
            seconds: 0,
            warm: 0,
            limit: Duration::from_mins(5),
        };
        let before = Cost::of(pid)?;
        let outcome: Outcome = test.run(place, amount, || (), || ()).await?;
        ensure!(!outcome.capped, "{test:?} was cut off after five minutes");
        ensure!(
            outcome.dups == 0,
            "{} tasks came twice though nothing failed",
            outcome.dups
        );
        let spent = Cost::of(pid)?.since(before, outcome.count);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = outcome.count as f64 / outcome.secs;
        Ok((rate, spent))
    }

    async fn fill(&self, server: &Server) -> anyhow::Result<()> {
        let api = server.api();
        if self.beside > 0 {
            api.post("/api/applications", &json!({"name": "beside"}))
                .await?
                .ok()?;
        }
        stream::iter(0..self.beside)
            .map(|number| {
                let api = api.clone();
                async move {
                    let new = json!({"name": format!("p{number}"), "partitions": 4});
                    let answer = api.post("/api/applications/beside/pipelines", &new).await?;
                    answer
                        .ok()
                        .map(drop)
                        .with_context(|| format!("pipeline {number}"))
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for what in arguments.what {
        println!(
            "\n| {what} | submit/s | drain/s | pipe/s | server CPU-s a million (pipe) | MiB before | MiB with all queued | MiB after |"
        );
        println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for &size in what.sizes() {
            let row = Point::new(what, size, arguments.tasks).measure().await;
            println!("| {size} | {}", row.with_context(|| format!("{what} {size}"))?);
        }
    }
    Ok(())
}
