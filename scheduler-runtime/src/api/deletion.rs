//! Deleting a pipeline: marked first, so that whatever happens then, somebody brings it to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::catalog::{CatalogError, Pipeline};
use scheduler_core::port::deploy::Deployer;
use scheduler_core::port::gateway::ApiError;
use scheduler_core::port::log::TaskLog;
use tokio::time::Instant;
use tracing::{error as log_error, info, warn};

use super::{LocalNode, error};
use crate::directory::Served;
use crate::node::{Inner, Store, release};
use crate::retry::until_done;

/// How long other nodes have to let go of a pipeline before its log and its rows are deleted all the same: what they save then is fenced.
const LET_GO: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

impl LocalNode {
    pub(super) async fn remove_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        let served = self.served(path)?;
        let pipeline = Pipeline {
            deleting: true,
            ..(*served.pipeline).clone()
        };
        // From here on a crash is finished by the next start, or by another node.
        let served = self.put(pipeline).await.map_err(error::of_catalog)?;
        let inner = &self.inner;
        let_go(inner, &served).await;
        delete_all(inner, &served.pipeline).await?;
        info!(pipeline = %path, "pipeline is deleted");
        Ok(())
    }
}

/// Ends what lives here of a pipeline that is being deleted.
pub(crate) async fn let_go(inner: &Inner, served: &Arc<Served>) {
    if inner.cluster.is_some() {
        // So that the others see that nobody has it any more.
        let released = release(served.clone());
        if tokio::time::timeout(inner.config.patience, released)
            .await
            .is_err()
        {
            warn!(pipeline = %served.pipeline.path, "a pipeline that is being deleted is not released");
        }
    }
    // Nothing of it is to be saved any more: workers, waiters and shards are let go of as they are.
    served.mailbox.stop().await;
    inner.place().await;
}

/// Deletes everything of a pipeline whose actor has ended; done again after a crash in the middle.
async fn delete_all(inner: &Inner, pipeline: &Pipeline) -> Result<(), ApiError> {
    others_let_go(inner, pipeline.id).await;
    let (deployer, log, store) = (inner.deployer.clone(), inner.log.clone(), inner.store.clone());
    delete(deployer, log, store, pipeline).await?;
    inner.directory.unserve(pipeline.id);
    Ok(())
}

/// Waits until no node that lives owns a shard of the pipeline.
async fn others_let_go(inner: &Inner, id: PipelineId) {
    let Some(cluster) = &inner.cluster else { return };
    let deadline = Instant::now() + LET_GO;
    while Instant::now() < deadline {
        let owners = cluster.store.owners(id).await.unwrap_or_default();
        let owners: BTreeSet<_> = owners.into_iter().map(|owner| owner.node).collect();
        if !owners.into_iter().any(|node| cluster.is_member(node)) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    warn!(
        pipeline = id.0,
        "a node does not let go of a pipeline that is being deleted"
    );
}

async fn delete(
    deployer: Option<Arc<dyn Deployer>>,
    log: Arc<dyn TaskLog>,
    store: Arc<dyn Store>,
    pipeline: &Pipeline,
) -> Result<(), ApiError> {
    let id = pipeline.id;
    if let Some(deployer) = deployer {
        until_done("ending workers", || deployer.remove(id, &pipeline.path))
            .await
            .map_err(error::of_deploy)?;
    }
    until_done("deleting a log", || log.delete(id))
        .await
        .map_err(error::of_log)?;
    until_done("forgetting a pipeline", || store.forget(id))
        .await
        .map_err(error::of_store)?;
    match until_done("removing a pipeline", || store.remove_pipeline(id)).await {
        Ok(()) | Err(CatalogError::NotFound { .. }) => Ok(()),
        Err(problem) => Err(error::of_catalog(problem)),
    }
}

/// Ends a deletion that an earlier run of the node, or another node, began.
pub(crate) fn finish_deletion(inner: &Arc<Inner>, pipeline: &Pipeline) {
    let (weak, pipeline) = (Arc::downgrade(inner), pipeline.clone());
    inner.spawn_background(async move {
        let Some(inner) = weak.upgrade() else { return };
        let path = &pipeline.path;
        match delete_all(&inner, &pipeline).await {
            Ok(()) => info!(pipeline = %path, "pipeline is deleted"),
            Err(problem) => {
                log_error!(pipeline = %path, error = &problem as &dyn std::error::Error, "pipeline is not deleted; the next start tries again");
            }
        }
    });
}
