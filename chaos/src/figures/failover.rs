//! A server is killed, again and again: how long until its shards are active elsewhere?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::Percentiles;
use crate::cast::Cast;
use crate::journal::{Activation, Journal};
use crate::ledger::{Happened, now};
use crate::node::SESSION;
use crate::options::Options;
use crate::plan::Fault;
use crate::report::Report;
use crate::scene::{Flow, Scene};

const FLOW: Flow = Flow {
    partitions: 12,
    longest: 30,
    over_http: 0.75,
};
/// What may come on top of Kafka's session timeout.
const GOAL: Duration = Duration::from_secs(2);
/// Between two looks into the logs; times are taken from what is written there.
const LOOK: Duration = Duration::from_millis(250);
/// How long shards may take to come to rest, or to come up elsewhere.
const PATIENCE: Duration = Duration::from_secs(90);
/// Nothing moves for so long when shards have come to rest.
const REST: u64 = 3_000;

/// How long it took.
#[derive(Clone, Debug)]
pub struct Failover {
    /// From the SIGKILL until a shard of the server was active elsewhere: of each shard.
    pub shards: Percentiles,
    /// The same until all of its shards were.
    pub servers: Percentiles,
    /// What came of all tasks.
    pub report: Report,
}

impl Failover {
    /// The longest that is meant to be, in milliseconds.
    pub fn goal() -> u64 {
        u64::try_from((SESSION + GOAL).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Kills servers in turn, so many times, under load.
///
/// # Errors
///
/// As [`run`](crate::run); or shards do not come up elsewhere.
pub async fn failover(options: &Options, kills: usize) -> anyhow::Result<Failover> {
    let nodes = options.stage.nodes();
    anyhow::ensure!(nodes > 1, "nodes: there is nobody to take over; take 2 or more");
    let scene = Scene::begin(options, FLOW).await?;
    let (mut shards, mut servers, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 0..kills {
        let victim = kill % nodes;
        let owned = at_rest(&scene.cast).await?;
        let owned: BTreeMap<u32, u32> = owned
            .into_iter()
            .filter(|activation| activation.process.0 == victim)
            .map(|activation| (activation.partition, activation.epoch))
            .collect();
        // Not always at the same moment of a heartbeat.
        sleep(Duration::from_millis(fastrand::u64(0..1_000))).await;
        let mut node = scene.cast.nodes[victim].lock().await;
        let from = now();
        node.kill().await?;
        drop(node);
        let took = elsewhere(&scene.cast, &owned, from).await?;
        crate::say(&format!(
            "server {victim} is killed; its shards are elsewhere after {took:?} ms"
        ));
        servers.extend(took.iter().max());
        shards.extend(took);
        scene.cast.nodes[victim].lock().await.begin().await?;
        faults.push(Happened {
            fault: Fault::KillServer(victim),
            from,
            to: now(),
        });
    }
    let title = format!("Failover: {kills} servers killed under {} tasks/s", options.rate);
    let again = format!("--release failover --kills {kills} --rate {}", options.rate);
    Ok(Failover {
        shards: Percentiles::of(shards),
        servers: Percentiles::of(servers),
        report: scene.end(title, &again, faults).await?.report,
    })
}

/// The newest activation of each partition.
async fn newest(cast: &Cast) -> anyhow::Result<BTreeMap<u32, Activation>> {
    let journal = Journal::read(&cast.logs().await)?;
    // Sorted by epoch, so the last one stays.
    let activations = journal.activations.into_iter();
    Ok(activations
        .map(|activation| (activation.partition, activation))
        .collect())
}

/// Waits until every server has shards and nothing moves; answers where they are.
async fn at_rest(cast: &Cast) -> anyhow::Result<Vec<Activation>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let newest = newest(cast).await?;
        let nodes: BTreeSet<usize> = newest.values().map(|activation| activation.process.0).collect();
        let last = newest.values().map(|activation| activation.at).max();
        if nodes.len() == cast.nodes.len() && last.is_some_and(|last| last + REST < now()) {
            return Ok(newest.into_values().collect());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "shards do not come to rest: {newest:?}"
        );
        sleep(LOOK).await;
    }
}

/// How long each of these partitions took to come up under a later epoch.
async fn elsewhere(cast: &Cast, owned: &BTreeMap<u32, u32>, from: u64) -> anyhow::Result<Vec<u64>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let journal = Journal::read(&cast.logs().await)?;
        let first = |(partition, epoch): (&u32, &u32)| {
            let later =
                |activation: &&Activation| activation.partition == *partition && activation.epoch > *epoch;
            journal.activations.iter().find(later).map(|next| next.at)
        };
        let times: Option<Vec<u64>> = owned
            .iter()
            .map(first)
            .map(|at| Some(at?.saturating_sub(from)))
            .collect();
        if let Some(times) = times {
            return Ok(times);
        }
        if Instant::now() > deadline {
            return None.with_context(|| format!("not all of {owned:?} came up elsewhere"));
        }
        sleep(LOOK).await;
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = Self::goal();
        writeln!(f, "{}", self.report)?;
        writeln!(
            f,
            "{} of {} shards were active elsewhere within {goal} ms, Kafka's session timeout and 2 s.\n",
            self.shards.within(goal),
            self.shards.count()
        )?;
        writeln!(
            f,
            "| milliseconds from SIGKILL until active elsewhere | count | p50 | p90 | p99 | longest |"
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        writeln!(f, "| each shard | {} |", self.shards)?;
        writeln!(f, "| all shards of a server | {} |", self.servers)
    }
}
