//! `load`: producers and workers on a running server, and how fast it was.
//!
//! ```console
//! scheduler-server --data /tmp/data --deployer none &
//! load --server http://127.0.0.1:50050 --pid $! submit drain pipe latency
//! ```
#![expect(clippy::print_stdout, reason = "a tool for a terminal")]

use std::time::Duration;

use clap::{Parser, ValueEnum};
use scheduler_load::cost::Cost;
use scheduler_load::lines;
use scheduler_load::measure::{Amount, Test};
use scheduler_load::people::{Load, Place};

/// The client takes half of the machine: it is to be as fast as it can.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Submits tasks to a server and works on them, with the client and the workers of the SDK.
#[derive(Clone, Debug, Parser)]
#[command(name = "load", version)]
struct Arguments {
    #[command(flatten)]
    load: Load,
    /// The server's process, to see what it takes.
    #[arg(long)]
    pid: Option<u32>,
    /// Tasks of a test that is not of a rate.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u64,
    /// Tasks a second, of `latency`.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Seconds of `latency` and `http` that count, after 3 that do not.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Tests, in this order; each has all tasks of one pipeline. `lines` takes tests as lines of JSON instead.
    #[arg(default_values_t = [Command::Submit, Command::Drain, Command::Pipe, Command::Latency])]
    tests: Vec<Command>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Command {
    /// As fast as the server acknowledges.
    Submit,
    /// What `submit` has left, as fast as workers get it and it is settled.
    Drain,
    /// Both at once.
    Pipe,
    /// At a fixed rate: from when a task is due to when a worker has it.
    Latency,
    /// One task a request over HTTP, on connections that are kept: from a request to its answer.
    Http,
    /// As told on standard input, for a program that compares.
    Lines,
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Submit => "submit",
            Self::Drain => "drain",
            Self::Pipe => "pipe",
            Self::Latency => "latency",
            Self::Http => "http",
            Self::Lines => "lines",
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let amount = Amount {
        tasks: arguments.tasks,
        rate: arguments.rate,
        seconds: arguments.seconds,
        warm: 3,
        limit: Duration::from_mins(2),
    };
    let place = Place::open(&arguments.load, "load").await?;
    for command in &arguments.tests {
        let test = match command {
            Command::Submit => Test::Submit,
            Command::Drain => Test::Drain,
            Command::Pipe => Test::Pipe,
            Command::Latency => Test::Lat,
            Command::Http => Test::Http,
            Command::Lines => return lines::answer(&arguments.load).await,
        };
        let before = arguments.pid.map(Cost::of).transpose()?;
        let outcome = test.run(&place, amount, || (), || ()).await?;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = outcome.count as f64 / outcome.secs;
        println!(
            "{command}: {rate:.0} tasks/s\n  {}",
            serde_json::to_string(&outcome)?
        );
        if let (Some(pid), Some(before)) = (arguments.pid, before) {
            // What does not count among the figures was work all the same.
            let tasks = outcome.sent.max(outcome.count);
            println!("  {}", Cost::of(pid)?.since(before, tasks));
        }
    }
    place.close().await
}
