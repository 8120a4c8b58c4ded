//! Which node owns which shard, as the store has it; remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scheduler_core::id::{NodeId, Partition, PipelineId};
use scheduler_core::port::cluster::ClusterStore;
use scheduler_core::port::store::StoreError;
use tokio::time::Instant;

/// How long owners are believed without being asked for. Who is asked in vain says so, and then they are looked up anew.
const BELIEVED: Duration = Duration::from_secs(5);
/// Looks at the owners of a pipeline's shards are at least so far apart.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// The owners of a pipeline's shards.
pub(crate) type Owners = Arc<BTreeMap<Partition, NodeId>>;

/// The routing table.
#[derive(Debug)]
pub(crate) struct Routes {
    store: Arc<dyn ClusterStore>,
    tables: Mutex<HashMap<PipelineId, Arc<Table>>>,
}

/// Held while the store is asked, so that one answer serves all who wait.
type Table = tokio::sync::Mutex<Option<(Instant, Owners)>>;

impl Routes {
    pub(crate) fn new(store: Arc<dyn ClusterStore>) -> Self {
        Self {
            store,
            tables: Mutex::default(),
        }
    }

    /// Who owns the pipeline's shards. What was read at `wrong` or before is not believed any more.
    pub(crate) async fn owners(
        &self,
        pipeline: PipelineId,
        wrong: Option<Instant>,
    ) -> Result<Owners, StoreError> {
        let table = {
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.entry(pipeline).or_default().clone()
        };
        let mut known = table.lock().await;
        if let Some((read_at, owners)) = &*known {
            if wrong.is_none_or(|wrong| *read_at > wrong) && read_at.elapsed() < BELIEVED {
                return Ok(owners.clone());
            }
            tokio::time::sleep_until(*read_at + LEAST_PAUSE).await;
        }
        let read_at = Instant::now();
        let owners = self.store.owners(pipeline).await?;
        let owners: BTreeMap<_, _> = owners
            .into_iter()
            .map(|owner| (owner.partition, owner.node))
            .collect();
        let owners = Arc::new(owners);
        *known = Some((read_at, owners.clone()));
        Ok(owners)
    }

    /// Forgets a pipeline that is gone.
    pub(crate) fn forget(&self, pipeline: PipelineId) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.remove(&pipeline);
    }
}
