//! A worker for tests. It writes down each attempt as it begins and as it ends, and does to it what its params say.
//!
//! It ends when its standard input does, so that it does not outlive a test.
#![expect(clippy::print_stdout, reason = "its standard output is what tests wait for")]

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use scheduler_sdk::{Context, TaskError, Worker};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

/// What it is started with.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    server: String,
    #[arg(long)]
    application: String,
    #[arg(long)]
    pipeline: String,
    #[arg(long)]
    api_key: Option<String>,
    #[arg(long, default_value_t = 1)]
    concurrency: u32,
    /// Attempts are appended to it: `start` or `end`, partition, offset, epoch, attempt.
    #[arg(long)]
    ledger: PathBuf,
}

/// What a task wants. Other params are handed back with these.
#[derive(Debug, Deserialize)]
struct Wishes {
    /// Wait until `release` is written to the worker's standard input.
    #[serde(default)]
    hold: bool,
    /// Attempts before this one fail.
    #[serde(default)]
    succeed_at: u32,
    /// Fail for good.
    #[serde(default)]
    reject: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let ledger = Arc::new(
        File::options()
            .create(true)
            .append(true)
            .open(&arguments.ledger)?,
    );
    let (release, released) = watch::channel(false);
    std::thread::spawn(move || obey(&release));

    let mut worker = Worker::builder()
        .server(&arguments.server)
        .application(&arguments.application)
        .pipeline(&arguments.pipeline)
        .name("ledger")
        .concurrency(arguments.concurrency)
        .handler(move |params, context| run(params, context, Arc::clone(&ledger), released.clone()));
    if let Some(key) = &arguments.api_key {
        worker = worker.api_key(key);
    }
    let shutdown = async {
        scheduler_sdk::terminated().await;
        println!("draining");
    };
    worker.build()?.with_shutdown(shutdown).run().await?;
    Ok(())
}

async fn run(
    params: Value,
    context: Context,
    ledger: Arc<File>,
    mut released: watch::Receiver<bool>,
) -> Result<Value, TaskError> {
    let note = |what: &str| {
        let lease = context.lease();
        let (partition, offset, epoch, attempt) = (lease.partition, lease.offset, lease.epoch, lease.attempt);
        let line = format!("{what} {partition} {offset} {epoch} {attempt}\n");
        // One write of a line, so that attempts at once do not mix.
        (&*ledger).write_all(line.as_bytes())?;
        print!("{line}");
        Ok::<_, std::io::Error>(())
    };
    note("start")?;
    let wishes = Wishes::deserialize(&params)?;
    if wishes.hold {
        tokio::select! {
            released = released.wait_for(|released| *released) => { released?; }
            () = context.cancelled().cancelled() => {
                note("cancelled")?;
                return Err(TaskError::retryable("told to stop"));
            }
        }
    }
    note("end")?;
    if wishes.reject {
        Err(TaskError::permanent("as the task wished"))
    } else if context.attempt() < wishes.succeed_at {
        Err(TaskError::retryable(format!(
            "attempt {} was to fail",
            context.attempt()
        )))
    } else {
        Ok(params)
    }
}

/// Does what standard input says. On a thread of its own, which unlike a task does not keep the process from ending.
fn obey(release: &watch::Sender<bool>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        release.send_replace(line == "release");
    }
    std::process::exit(0);
}
