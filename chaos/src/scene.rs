//! Everybody on stage, under load, and the evidence at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cast::Cast;
use crate::clients::{self, Known, Load};
use crate::excuse::Circumstances;
use crate::journal::Journal;
use crate::ledger::{Accepted, Happened, Ran, weigh};
use crate::observer::{Observer, Sightings};
use crate::options::Options;
use crate::producer;
use crate::report::Report;
use crate::say;
use crate::settle::{self, HEALING};
use crate::worker::ledger;

/// How long workers may be silent.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// So many clients wait for as long as tasks of so many seconds come, before their waiting makes the load any smaller.
const PATIENCE: u32 = 2;

/// How tasks come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// Partitions at the beginning.
    pub(crate) partitions: u32,
    /// The longest work of a task, in milliseconds; at least 1.
    pub(crate) longest: u64,
    /// Of all tasks, those that clients submit over HTTP; the rest is the Kafka producer's.
    pub(crate) over_http: f64,
}

/// What all know at the end.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) accepted: BTreeMap<u64, Accepted>,
    pub(crate) ran: Vec<Ran>,
    pub(crate) report: Report,
}

#[derive(Debug)]
pub(crate) struct Scene {
    options: Options,
    directory: PathBuf,
    pub(crate) cast: Cast,
    observer: Option<Observer>,
    known: Arc<Known>,
    stop: CancellationToken,
    submitters: JoinSet<anyhow::Result<()>>,
    _temporary: Option<TempDir>,
}

impl Scene {
    /// Starts everybody.
    pub(crate) async fn begin(options: &Options, flow: Flow) -> anyhow::Result<Self> {
        options.check()?;
        let (directory, temporary) = if let Some(directory) = &options.directory {
            (fresh(directory)?, None)
        } else {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        };
        let cast = Cast::start(options, &directory, flow.partitions, HEARTBEAT).await?;
        let observer = match &cast.services {
            Some(_) => Some(Observer::start(&cast.database())?),
            None => None,
        };
        let (known, stop) = (Arc::<Known>::default(), CancellationToken::new());
        let submitters = submit(options, flow, &cast, &known, &stop)?;
        Ok(Self {
            options: options.clone(),
            directory,
            cast,
            observer,
            known,
            stop,
            submitters,
            _temporary: temporary,
        })
    }

    /// Ends the load, waits for every accepted task, and weighs the evidence.
    pub(crate) async fn end(
        mut self,
        title: String,
        arguments: &str,
        mut faults: Vec<Happened>,
    ) -> anyhow::Result<Evidence> {
        let again = format!("cargo xtask chaos {arguments}{}", self.options.stage);
        faults.sort_by_key(|happened| happened.from);
        say("everything is whole again");
        self.stop.cancel();
        let healed = Instant::now();
        while let Some(submitter) = timeout(HEALING, self.submitters.join_next())
            .await
            .context("submitters have no answer, although everything is whole again")?
        {
            submitter??;
        }
        let accepted = std::mem::take(&mut *self.known.accepted.lock().await);
        say(&format!("all submissions are answered: {}", accepted.len()));
        let (cast, path) = (self.cast, Cast::path());
        settle::drained(&cast.apis, &path).await;
        let unfinished = settle::unfinished(&cast.apis[0], &path, &accepted).await?;
        let settled_after = healed.elapsed();
        say(&format!(
            "accepted tasks that have not ended well: {}",
            unfinished.len()
        ));
        let partitions = *cast.partitions.lock().await;
        let audits = settle::audits(&cast.apis, &path, partitions).await?;
        let ends = match &cast.services {
            Some(services) => Some(producer::ends(&services.kafka, &cast.topic(), partitions)?),
            None => None,
        };
        let accounts = settle::problems(&audits, ends.as_deref());
        say("audits are done");

        let journal = Journal::read(&cast.logs().await)?;
        let sightings = match self.observer {
            Some(observer) => observer.end(&journal).await?,
            None => Sightings::default(),
        };
        cast.end().await?;
        let ran = ran(&self.directory, self.options.workers)?;
        let mut ownership = journal.problems(&ran);
        ownership.extend(sightings.problems);
        let circumstances = Circumstances {
            faults: &faults,
            journal: &journal,
            heartbeat: u64::try_from(HEARTBEAT.as_millis())?,
        };
        let over_http = accepted.values().filter(|task| task.has_key).count();
        let refusals = std::mem::take(&mut *self.known.refusals.lock().await);
        let report = Report {
            title,
            again,
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
            owners: sightings.owners,
            ownership,
            audits,
            accounts,
            faults,
        };
        Ok(Evidence {
            accepted,
            ran,
            report,
        })
    }
}

/// A directory that has nothing of an earlier run.
fn fresh(directory: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    anyhow::ensure!(
        std::fs::read_dir(directory)?.next().is_none(),
        "{} is not empty; name a new directory",
        directory.display()
    );
    Ok(std::path::absolute(directory)?)
}

fn submit(
    options: &Options,
    flow: Flow,
    cast: &Cast,
    known: &Arc<Known>,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let rate = f64::from(options.rate);
    let share = if cast.services.is_some() {
        flow.over_http
    } else {
        1.0
    };
    let load = Load {
        clients: options.rate * PATIENCE,
        rate: rate * share,
        longest: flow.longest,
    };
    let mut submitters = clients::start(&cast.apis, &Cast::path(), options.seed, load, known, stop);
    if let Some(services) = &cast.services
        && share < 1.0
    {
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

fn ran(directory: &Path, workers: usize) -> anyhow::Result<Vec<Ran>> {
    let mut ran = Vec::new();
    for worker in 0..workers {
        let path = ledger(directory, worker);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ran.extend(text.lines().filter_map(|line| Ran::parse(worker, line)));
    }
    Ok(ran)
}
