//! `chaos`: a run of faults from the command line. It prints its report, and fails if a promise was broken.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use scheduler_chaos::{Options, Stage, guard, run};

/// Kills, stops, restarts and cuts off real processes while tasks are submitted, and proves what came of every task.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// Minutes of faults.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Fixes which faults come when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tasks that are submitted in a second, about.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Servers.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Kafka brokers: 1 or 3.
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// Workers.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// One server with its embedded log and store, instead of several on Kafka and TiDB.
    #[arg(long)]
    embedded: bool,
    /// Logs and ledgers are kept here; without it they are deleted at the end.
    #[arg(long)]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Waits for the end of a run, and then for nothing of it to be left.
    #[command(hide = true)]
    Guard { directory: PathBuf },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Other::Guard { directory }) = arguments.other {
        return guard(&directory);
    }
    let stage = if arguments.embedded {
        Stage::Embedded
    } else {
        Stage::Cluster {
            nodes: arguments.nodes,
            brokers: arguments.brokers,
        }
    };
    let options = Options {
        stage,
        seed: arguments.seed,
        length: Duration::try_from_secs_f64(arguments.minutes * 60.0)?,
        rate: arguments.rate,
        workers: arguments.workers,
        directory: arguments.directory.map(std::path::absolute).transpose()?,
    };
    let report = run(&options).await?;
    write!(std::io::stdout(), "{report}")?;
    let problems = report.problems();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}
