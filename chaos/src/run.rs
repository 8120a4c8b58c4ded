use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use nix::sys::signal::Signal;
use scheduler_examples::Api;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cast::{APPLICATION, Node, PIPELINE, Worker, ledger};
use crate::clients::{self, Known};
use crate::ledger::{Happened, Ran, now, weigh};
use crate::plan::{Fault, Step, draw};
use crate::proxy::Weather;
use crate::report::Report;

/// How long accepted tasks may take to end when everything is whole again.
const HEALING: Duration = Duration::from_mins(2);
/// Tasks that are asked for at once.
const ASKING: usize = 32;
/// How much later things come over a delayed link.
const DELAY: Duration = Duration::from_millis(150);

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fixes which faults come when. Default: 1.
    pub seed: u64,
    /// How long there are faults. Default: a minute.
    pub length: Duration,
    /// Tasks that are submitted in a second, about. Default: 200.
    pub rate: u32,
    /// Worker processes; at least 1. Default: 4.
    pub workers: usize,
    /// Logs, data and ledgers, kept; without it they lie in a temporary directory that is deleted.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            length: Duration::from_mins(1),
            rate: 200,
            workers: 4,
            directory: None,
        }
    }
}

/// Starts everything, lets the faults happen, heals, waits for every accepted task, and weighs the ledgers.
///
/// # Errors
///
/// The harness itself failed: a process did not start, or ended by itself. A broken promise is no error but in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    anyhow::ensure!(options.workers > 0, "workers: there must be at least 1");
    let temporary = tempfile::tempdir()?;
    let directory = options.directory.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory)?;
    anyhow::ensure!(
        !directory.join("data").exists(),
        "{} has an earlier run; name a new directory",
        directory.display()
    );

    let mut node = Node::start(directory).await?;
    let api = node.server()?.api();
    let new = json!({"name": PIPELINE, "partitions": 4});
    let pipelines = format!("/api/applications/{APPLICATION}/pipelines");
    api.post(&pipelines, &new).await?.ok().context("the pipeline")?;
    let path = format!("{pipelines}/{PIPELINE}");
    let mut workers = (0..options.workers)
        .map(|number| Worker::start(&node.link.url(), directory, number))
        .collect::<anyhow::Result<Vec<_>>>()?;

    let known = Arc::new(Known::default());
    let stop = CancellationToken::new();
    let mut clients = clients::start(&api, &path, options.seed, options.rate, &known, &stop);
    let mut faults = Vec::new();
    for step in draw(options.seed, options.length, options.workers) {
        sleep(step.after).await;
        let from = now();
        suffer(step, &mut node, &mut workers)
            .await
            .with_context(|| step.fault.to_string())?;
        faults.push(Happened {
            fault: step.fault,
            from,
            to: now(),
        });
    }
    stop.cancel();
    let healed = Instant::now();
    while let Some(client) = timeout(HEALING, clients.join_next())
        .await
        .context("clients have no answer, although everything is whole again")?
    {
        client??;
    }
    let accepted = std::mem::take(&mut *known.accepted.lock().await);
    let unfinished = unfinished(&api, &path, &accepted).await;
    let settled_after = healed.elapsed();
    for worker in workers {
        worker.stop().await?;
    }
    node.stop().await?;

    let ran = ran(directory, options.workers)?;
    Ok(Report {
        seed: options.seed,
        length: options.length,
        accepted: accepted.len(),
        retries: known.retries.load(Ordering::Relaxed),
        ran: ran.len(),
        settled_after,
        unfinished,
        verdict: weigh(&accepted, &ran, &faults),
        faults,
    })
}

/// Lets one fault happen, and mends it.
async fn suffer(step: Step, node: &mut Node, workers: &mut [Worker]) -> anyhow::Result<()> {
    match step.fault {
        Fault::KillServer => node.restart(false).await?,
        Fault::RestartServer => node.restart(true).await?,
        Fault::PauseServer => {
            node.server()?.signal(Signal::SIGSTOP)?;
            sleep(step.lasts).await;
            node.server()?.signal(Signal::SIGCONT)?;
        }
        Fault::KillWorker(worker) => workers[worker].replace().await?,
        Fault::PauseWorker(worker) => {
            workers[worker].signal(Signal::SIGSTOP)?;
            sleep(step.lasts).await;
            workers[worker].signal(Signal::SIGCONT)?;
        }
        Fault::CutLink | Fault::DelayLink => {
            let cut = step.fault == Fault::CutLink;
            let delay = if cut { Duration::ZERO } else { DELAY };
            node.link.set(Weather { cut, delay });
            sleep(step.lasts).await;
            node.link.set(Weather::default());
        }
    }
    Ok(())
}

/// Accepted tasks that have not succeeded in time, with what they are.
async fn unfinished(api: &Api, path: &str, accepted: &BTreeMap<u64, String>) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + HEALING;
    stream::iter(accepted.values().cloned())
        .map(|id| async move {
            let mut last = "no answer".to_owned();
            let ended = tokio::time::timeout_at(deadline, async {
                loop {
                    match api.get(&format!("{path}/tasks/{id}?wait=10s")).await {
                        Ok(answer) if answer.status == reqwest::StatusCode::OK => {
                            last = answer.body["state"].to_string();
                            return last == "\"succeeded\"";
                        }
                        Ok(answer) => last = format!("{} {}", answer.status, answer.body),
                        Err(error) => last = error.to_string(),
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            })
            .await;
            (!ended.unwrap_or(false)).then(|| format!("{id}: {last}"))
        })
        .buffer_unordered(ASKING)
        .filter_map(std::future::ready)
        .collect()
        .await
}

fn ran(directory: &Path, workers: usize) -> anyhow::Result<Vec<Ran>> {
    let mut ran = Vec::new();
    for worker in 0..workers {
        let path = ledger(directory, worker);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ran.extend(text.lines().filter_map(|line| Ran::parse(worker, line)));
    }
    Ok(ran)
}
