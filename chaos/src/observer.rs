//! Looks at the table of shards all the time: epochs and checkpoints only rise, and an epoch has one node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{MySqlPool, Row as _};
use tokio_util::task::AbortOnDropHandle;

use crate::journal::Journal;
use crate::node::CLUSTER;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// A look that takes longer is given up: TiDB may be stopped.
const PATIENCE: Duration = Duration::from_secs(5);

const SHARDS: &str =
    "SELECT pipeline, partition_no, epoch, HEX(node) AS node, checkpoint, resume_offset FROM shard";
const SEGMENTS: &str = "SELECT DISTINCT partition_no, epoch FROM result_segment";

/// A row of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    epoch: u32,
    node: String,
    checkpoint: u64,
    resume: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sightings {
    /// Looks that were answered.
    pub looks: u64,
    /// Owners that were seen, over all shards.
    pub owners: u64,
    /// What must not be.
    pub problems: Vec<String>,
    last: BTreeMap<(u32, u32), Seen>,
}

impl Sightings {
    fn take(&mut self, shard: (u32, u32), new: Seen) {
        let before = self.last.get(&shard);
        if before.is_none_or(|before| before.epoch != new.epoch) {
            self.owners += 1;
        }
        let problem = before.and_then(|before| {
            let is_same = before.epoch == new.epoch;
            if before.epoch > new.epoch {
                Some("its epoch went back")
            } else if is_same && before.node != new.node {
                Some("its epoch has two nodes")
            } else if is_same && before.checkpoint > new.checkpoint {
                Some("its checkpoint went back")
            } else if before.resume > new.resume {
                Some("its resume offset went back")
            } else {
                None
            }
        });
        if let Some(problem) = problem {
            self.problems
                .push(format!("shard {shard:?}: {problem}: {before:?}, then {new:?}"));
        }
        self.last.insert(shard, new);
    }
}

#[derive(Debug)]
pub(crate) struct Observer {
    pool: MySqlPool,
    sightings: Arc<Mutex<Sightings>>,
    task: AbortOnDropHandle<()>,
}

impl Observer {
    /// Begins to look, past all links.
    pub(crate) fn start(tidb: &str) -> anyhow::Result<Self> {
        let options = tidb.parse::<MySqlConnectOptions>()?.database(CLUSTER);
        let pool = MySqlPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options);
        let sightings = Arc::<Mutex<Sightings>>::default();
        let task = tokio::spawn(look(pool.clone(), Arc::clone(&sightings)));
        Ok(Self {
            pool,
            sightings,
            task: AbortOnDropHandle::new(task),
        })
    }

    /// Ends looking. Results must have been saved in epochs in which somebody says it saved.
    pub(crate) async fn end(self, journal: &Journal) -> anyhow::Result<Sightings> {
        drop(self.task);
        let segments = sqlx::query(SEGMENTS).fetch_all(&self.pool).await?;
        let mut sightings = self
            .sightings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for row in segments {
            let (partition, epoch): (u32, u32) = (row.try_get(0)?, row.try_get(1)?);
            if !journal.has_saved(partition, epoch) && journal.activation(partition, epoch).is_none() {
                sightings.problems.push(format!(
                    "results of partition {partition} are of epoch {epoch}, which nobody owned"
                ));
            }
        }
        Ok(sightings)
    }
}

async fn look(pool: MySqlPool, sightings: Arc<Mutex<Sightings>>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let rows = tokio::time::timeout(PATIENCE, sqlx::query(SHARDS).fetch_all(&pool)).await;
        // Away, or there are no tables yet.
        let Ok(Ok(rows)) = rows else { continue };
        let mut sightings = sightings.lock().unwrap_or_else(PoisonError::into_inner);
        sightings.looks += 1;
        for row in rows {
            let read = || -> sqlx::Result<_> {
                let shard = (row.try_get(0)?, row.try_get(1)?);
                let seen = Seen {
                    epoch: row.try_get(2)?,
                    node: row.try_get(3)?,
                    checkpoint: row.try_get(4)?,
                    resume: row.try_get(5)?,
                };
                Ok((shard, seen))
            };
            match read() {
                Ok((shard, seen)) => sightings.take(shard, seen),
                Err(problem) => sightings
                    .problems
                    .push(format!("the table of shards cannot be read: {problem}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rows: &[(u32, &str, u64, u64)]) -> Sightings {
        let mut sightings = Sightings::default();
        for (epoch, node, checkpoint, resume) in rows {
            let seen = Seen {
                epoch: *epoch,
                node: (*node).to_owned(),
                checkpoint: *checkpoint,
                resume: *resume,
            };
            sightings.take((1, 0), seen);
        }
        sightings
    }

    #[test]
    fn what_rises_is_well() {
        let sightings = after(&[(1, "a", 1, 0), (1, "a", 2, 7), (2, "b", 2, 7), (2, "b", 3, 9)]);
        assert_eq!(sightings.problems, Vec::<String>::new());
        assert_eq!(sightings.owners, 2);
    }

    #[test]
    fn what_goes_back_or_has_two_owners_is_not() {
        for (rows, named) in [
            ([(2, "a", 1, 0), (1, "b", 1, 0)], "epoch went back"),
            ([(2, "a", 1, 0), (2, "b", 1, 0)], "two nodes"),
            ([(2, "a", 4, 0), (2, "a", 3, 0)], "checkpoint went back"),
            ([(2, "a", 4, 9), (3, "a", 4, 8)], "resume offset went back"),
        ] {
            let problems = after(&rows).problems;
            assert!(problems[0].contains(named), "{problems:?}");
        }
    }
}
