//! Which shards live here, as placement has said, for those who cannot wait for an actor's answer.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::port::log::Topic;
use scheduler_core::port::placement::{Placement, PlacementError, PlacementEvent};
use tokio::sync::watch;

/// The shards that live here: from their assignment until they are released or lost.
#[derive(Debug)]
pub(crate) struct Hosting {
    /// `None` for a node that is alone, where all of them do.
    shards: Option<RwLock<BTreeSet<ShardId>>>,
    changes: watch::Sender<u64>,
}

impl Hosting {
    pub(crate) fn alone() -> Self {
        Self {
            shards: None,
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn in_cluster() -> Self {
        Self {
            shards: Some(RwLock::default()),
            ..Self::alone()
        }
    }

    /// The placement, with an ear to what it says.
    pub(crate) fn follow(self: &Arc<Self>, placement: Arc<dyn Placement>) -> Arc<dyn Placement> {
        Arc::new(Followed {
            placement,
            hosting: self.clone(),
        })
    }

    pub(crate) fn has(&self, shard: ShardId) -> bool {
        self.read().is_none_or(|shards| shards.contains(&shard))
    }

    /// Those of a pipeline's partitions that are here, in order.
    pub(crate) fn partitions(&self, pipeline: PipelineId, of: u32) -> Vec<Partition> {
        let Some(shards) = self.read() else {
            return (0..of).map(Partition).collect();
        };
        let (first, last) = (Partition(0), Partition(u32::MAX));
        let here = shards.range(ShardId::new(pipeline, first)..=ShardId::new(pipeline, last));
        here.map(|shard| shard.partition)
            .filter(|partition| partition.0 < of)
            .collect()
    }

    /// Whether any shard of the pipeline is here.
    pub(crate) fn has_any(&self, pipeline: PipelineId) -> bool {
        let (first, last) = (Partition(0), Partition(u32::MAX));
        let all = ShardId::new(pipeline, first)..=ShardId::new(pipeline, last);
        self.read()
            .is_none_or(|shards| shards.range(all).next().is_some())
    }

    /// Sees every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until nothing lives here any more.
    pub(crate) async fn empty(&self) {
        let mut changes = self.changes();
        while self.read().is_some_and(|shards| !shards.is_empty()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn add(&self, added: &[ShardId]) {
        self.change(|shards| shards.extend(added.iter().copied()));
    }

    fn remove(&self, removed: &[ShardId]) {
        self.change(|shards| {
            for shard in removed {
                shards.remove(shard);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<ShardId>)) {
        if let Some(shards) = &self.shards {
            change(&mut shards.write().unwrap_or_else(PoisonError::into_inner));
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn read(&self) -> Option<RwLockReadGuard<'_, BTreeSet<ShardId>>> {
        let shards = self.shards.as_ref()?;
        Some(shards.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Placement, and who hears what it says.
#[derive(Debug)]
struct Followed {
    placement: Arc<dyn Placement>,
    hosting: Arc<Hosting>,
}

#[async_trait]
impl Placement for Followed {
    async fn set_topics(&self, topics: Vec<Topic>) -> Result<(), PlacementError> {
        self.placement.set_topics(topics).await
    }

    async fn next(&self) -> Result<PlacementEvent, PlacementError> {
        let event = self.placement.next().await?;
        match &event {
            PlacementEvent::Assigned(shards) => self.hosting.add(shards),
            // Until they are let go of, nobody else knows them.
            PlacementEvent::Revoked(_) => (),
            PlacementEvent::Lost(shards) => self.hosting.remove(shards),
        }
        Ok(event)
    }

    async fn released(&self, shards: &[ShardId]) -> Result<(), PlacementError> {
        self.hosting.remove(shards);
        self.placement.released(shards).await
    }
}
