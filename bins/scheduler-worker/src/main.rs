//! The `scheduler-worker` binary: configuration, signals, and nothing else.

use std::time::Duration;

use clap::Parser;
use scheduler_sdk::{Worker, terminated};
use scheduler_worker::{Agent, Arguments, Executors, Workspace, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Who reads the log may be gone, and a complaint about it would be a panic.
        .log_internal_errors(false)
        .init();

    if arguments.exit_with_stdin {
        // Whoever started this process is gone, and its scheduler with it: there is nobody to report to. The executors see the calls
        // of this process end and kill what runs.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(1);
        });
    }

    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let executors = Executors::new(arguments.all_executors(environment)?)?;
    anyhow::ensure!(
        executors.names().next().is_some(),
        "no executor is configured; give --executor NAME=127.0.0.1:50051, or set PIPELINE_AGENT__EXECUTORS__0__NAME and \
         PIPELINE_AGENT__EXECUTORS__0__TARGET"
    );
    let workspace = Workspace::open(arguments.workspace.clone(), arguments.concurrency)?;
    let agent = Agent::new(executors, workspace);

    let stop = CancellationToken::new();
    let worker = worker(&arguments, &agent, &stop)?;
    let http = match arguments.http {
        scheduler_worker::HttpAddress::Off => None,
        scheduler_worker::HttpAddress::On(address) => Some(TcpListener::bind(address).await?),
    };
    if let Some(listener) = &http {
        tracing::info!(name = arguments.name, address = %listener.local_addr()?, "serving HTTP");
    }
    let stopped = stop.clone();
    tokio::spawn(async move {
        terminated().await;
        stopped.cancel();
    });

    let http_stop = CancellationToken::new();
    let http = {
        let (agent, status, stop) = (
            agent.clone(),
            worker.as_ref().map(Worker::status),
            http_stop.clone(),
        );
        async move {
            match http {
                Some(listener) => serve(listener, agent, status, stop).await,
                None => Ok(()),
            }
        }
    };
    let work = async {
        let result = if let Some(worker) = worker {
            work(worker, &agent, &stop).await
        } else {
            stop.cancelled().await;
            Ok(())
        };
        http_stop.cancel();
        result
    };
    let (result, http_result) = tokio::join!(work, http);
    result?;
    Ok(http_result?)
}

fn worker(arguments: &Arguments, agent: &Agent, stop: &CancellationToken) -> anyhow::Result<Option<Worker>> {
    // Charts set variables that they have no value for to nothing.
    let servers: Vec<_> = arguments.server.iter().filter(|url| !url.is_empty()).collect();
    if servers.is_empty() {
        return Ok(None);
    }
    let mut builder = Worker::builder()
        .name(&arguments.name)
        .application(arguments.application.clone().unwrap_or_default())
        .pipeline(arguments.pipeline.clone().unwrap_or_default())
        .concurrency(arguments.concurrency)
        .drain_timeout(Duration::from_secs(arguments.drain_seconds));
    for server in servers {
        builder = builder.server(server);
    }
    if let Some(key) = arguments.api_key.as_ref().filter(|key| !key.is_empty()) {
        builder = builder.api_key(key);
    }
    let agent = agent.clone();
    let builder = builder.handler(move |params, context| {
        let agent = agent.clone();
        async move { agent.run(params, context).await }
    });
    Ok(Some(
        builder.build()?.with_shutdown(stop.clone().cancelled_owned()),
    ))
}

/// Takes tasks once the executors are there to run them: they start beside the worker.
async fn work(worker: Worker, agent: &Agent, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        let problems = agent.executors().unreachable().await;
        if problems.is_empty() {
            break;
        }
        tracing::info!(problems = problems.join("; "), "waiting for executors");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            () = stop.cancelled() => return Ok(()),
        }
    }
    worker.run().await?;
    Ok(())
}
