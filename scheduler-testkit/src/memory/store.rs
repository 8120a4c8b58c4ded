//! Checkpoints and archive in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, Epoch, NodeId, Offset, PipelineId, ShardId, TaskId, Tenure};
use scheduler_core::key::{KeyHash, SeenKey};
use scheduler_core::outcome::{DeadTask, FinishedTask, ParkedTask};
use scheduler_core::port::cluster::Owner;
use scheduler_core::port::store::{Archive, CheckpointStore, Claimed, PreviousOwner, Saved, StoreError};
use scheduler_core::time::Timestamp;

use super::catalog::CatalogState;
use super::cluster::Members;
use super::lock;

/// The [`CheckpointStore`], [`Archive`], [`Catalog`](scheduler_core::port::catalog::Catalog) and
/// [`ClusterStore`](scheduler_core::port::cluster::ClusterStore) in memory. Clones share it, as nodes of a cluster do.
///
/// Members expire by tokio's clock, which a test may pause and advance.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    pub(super) catalog: Arc<Mutex<CatalogState>>,
    pub(super) members: Arc<Mutex<Members>>,
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, ShardState>,
}

#[derive(Debug, Default)]
struct ShardState {
    epoch: Epoch,
    node: Option<NodeId>,
    released: bool,
    checkpoint: CheckpointId,
    barren_epochs: u32,
    resume: Offset,
    state: Bytes,
    results: BTreeMap<Offset, (Timestamp, FinishedTask)>,
    dead: BTreeMap<Offset, (Timestamp, DeadTask)>,
    parked: BTreeMap<Offset, ParkedTask>,
    keys: BTreeMap<KeyHash, SeenKey>,
    parked_by_time: BTreeSet<(Timestamp, Offset)>,
}

impl ShardState {
    fn unpark(&mut self, offset: Offset) {
        if let Some(task) = self.parked.remove(&offset) {
            self.parked_by_time.remove(&(task.wake_at, offset));
        }
    }

    fn apply(&mut self, checkpoint: &Checkpoint) {
        self.checkpoint = checkpoint.id;
        self.resume = checkpoint.resume;
        self.state = checkpoint.state.clone();
        for task in &checkpoint.finished {
            self.results
                .insert(task.offset, (checkpoint.expire_results, task.clone()));
        }
        for offset in &checkpoint.revived {
            self.dead.remove(offset);
        }
        for task in &checkpoint.dead {
            self.dead
                .insert(task.offset, (checkpoint.expire_dead, task.clone()));
        }
        self.keys
            .extend(checkpoint.keys.iter().map(|key| (key.hash, *key)));
        for &offset in &checkpoint.unparked {
            self.unpark(offset);
        }
        for task in &checkpoint.parked {
            self.unpark(task.offset);
            self.parked_by_time.insert((task.wake_at, task.offset));
            self.parked.insert(task.offset, task.clone());
        }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Who owns the shards of a pipeline, by partition.
    pub(super) fn owned(&self, pipeline: PipelineId) -> Vec<Owner> {
        let state = lock(&self.state);
        let of_it = state
            .shards
            .iter()
            .filter(|(shard, row)| shard.pipeline == pipeline && !row.released);
        of_it
            .filter_map(|(shard, row)| {
                Some(Owner {
                    partition: shard.partition,
                    node: row.node?,
                    epoch: row.epoch,
                })
            })
            .collect()
    }

    fn look<T>(&self, shard: ShardId, look: impl FnOnce(&ShardState) -> T) -> Option<T> {
        lock(&self.state).shards.get(&shard).map(look)
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn claim(&self, shard: ShardId, node: NodeId) -> Result<Claimed, StoreError> {
        let mut state = lock(&self.state);
        let row = state.shards.entry(shard).or_default();
        let previous = match (row.epoch, row.released) {
            (Epoch(0), _) => PreviousOwner::None,
            (_, true) => PreviousOwner::Released,
            (_, false) => PreviousOwner::Vanished,
        };
        let is_barren = previous == PreviousOwner::Vanished && row.checkpoint == CheckpointId::default();
        row.barren_epochs = match (is_barren, row.node == Some(node)) {
            // It lives, and has not heard the answer to its last claim.
            (true, true) => row.barren_epochs,
            (true, false) => row.barren_epochs + 1,
            (false, _) => 0,
        };
        row.epoch = Epoch(row.epoch.0 + 1);
        row.node = Some(node);
        row.released = false;
        row.checkpoint = CheckpointId::default();
        Ok(Claimed {
            epoch: row.epoch,
            previous,
            resume: row.resume,
            state: row.state.clone(),
            barren_epochs: row.barren_epochs,
        })
    }

    async fn save(&self, checkpoints: &[&Checkpoint]) -> Result<Vec<Saved>, StoreError> {
        let mut state = lock(&self.state);
        let save = |checkpoint: &&Checkpoint| {
            let Tenure { shard, epoch } = checkpoint.tenure;
            let Some(row) = state.shards.get_mut(&shard) else {
                return Saved::Fenced { stored: Epoch(0) };
            };
            if row.epoch != epoch || row.released {
                return Saved::Fenced { stored: row.epoch };
            }
            if checkpoint.id >= row.checkpoint {
                row.apply(checkpoint);
            }
            Saved::Done
        };
        Ok(checkpoints.iter().map(save).collect())
    }

    async fn release(&self, tenure: Tenure) -> Result<(), StoreError> {
        if let Some(row) = lock(&self.state).shards.get_mut(&tenure.shard)
            && row.epoch == tenure.epoch
        {
            row.released = true;
        }
        Ok(())
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        Ok(self.look(shard, |row| row.epoch).unwrap_or(Epoch(0)))
    }

    async fn parked(
        &self,
        shard: ShardId,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        let from = after.map_or(Unbounded, Excluded);
        let last = (until, Offset(u64::MAX));
        if after.is_some_and(|after| after >= last) {
            return Ok(Vec::new());
        }
        let parked = self.look(shard, |row| {
            let due = row.parked_by_time.range((from, Included(last))).take(limit);
            due.filter_map(|(_, offset)| row.parked.get(offset).cloned())
                .collect()
        });
        Ok(parked.unwrap_or_default())
    }

    async fn keys(&self, shard: ShardId, limit: usize) -> Result<Vec<SeenKey>, StoreError> {
        Ok(self
            .look(shard, |row| row.keys.values().take(limit).copied().collect())
            .unwrap_or_default())
    }

    async fn parked_task(&self, id: TaskId) -> Result<Option<ParkedTask>, StoreError> {
        Ok(self
            .look(id.shard, |row| row.parked.get(&id.offset).cloned())
            .flatten())
    }

    async fn forget(&self, pipeline: PipelineId) -> Result<(), StoreError> {
        lock(&self.state)
            .shards
            .retain(|shard, _| shard.pipeline != pipeline);
        Ok(())
    }
}

#[async_trait]
impl Archive for MemoryStore {
    async fn result(&self, id: TaskId) -> Result<Option<FinishedTask>, StoreError> {
        Ok(self
            .look(id.shard, |row| {
                row.results.get(&id.offset).map(|(_, task)| task.clone())
            })
            .flatten())
    }

    async fn results(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<FinishedTask>, StoreError> {
        let newest = |row: &ShardState| {
            row.results
                .range(..before)
                .rev()
                .take(limit)
                .map(|(_, (_, task))| task.clone())
                .collect()
        };
        Ok(self.look(shard, newest).unwrap_or_default())
    }

    async fn dead_task(&self, id: TaskId) -> Result<Option<DeadTask>, StoreError> {
        Ok(self
            .look(id.shard, |row| {
                row.dead.get(&id.offset).map(|(_, task)| task.clone())
            })
            .flatten())
    }

    async fn dead_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<DeadTask>, StoreError> {
        let newest = |row: &ShardState| {
            row.dead
                .range(..before)
                .rev()
                .take(limit)
                .map(|(_, (_, task))| task.clone())
                .collect()
        };
        Ok(self.look(shard, newest).unwrap_or_default())
    }

    async fn dead_count(&self, pipeline: PipelineId) -> Result<u64, StoreError> {
        let state = lock(&self.state);
        let of_it = state
            .shards
            .iter()
            .filter(|(shard, _)| shard.pipeline == pipeline);
        Ok(of_it.map(|(_, row)| row.dead.len() as u64).sum())
    }

    async fn parked_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        let newest = |row: &ShardState| {
            row.parked
                .range(..before)
                .rev()
                .take(limit)
                .map(|(_, task)| task.clone())
                .collect()
        };
        Ok(self.look(shard, newest).unwrap_or_default())
    }

    async fn purge(&self, ids: &[TaskId]) -> Result<u64, StoreError> {
        let mut state = lock(&self.state);
        let purged = ids.iter().filter(|id| {
            state
                .shards
                .get_mut(&id.shard)
                .is_some_and(|row| row.dead.remove(&id.offset).is_some())
        });
        Ok(purged.count() as u64)
    }

    async fn expire(&self, now: Timestamp) -> Result<bool, StoreError> {
        for row in lock(&self.state).shards.values_mut() {
            row.results
                .retain(|_, (expires, _)| *expires > now || *expires == Timestamp::MAX);
            row.dead
                .retain(|_, (expires, _)| *expires > now || *expires == Timestamp::MAX);
            row.keys.retain(|_, key| key.expires_at > now);
        }
        Ok(false)
    }
}
