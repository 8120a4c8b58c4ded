//! What other nodes have changed in the catalog.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::PipelineId;
use scheduler_core::port::catalog::{CatalogError, Pipeline};
use scheduler_core::port::cluster::{CatalogChanges, CatalogVersion, Removed};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::Instant;
use tracing::warn;

use crate::api;
use crate::node::Inner;

/// Looks at the feed that are asked for out of turn are at least so far apart, whoever asks for what does not exist.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// How long the node that deletes a pipeline is left alone with it before another one ends what it may not have.
const ORPHANED: Duration = Duration::from_secs(10);

/// How much of the feed is taken in. Held for reading by writes of this node, so that an answer from before them does not undo them.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    taken: RwLock<CatalogVersion>,
    asked_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Feed {
    pub(crate) async fn turn(&self) -> RwLockReadGuard<'_, CatalogVersion> {
        self.taken.read().await
    }

    /// Takes in the whole catalog, for a start; answers its pipelines.
    pub(crate) async fn begin(&self, inner: &Inner, changes: CatalogChanges) -> Vec<Arc<Pipeline>> {
        *self.taken.write().await = changes.version;
        inner.directory.apply(&changes);
        changes.pipelines
    }

    /// Takes in what has changed, if that was not done since `seen`. One look serves all who ask meanwhile.
    pub(crate) async fn look_again(&self, inner: &Arc<Inner>, seen: Instant) -> Result<(), CatalogError> {
        let mut asked_at = self.asked_at.lock().await;
        if let Some(asked_at) = *asked_at {
            if asked_at > seen {
                return Ok(());
            }
            tokio::time::sleep_until(asked_at + LEAST_PAUSE).await;
        }
        *asked_at = Some(Instant::now());
        self.look(inner).await
    }

    async fn look(&self, inner: &Arc<Inner>) -> Result<(), CatalogError> {
        let Some(cluster) = &inner.cluster else {
            return Ok(());
        };
        let mut taken = self.taken.write().await;
        let changes = cluster.store.changes(*taken).await?;
        let version = changes.version;
        take_in(inner, changes).await;
        *taken = version;
        Ok(())
    }
}

impl Inner {
    /// Takes in what other nodes have changed just now. What is known stays known if that fails.
    pub(crate) async fn look_again(self: &Arc<Self>) {
        if let Err(problem) = self.refresh().await {
            warn!(
                error = &problem as &dyn Error,
                "what other nodes have changed is not known"
            );
        }
    }

    /// The same, for who has to know whether it is.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<(), CatalogError> {
        match &self.cluster {
            Some(cluster) => cluster.feed.look_again(self, Instant::now()).await,
            None => Ok(()),
        }
    }
}

async fn take_in(inner: &Arc<Inner>, changes: CatalogChanges) {
    inner.directory.apply(&changes);
    let mut is_placed = true;
    let mut gone: Vec<PipelineId> = Vec::new();
    for removed in &changes.removed {
        if let Removed::Pipeline(id) = removed {
            gone.push(*id);
        }
    }
    if changes.whole {
        let known = inner.directory.pipelines();
        let is_there = |id| changes.pipelines.iter().any(|pipeline| pipeline.id == id);
        gone.extend(
            known
                .iter()
                .map(|served| served.pipeline.id)
                .filter(|id| !is_there(*id)),
        );
    }
    for id in gone {
        if let Some(served) = inner.directory.unserve(id) {
            served.mailbox.stop().await;
            is_placed = false;
        }
        if let Some(cluster) = &inner.cluster {
            cluster.routes.forget(id);
        }
    }
    for pipeline in changes.pipelines {
        let (served, before) = inner.serve(pipeline.clone()).await;
        if before
            .as_ref()
            .is_some_and(|before| before.pipeline.version >= pipeline.version)
        {
            continue;
        }
        let topics_changed = before
            .as_ref()
            .is_none_or(|before| before.pipeline.partitions != pipeline.partitions);
        is_placed &= !(topics_changed || pipeline.deleting);
        if pipeline.deleting {
            let (weak, served) = (Arc::downgrade(inner), served.clone());
            inner.spawn_background(async move {
                if let Some(inner) = weak.upgrade() {
                    api::let_go(&inner, &served).await;
                }
            });
        } else if before.is_some_and(|before| {
            before.pipeline.deployment != pipeline.deployment
                || before.pipeline.definition != pipeline.definition
        }) {
            inner.deploy(&served.pipeline).await;
        }
    }
    if !is_placed {
        // Not waited for: placement may be away, and the catalog goes on.
        let weak = Arc::downgrade(inner);
        inner.spawn_background(async move {
            if let Some(inner) = weak.upgrade() {
                inner.place().await;
            }
        });
    }
}

/// Follows the feed, and ends deletions that the node which began them did not.
pub(crate) fn follow(inner: &Arc<Inner>, every: Duration) -> impl Future<Output = ()> + Send + use<> {
    let inner = Arc::downgrade(inner);
    async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deleting: HashMap<PipelineId, Instant> = HashMap::new();
        loop {
            ticks.tick().await;
            let Some(inner) = inner.upgrade() else { return };
            let Some(cluster) = &inner.cluster else { return };
            if let Err(problem) = cluster.feed.look_again(&inner, Instant::now()).await {
                warn!(
                    error = &problem as &dyn Error,
                    "what other nodes have changed is not known"
                );
                continue;
            }
            deleting.retain(|id, _| inner.directory.by_id(*id).is_some());
            let is_first = cluster.members.all().keys().next() == Some(&cluster.members.me.id);
            for served in inner.directory.pipelines() {
                if !served.pipeline.deleting {
                    continue;
                }
                let since = deleting.entry(served.pipeline.id).or_insert_with(Instant::now);
                if is_first && since.elapsed() >= ORPHANED {
                    *since = Instant::now();
                    api::finish_deletion(&inner, &served.pipeline);
                }
            }
        }
    }
}
