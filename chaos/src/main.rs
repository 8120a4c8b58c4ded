//! `chaos`: a run of faults, or figures, from the command line. It prints its report, and fails if a promise was broken.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use scheduler_chaos::figures::{failover, rolling};
use scheduler_chaos::{Options, Report, Stage, guard, run};

/// Kills, stops, restarts and cuts off real processes while tasks are submitted, and proves what came of every task.
#[derive(Debug, Parser)]
#[command(name = "chaos", version, args_conflicts_with_subcommands = true)]
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
    /// Only faults of this kind, as `kill-server`; may be given several times.
    #[arg(long, value_name = "KIND")]
    only: Vec<String>,
    /// One server with its embedded log and store, instead of several on Kafka and TiDB.
    #[arg(long)]
    embedded: bool,
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, Args)]
struct Common {
    /// Servers.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Kafka brokers: 1 or 3.
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// Workers.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Logs and ledgers are kept here; without it they are deleted at the end.
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Restarts every server once under load, and says what those who submit and wait notice.
    Rolling {
        /// Tasks that are submitted in a second.
        #[arg(long, default_value_t = 2_000)]
        rate: u32,
        /// Seconds of load before the first restart, to compare with.
        #[arg(long, default_value_t = 20)]
        steady: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Kills servers in turn, and says how long it takes until their shards are active elsewhere.
    Failover {
        /// How many are killed.
        #[arg(long, default_value_t = 12)]
        kills: usize,
        /// Tasks that are submitted in a second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Waits for the end of a run, and then for nothing of it to be left.
    #[command(hide = true)]
    Guard { directory: PathBuf },
}

impl Common {
    fn options(self, rate: u32, length: Duration) -> Options {
        Options {
            stage: Stage::Cluster {
                nodes: self.nodes,
                brokers: self.brokers,
            },
            length,
            rate,
            workers: self.workers,
            directory: self.directory,
            ..Options::default()
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.other {
        Some(Other::Guard { directory }) => guard(&directory),
        Some(Other::Rolling { rate, steady, common }) => {
            let figures = rolling(&common.options(rate, Duration::from_secs(steady))).await?;
            tell(&figures, &figures.report)
        }
        Some(Other::Failover { kills, rate, common }) => {
            let figures = failover(&common.options(rate, Duration::ZERO), kills).await?;
            tell(&figures, &figures.report)
        }
        None => {
            let length = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
            let mut options = arguments.common.options(arguments.rate, length);
            options.seed = arguments.seed;
            options.only = arguments.only;
            if arguments.embedded {
                options.stage = Stage::Embedded;
            }
            let report = run(&options).await?;
            tell(&report, &report)
        }
    }
}

fn tell(what: &dyn fmt::Display, report: &Report) -> anyhow::Result<()> {
    write!(std::io::stdout(), "{what}")?;
    let problems = report.problems();
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}
