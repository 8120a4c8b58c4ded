//! A worker that writes down every attempt that it has run to its end, before it reports it.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use scheduler_chaos::ledger::now;
use scheduler_sdk::{Context, TaskError, Worker};
use serde::Deserialize;

/// What it is started with.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, required = true)]
    server: Vec<String>,
    #[arg(long)]
    application: String,
    #[arg(long)]
    pipeline: String,
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
    /// Attempts are appended to it: number in two halves, partition, offset, epoch, attempt, then milliseconds since 1970 of when it was
    /// due, of its start and of its end, and a full stop.
    #[arg(long)]
    ledger: PathBuf,
}

/// The params of a task.
#[derive(Debug, Deserialize)]
struct Params {
    number: u64,
    /// How long the work takes.
    milliseconds: u64,
    /// When it was to be submitted, in milliseconds since 1970.
    #[serde(default)]
    due: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let ledger = File::options()
        .create(true)
        .append(true)
        .open(&arguments.ledger)?;
    let ledger = Arc::new(ledger);
    let mut builder = Worker::builder();
    for server in &arguments.server {
        builder = builder.server(server);
    }
    builder
        .application(&arguments.application)
        .pipeline(&arguments.pipeline)
        .name(&arguments.name)
        .concurrency(arguments.concurrency)
        .handler(move |params, context| work(params, context, Arc::clone(&ledger)))
        .build()?
        .with_shutdown(scheduler_sdk::terminated())
        .run()
        .await?;
    Ok(())
}

async fn work(params: Params, context: Context, ledger: Arc<File>) -> Result<u64, TaskError> {
    let started = now();
    tokio::time::sleep(Duration::from_millis(params.milliseconds)).await;
    let lease = context.lease();
    let line = format!(
        "{} {} {} {} {} {} {} {started} {}.\n",
        params.number >> 32,
        params.number & u64::from(u32::MAX),
        lease.partition,
        lease.offset,
        lease.epoch,
        lease.attempt,
        params.due,
        now()
    );
    // One write of a line, so that attempts at once do not mix.
    (&*ledger).write_all(line.as_bytes())?;
    Ok(params.number)
}
