//! What many idle pipelines cost one node on Kafka and TiDB: how long it takes to start, and what it uses while nothing happens.
//!
//! ```sh
//! cargo build --release -p scheduler-server -p scheduler-benches
//! cargo xtask services up --dir target/density     # and paste the exports that it prints
//! ./target/release/density
//! cargo xtask services down --dir target/density --wipe
//! ```
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scheduler_examples::{Server, ServerOptions};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

/// Pipelines that are made at once.
const AT_ONCE: usize = 8;
/// How often a server is looked at that is coming up.
const GLANCE: Duration = Duration::from_millis(100);
/// When it is given up.
const PATIENCE: Duration = Duration::from_mins(10);
/// What a tick of /proc is on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Measures what idle pipelines cost.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many pipelines.
    #[arg(long, default_value_t = 1_000)]
    pipelines: usize,
    /// Partitions of each.
    #[arg(long, default_value_t = 4)]
    partitions: usize,
    /// Seconds for which the idle server is watched.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The brokers.
    #[arg(long, env = "SCHEDULER_TEST_KAFKA")]
    kafka: String,
    /// TiDB, as `mysql://user@host:port`. A database is made in it, and dropped at the end; topics stay.
    #[arg(long, env = "SCHEDULER_TEST_TIDB")]
    tidb: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let name = format!("density-{}", std::process::id());
    run_sql(&arguments.tidb, format!("CREATE DATABASE `{name}`")).await?;
    let measured = measure(&arguments, &name).await;
    run_sql(&arguments.tidb, format!("DROP DATABASE `{name}`")).await?;
    measured
}

async fn run_sql(server: &str, sql: String) -> anyhow::Result<()> {
    let mut connection = MySqlConnection::connect(server).await.context("--tidb")?;
    connection.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

async fn measure(arguments: &Arguments, name: &str) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let tidb = format!("{}/{name}", arguments.tidb.trim_end_matches('/'));
    let mut options = ServerOptions {
        data: directory.path().join("data"),
        log: directory.path().join("empty.log"),
        arguments: [
            ("--kafka", arguments.kafka.as_str()),
            ("--tidb", &tidb),
            ("--cluster", name),
            ("--cluster-secret", "of one node alone"),
            ("--deployer", "none"),
        ]
        .iter()
        .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
        .collect(),
    };
    let shards = arguments.pipelines * arguments.partitions;
    println!(
        "{} pipelines x {} partitions",
        arguments.pipelines, arguments.partitions
    );

    let server = Server::start(&options).await?;
    show_use(&server, "without pipelines", arguments.seconds.min(20)).await?;
    let begun = Instant::now();
    make(&server, arguments).await?;
    println!("made in {:.1} s", begun.elapsed().as_secs_f64());
    active(&server, shards).await?;
    println!(
        "all shards active {:.1} s after the first was asked for",
        begun.elapsed().as_secs_f64()
    );
    show_use(&server, "all new", arguments.seconds).await?;
    let begun = Instant::now();
    server.stop().await?;
    println!("stopped in {:.1} s", begun.elapsed().as_secs_f64());

    options.log = directory.path().join("full.log");
    let begun = Instant::now();
    let server = Server::start(&options).await?;
    println!("started again: ready in {:.1} s", begun.elapsed().as_secs_f64());
    active(&server, shards).await?;
    println!("all shards active in {:.1} s", begun.elapsed().as_secs_f64());
    show_use(&server, "started again", arguments.seconds).await?;
    server.stop().await
}

async fn make(server: &Server, arguments: &Arguments) -> anyhow::Result<()> {
    let api = server.api();
    let application = json!({"name": "density"});
    api.post("/api/applications", &application).await?.ok()?;
    stream::iter(0..arguments.pipelines)
        .map(|number| {
            let api = api.clone();
            let new = json!({"name": format!("p{number}"), "partitions": arguments.partitions});
            async move {
                let answer = api.post("/api/applications/density/pipelines", &new).await?;
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

/// Waits until so many shards are active, as the server's log has it.
async fn active(server: &Server, shards: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let log = server.log();
        let active = log.lines().filter(|line| line.contains("shard is active"));
        // One that was lost and came back is in the log twice.
        let active: BTreeSet<&str> = active
            .filter_map(|line| line.split_once("shard=")?.1.split(' ').next())
            .collect();
        let active = active.len();
        if active >= shards {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{active} of {shards} shards are active"
        );
        tokio::time::sleep(GLANCE).await;
    }
}

/// Watches the server while nothing happens.
async fn show_use(server: &Server, when: &str, seconds: u64) -> anyhow::Result<()> {
    let process = Path::new("/proc").join(server.pid().to_string());
    // What is left to do from before.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, begun) = (ticks(&process)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = (ticks(&process)? - before) / TICKS_PER_SECOND / begun.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(process.join("status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim_matches([':', '\t', ' ']).to_owned())
            .unwrap_or_default()
    };
    println!(
        "{when}: {:.1} % of a core over {seconds} s, RSS {}, at most {}, {} threads",
        used * 100.0,
        field("VmRSS"),
        field("VmHWM"),
        field("Threads")
    );
    Ok(())
}

/// CPU time that a process has used.
fn ticks(process: &Path) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(process.join("stat"))?;
    // The name may have spaces; what follows it has none.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |index: usize| -> anyhow::Result<f64> {
        let text = fields.get(index).context("/proc/PID/stat is too short")?;
        Ok(text.parse()?)
    };
    Ok(field(11)? + field(12)?)
}
