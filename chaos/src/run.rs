use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cast::Cast;
use crate::clients::{self, Known, Load};
use crate::excuse::Circumstances;
use crate::journal::Journal;
use crate::ledger::{Ran, weigh};
use crate::observer::{Observer, Sightings};
use crate::options::Options;
use crate::plan::draw;
use crate::producer;
use crate::report::Report;
use crate::say;
use crate::settle::{self, HEALING};
use crate::worker::ledger;

/// Partitions at the beginning.
const PARTITIONS: u32 = 6;
/// How long workers may be silent.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// HTTP clients.
const CLIENTS: u32 = 8;
/// The longest work of a task, in milliseconds.
const LONGEST: u64 = 30;
/// Of all tasks, those that clients submit; the rest is the producer's.
const OVER_HTTP: f64 = 0.75;

/// Starts everything, lets the faults happen, heals, waits for every accepted task, and weighs the evidence.
///
/// # Errors
///
/// The harness itself failed: a process did not start, or ended by itself. A broken promise is no error but in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    options.check()?;
    let temporary = tempfile::tempdir()?;
    let directory = fresh(options.directory.as_deref().unwrap_or(temporary.path()))?;
    let cast = Cast::start(options, directory, PARTITIONS, HEARTBEAT).await?;
    let observer = match &cast.services {
        Some(services) => Some(Observer::start(&services.tidb)?),
        None => None,
    };

    let known = Arc::new(Known::default());
    let stop = CancellationToken::new();
    let mut submitters = submit(options, &cast, &known, &stop)?;
    let mut faults = Vec::new();
    for step in draw(options.seed, options.length, options.scope()) {
        sleep(step.after).await;
        faults.extend(cast.suffer(&step).await?);
    }
    faults.sort_by_key(|happened| happened.from);
    say("everything is whole again");
    stop.cancel();
    let healed = Instant::now();
    while let Some(submitter) = timeout(HEALING, submitters.join_next())
        .await
        .context("submitters have no answer, although everything is whole again")?
    {
        submitter??;
    }
    let accepted = std::mem::take(&mut *known.accepted.lock().await);
    say(&format!("all submissions are answered: {}", accepted.len()));
    let path = Cast::path();
    settle::drained(&cast.apis, &path).await;
    let unfinished = settle::unfinished(&cast.apis[0], &path, &accepted).await?;
    let settled_after = healed.elapsed();
    say(&format!("accepted tasks that have not ended well: {}", unfinished.len()));
    let partitions = *cast.partitions.lock().await;
    let audits = settle::audits(&cast.apis, &path, partitions).await?;
    let ends = match &cast.services {
        Some(services) => Some(producer::ends(&services.kafka, &cast.topic(), partitions)?),
        None => None,
    };
    let accounts = settle::problems(&audits, ends.as_deref());
    say("audits are done");

    let journal = Journal::read(&cast.logs().await)?;
    let sightings = match observer {
        Some(observer) => observer.end(&journal).await?,
        None => Sightings::default(),
    };
    cast.end().await?;
    let ran = ran(directory, options.workers)?;
    let mut ownership = journal.problems(&ran);
    ownership.extend(sightings.problems);
    let circumstances = Circumstances {
        faults: &faults,
        journal: &journal,
        heartbeat: u64::try_from(HEARTBEAT.as_millis())?,
    };
    let over_http = accepted.values().filter(|task| task.has_key).count();
    let refusals = std::mem::take(&mut *known.refusals.lock().await);
    Ok(Report {
        stage: options.stage,
        seed: options.seed,
        length: options.length,
        over_http,
        by_producer: accepted.len() - over_http,
        refusals,
        ran: ran.len(),
        settled_after,
        unfinished,
        verdict: weigh(&accepted, &ran, &circumstances),
        activations: journal.activations.len(),
        checkpoints: journal.saved,
        looks: sightings.looks,
        ownership,
        audits,
        accounts,
        faults,
    })
}

/// A directory that has nothing of an earlier run.
pub(crate) fn fresh(directory: &Path) -> anyhow::Result<&Path> {
    std::fs::create_dir_all(directory)?;
    anyhow::ensure!(
        std::fs::read_dir(directory)?.next().is_none(),
        "{} is not empty; name a new directory",
        directory.display()
    );
    Ok(directory)
}

fn submit(
    options: &Options,
    cast: &Cast,
    known: &Arc<Known>,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let rate = f64::from(options.rate);
    let share = if cast.services.is_some() { OVER_HTTP } else { 1.0 };
    let load = Load {
        clients: CLIENTS,
        rate: rate * share,
        longest: LONGEST,
    };
    let mut submitters = clients::start(&cast.apis, &Cast::path(), options.seed, load, known, stop);
    if let Some(services) = &cast.services {
        let target = producer::Target {
            brokers: services.kafka.clone(),
            topic: cast.topic(),
            pipeline: cast.pipeline,
        };
        let rate = rate * (1.0 - share);
        producer::start(target, options.seed, rate, known, stop, &mut submitters)?;
    }
    Ok(submitters)
}

pub(crate) fn ran(directory: &Path, workers: usize) -> anyhow::Result<Vec<Ran>> {
    let mut ran = Vec::new();
    for worker in 0..workers {
        let path = ledger(directory, worker);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ran.extend(text.lines().filter_map(|line| Ran::parse(worker, line)));
    }
    Ok(ran)
}
