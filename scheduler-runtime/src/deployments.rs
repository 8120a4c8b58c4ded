//! Who deploys: a node that is alone all pipelines, one of a cluster those whose partition 0 lives on it.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::deploy::{Deployer, Wanted};
use tokio::sync::Mutex;
use tracing::{error, info};

use crate::node::{Inner, Node};
use crate::retry::{Failure as _, until_done};

/// What this node of a cluster has deployed. Held while the deployer is told, so that it hears things in the order in which they happened.
#[derive(Debug, Default)]
pub(crate) struct Deployments {
    here: Mutex<HashSet<PipelineId>>,
}

impl Inner {
    /// Whether this node deploys and scales the pipeline.
    pub(crate) fn deploys(&self, pipeline: PipelineId) -> bool {
        self.hosting.has(ShardId::new(pipeline, Partition(0)))
    }

    /// Says what is wanted of the pipeline's workers, if that is up to this node; again and again, if the deployer is away.
    pub(crate) async fn deploy(self: &Arc<Self>, pipeline: &Pipeline) {
        let (Some(deployer), Some(deployment)) = (&self.deployer, &pipeline.deployment) else {
            return;
        };
        let wanted = Wanted {
            pipeline: pipeline.id,
            path: pipeline.path.clone(),
            version: pipeline.version,
            deployment: deployment.clone(),
            definition: pipeline.definition.clone(),
        };
        // Its bounds may have become narrower.
        let is_change = self.deployments.here.lock().await.contains(&pipeline.id);
        if let Some(served) = self.directory.by_id(pipeline.id).filter(|_| is_change) {
            let most = deployment.replicas.max;
            Node::of(self.clone()).spare(&served, Some(most)).await;
        }
        let applied = {
            let mut here = self.deployments.here.lock().await;
            if !self.is_wanted(&wanted) {
                return;
            }
            here.insert(pipeline.id);
            deployer.apply(wanted.clone()).await
        };
        let Err(problem) = applied else {
            return;
        };
        error!(pipeline = %pipeline.path, error = &problem as &dyn std::error::Error, "workers are not deployed");
        if problem.passes() {
            self.spawn_background(again(Arc::downgrade(self), deployer.clone(), wanted));
        }
    }

    /// Whether it is this node that is to deploy it, and just so.
    fn is_wanted(&self, wanted: &Wanted) -> bool {
        let served = self.directory.by_id(wanted.pipeline);
        self.deploys(wanted.pipeline)
            && served
                .is_some_and(|served| served.pipeline.version == wanted.version && !served.pipeline.deleting)
    }
}

/// Deploys what could not be deployed, unless something else is wanted meanwhile.
async fn again(inner: Weak<Inner>, deployer: Arc<dyn Deployer>, wanted: Wanted) {
    let deploy = || async {
        let Some(inner) = inner.upgrade() else {
            return Ok(());
        };
        let _in_order = inner.deployments.here.lock().await;
        if inner.is_wanted(&wanted) {
            deployer.apply(wanted.clone()).await
        } else {
            Ok(())
        }
    };
    if let Err(problem) = until_done("deploying workers", deploy).await {
        error!(pipeline = %wanted.path, error = &problem as &dyn std::error::Error, "workers are not deployed");
    }
}

/// Deploys the pipelines whose partition 0 comes here, and hands over those whose partition 0 goes.
pub(crate) fn follow(inner: &Arc<Inner>) -> impl Future<Output = ()> + Send + use<> {
    let (mut changes, deployer) = (inner.hosting.changes(), inner.deployer.clone());
    let inner = Arc::downgrade(inner);
    async move {
        let Some(deployer) = deployer else { return };
        while changes.changed().await.is_ok() {
            let Some(inner) = inner.upgrade() else { return };
            let gone: Vec<_> = {
                let here = inner.deployments.here.lock().await;
                here.iter().copied().filter(|id| !inner.deploys(*id)).collect()
            };
            for id in gone {
                hand_over(&inner, &*deployer, id).await;
            }
            for served in inner.directory.pipelines() {
                let pipeline = &served.pipeline;
                if pipeline.deployment.is_some()
                    && inner.deploys(pipeline.id)
                    && !inner.deployments.here.lock().await.contains(&pipeline.id)
                {
                    inner.deploy(pipeline).await;
                }
            }
        }
    }
}

async fn hand_over(inner: &Inner, deployer: &dyn Deployer, id: PipelineId) {
    let mut here = inner.deployments.here.lock().await;
    if inner.deploys(id) || !here.remove(&id) {
        return;
    }
    match deployer.hand_over(id).await {
        Ok(()) => info!(pipeline = id.0, "workers are another node's"),
        Err(problem) => {
            // Tried again when the next shard comes or goes.
            here.insert(id);
            error!(
                pipeline = id.0,
                error = &problem as &dyn std::error::Error,
                "workers are not handed over"
            );
        }
    }
}
