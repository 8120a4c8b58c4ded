//! The tests: submit, drain, pipe, and latency at a rate.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::people::{Acknowledged, Place};
use crate::seen::Seen;
use crate::work::{Source, now};

/// Tasks that show that every worker receives.
const PROBES: u64 = 256;
/// What workers take to settle what they have reported, beyond the test's own limit.
const SETTLING: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// As fast as the server acknowledges.
    Submit,
    /// What was submitted before, as fast as workers get it and it is settled.
    Drain,
    /// Both at once.
    Pipe,
    /// At a fixed rate: from when a task is due to when a worker has it.
    Lat,
    /// One task a request over HTTP, on connections that are kept: from a request to its answer.
    Http,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Of a test that is not at a rate.
    pub tasks: u64,
    /// Of a test at a rate: tasks a second.
    pub rate: u64,
    /// That count; of HTTP as well.
    pub seconds: u64,
    /// Seconds before what counts.
    pub warm: u64,
    /// When a test that does not end is cut off.
    pub limit: Duration,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Tasks that the server acknowledged.
    pub sent: u64,
    /// Tasks that count.
    pub count: u64,
    /// Tasks that a worker got that had been got before.
    pub dups: u64,
    /// From the first call to the last acknowledgement; with workers, until every report was settled.
    pub secs: f64,
    /// Until the last task was in a worker's hand.
    pub received_secs: f64,
    /// Cut at the limit.
    pub capped: bool,
    /// Of a test at a rate, and of HTTP.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub latency: Option<Latency>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    #[serde(rename = "p50_ms")]
    p50: f64,
    #[serde(rename = "p99_ms")]
    p99: f64,
    #[serde(rename = "p999_ms")]
    p999: f64,
    #[serde(rename = "max_ms")]
    max: f64,
    /// Whether everything came, the last of it less than 2 s after its submission was due.
    keeps_up: bool,
}

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(micros: &Histogram<u64>, keeps_up: bool) -> Self {
        let at = |quantile| Duration::from_micros(micros.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            keeps_up,
        }
    }
}

impl Test {
    /// `begin` is called when the timed part begins, and `end` when it is over.
    pub async fn run(
        self,
        place: &Place,
        amount: Amount,
        begin: impl FnOnce() + Send,
        end: impl FnOnce() + Send,
    ) -> anyhow::Result<Outcome> {
        match self {
            Self::Submit => submit(place, amount, begin, end).await,
            Self::Drain => drain(place, amount, begin, end).await,
            Self::Pipe => pipe(place, amount, begin, end).await,
            Self::Lat => latency(place, amount, begin, end).await,
            Self::Http => requests(place, amount, begin, end).await,
        }
    }
}

async fn submit(
    place: &Place,
    amount: Amount,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) -> anyhow::Result<Outcome> {
    let (source, acknowledged) = (
        Arc::new(Source::closed(amount.tasks)),
        Arc::new(Acknowledged::default()),
    );
    begin();
    let begun = now();
    let mut producers = place.produce(&source, &acknowledged);
    let capped = timeout(amount.limit, all(&mut producers)).await;
    source.stop();
    all(&mut producers).await?;
    end();
    Ok(Outcome {
        sent: acknowledged.count(),
        count: acknowledged.count(),
        secs: acknowledged.last().saturating_sub(begun).as_secs_f64(),
        capped: capped.map_or(Ok(true), |ended| ended.map(|()| false))?,
        ..Outcome::default()
    })
}

async fn drain(
    place: &Place,
    amount: Amount,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) -> anyhow::Result<Outcome> {
    let seen = Arc::new(Seen::new(amount.tasks));
    let stop = CancellationToken::new();
    begin();
    let mut workers = place.work(&seen, &stop)?;
    let capped = received(&seen, &mut workers, amount.limit).await?;
    let settled = settled(&stop, &mut workers).await?;
    end();
    // To connect is no part of it.
    Ok(outcome(&seen, seen.first(), settled, capped))
}

async fn pipe(
    place: &Place,
    amount: Amount,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) -> anyhow::Result<Outcome> {
    let seen = Arc::new(Seen::new(amount.tasks));
    let stop = CancellationToken::new();
    let mut workers = place.work(&seen, &stop)?;
    probe(place, &seen).await?;
    let (source, acknowledged) = (
        Arc::new(Source::closed(amount.tasks)),
        Arc::new(Acknowledged::default()),
    );
    begin();
    let begun = now();
    let mut producers = place.produce(&source, &acknowledged);
    let capped = received(&seen, &mut workers, amount.limit).await?;
    source.stop();
    all(&mut producers).await?;
    let settled = settled(&stop, &mut workers).await?;
    end();
    Ok(Outcome {
        sent: acknowledged.count(),
        ..outcome(&seen, begun, settled, capped)
    })
}

async fn latency(
    place: &Place,
    amount: Amount,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) -> anyhow::Result<Outcome> {
    let time = Duration::from_secs(amount.warm + amount.seconds);
    let stop = CancellationToken::new();
    // Probes go to workers that count nothing else, so that the measured ones begin with a moment.
    let warm = Arc::new(Seen::new(0));
    let mut first = place.work(&warm, &stop)?;
    probe(place, &warm).await?;
    stop.cancel();
    all(&mut first).await?;

    let stop = CancellationToken::new();
    let want = amount.rate * time.as_secs();
    let counts_from = now() + Duration::from_secs(amount.warm);
    let seen = Arc::new(Seen::with_latencies(want, counts_from)?);
    let mut workers = place.work(&seen, &stop)?;
    let acknowledged = Arc::new(Acknowledged::default());
    begin();
    let begun = now();
    let source = Arc::new(Source::open(amount.rate, time));
    let mut producers = place.produce(&source, &acknowledged);
    let capped = received(&seen, &mut workers, time + amount.limit).await?;
    let last = seen.last();
    if capped {
        producers.abort_all();
    } else {
        all(&mut producers).await?;
    }
    let settled = settled(&stop, &mut workers).await?;
    end();
    let keeps_up = !capped && last < begun + time + Duration::from_secs(2);
    let (count, latency) = seen
        .latencies(|micros| (micros.len(), Latency::of(micros, keeps_up)))
        .context("latencies were not kept: a bug")?;
    Ok(Outcome {
        sent: acknowledged.count(),
        count,
        latency: Some(latency),
        ..outcome(&seen, begun, settled, capped)
    })
}

async fn requests(
    place: &Place,
    amount: Amount,
    begin: impl FnOnce(),
    end: impl FnOnce(),
) -> anyhow::Result<Outcome> {
    let pipeline = place.http()?;
    let connections = place.load.connections;
    begin();
    let measured = tokio::task::spawn_blocking(move || http::measure(&pipeline, connections, amount)).await?;
    end();
    measured
}

fn outcome(seen: &Seen, begun: Duration, settled: Duration, capped: bool) -> Outcome {
    Outcome {
        count: seen.unique(),
        dups: seen.repeated(),
        secs: settled.saturating_sub(begun).as_secs_f64(),
        received_secs: seen.last().saturating_sub(begun).as_secs_f64(),
        capped,
        ..Outcome::default()
    }
}

/// Sends tasks that do not count until workers have them.
async fn probe(place: &Place, seen: &Seen) -> anyhow::Result<()> {
    let source = Arc::new(Source::probes(PROBES));
    all(&mut place.produce(&source, &Arc::default())).await?;
    timeout(SETTLING, seen.probes(PROBES))
        .await
        .context("workers receive nothing")
}

/// Waits until everything has come; whether that took too long.
async fn received(
    seen: &Seen,
    workers: &mut JoinSet<anyhow::Result<()>>,
    limit: Duration,
) -> anyhow::Result<bool> {
    tokio::select! {
        all = timeout(limit, seen.all()) => Ok(all.is_err()),
        Some(ended) = workers.join_next() => {
            ended??;
            anyhow::bail!("a worker ended by itself")
        }
    }
}

/// Lets workers end, with every report settled; when that was.
async fn settled(
    stop: &CancellationToken,
    workers: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Duration> {
    stop.cancel();
    timeout(SETTLING, all(workers))
        .await
        .context("reports are not settled")??;
    Ok(now())
}

async fn all(people: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = people.join_next().await {
        ended??;
    }
    Ok(())
}
