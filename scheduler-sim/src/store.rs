//! The store, as its contract says: claims by compare-and-set, atomic saves with fencing, rows by time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, Epoch, NodeId, Offset, Partition, Tenure};
use scheduler_core::key::SeenKey;
use scheduler_core::outcome::{DeadTask, FinishedTask, ParkedTask};
use scheduler_core::port::store::{Claimed, PreviousOwner, Saved};
use scheduler_core::time::Timestamp;

/// Everything that is stored. No fault happens here: calls reach it late, twice or not at all.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) shards: BTreeMap<Partition, ShardRows>,
}

/// What is stored of one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardRows {
    pub(crate) epoch: u32,
    owner: Option<NodeId>,
    released: bool,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) barren: u32,
    pub(crate) resume: Offset,
    state: Bytes,
    pub(crate) results: BTreeMap<Offset, FinishedTask>,
    pub(crate) dead: BTreeMap<Offset, DeadTask>,
    pub(crate) parked: BTreeMap<Offset, ParkedTask>,
    pub(crate) keys: Vec<SeenKey>,
    by_time: BTreeSet<(Timestamp, Offset)>,
}

impl Store {
    pub(crate) fn shard(&mut self, partition: Partition) -> &mut ShardRows {
        self.shards.entry(partition).or_default()
    }

    pub(crate) fn claim(&mut self, partition: Partition, node: NodeId) -> Claimed {
        let rows = self.shard(partition);
        let previous = match rows.owner {
            None => PreviousOwner::None,
            Some(_) if rows.released => PreviousOwner::Released,
            Some(_) => PreviousOwner::Vanished,
        };
        let is_barren = previous == PreviousOwner::Vanished && rows.checkpoint == CheckpointId::default();
        rows.barren = match rows.owner {
            // It has not heard the answer, and claims again.
            Some(owner) if is_barren && owner == node => rows.barren,
            _ if is_barren => rows.barren + 1,
            _ => 0,
        };
        rows.epoch += 1;
        rows.owner = Some(node);
        rows.released = false;
        rows.checkpoint = CheckpointId::default();
        Claimed {
            epoch: Epoch(rows.epoch),
            previous,
            resume: rows.resume,
            state: rows.state.clone(),
            barren_epochs: rows.barren,
        }
    }

    /// Saves one checkpoint of a transaction; whether it is news.
    pub(crate) fn save(&mut self, checkpoint: &Arc<Checkpoint>) -> (Saved, bool) {
        let rows = self.shard(checkpoint.tenure.shard.partition);
        if checkpoint.tenure.epoch != Epoch(rows.epoch) || rows.released {
            return (
                Saved::Fenced {
                    stored: Epoch(rows.epoch),
                },
                false,
            );
        }
        if checkpoint.id <= rows.checkpoint {
            return (Saved::Done, false);
        }
        rows.checkpoint = checkpoint.id;
        rows.resume = checkpoint.resume;
        rows.state = checkpoint.state.clone();
        for task in &checkpoint.finished {
            rows.results.insert(task.offset, task.clone());
        }
        for offset in &checkpoint.revived {
            rows.dead.remove(offset);
        }
        for task in &checkpoint.dead {
            rows.dead.insert(task.offset, task.clone());
        }
        rows.keys.extend(&checkpoint.keys);
        for offset in &checkpoint.unparked {
            rows.unpark(*offset);
        }
        for task in &checkpoint.parked {
            rows.unpark(task.offset);
            rows.by_time.insert((task.wake_at, task.offset));
            rows.parked.insert(task.offset, task.clone());
        }
        (Saved::Done, true)
    }

    /// Who claimed a shard last, and has not released it.
    pub(crate) fn owner(&self, partition: Partition) -> Option<NodeId> {
        let rows = self.shards.get(&partition)?;
        rows.owner.filter(|_| !rows.released)
    }

    pub(crate) fn release(&mut self, tenure: Tenure) {
        let rows = self.shard(tenure.shard.partition);
        if tenure.epoch == Epoch(rows.epoch) {
            rows.released = true;
        }
    }

    pub(crate) fn page(
        &mut self,
        partition: Partition,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        limit: usize,
    ) -> Vec<ParkedTask> {
        let rows = self.shard(partition);
        let from = after.map_or((Timestamp::ZERO, Offset::ZERO), |(at, offset)| {
            (at, offset.next())
        });
        let keys = rows.by_time.range(from..).copied();
        let due = keys.take_while(|(at, _)| *at <= until).take(limit);
        due.filter_map(|(_, offset)| rows.parked.get(&offset).cloned())
            .collect()
    }
}

impl ShardRows {
    fn unpark(&mut self, offset: Offset) {
        if let Some(task) = self.parked.remove(&offset) {
            self.by_time.remove(&(task.wake_at, offset));
        }
    }

    /// Whether the store says that the task has ended.
    pub(crate) fn has_ended(&self, offset: Offset) -> bool {
        self.results.contains_key(&offset) || self.dead.contains_key(&offset)
    }
}
