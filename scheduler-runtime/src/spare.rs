//! Who is to stay when there are going to be fewer workers.

use std::time::Duration;

use scheduler_core::port::BoxError;
use scheduler_core::port::deploy::{BusyWorker, Deployer};
use scheduler_core::port::gateway::ApiError;
use tracing::warn;

use crate::cluster::ClusterNode;
use crate::directory::Served;
use crate::node::Node;

/// Fewer workers are wanted in any case: they wait no longer for it to be known who is busy.
const LONGEST: Duration = Duration::from_secs(2);

impl Node {
    /// Which workers of a pipeline have tasks, on all nodes.
    async fn busy(&self, served: &Served) -> Result<Vec<BusyWorker>, ApiError> {
        match &self.inner.cluster {
            Some(cluster) => {
                let cluster = ClusterNode::of(self.inner.clone(), cluster.clone());
                cluster.busy(served).await
            }
            None => self.local().busy_here(served).await,
        }
    }

    /// Has the deployer let busy workers go last, if there are more than `workers`; than are busy, if nothing is said.
    ///
    /// Without it nothing is lost: who has to go ends its tasks first, as far as there is time, and what is left is another worker's.
    pub(crate) async fn spare(&self, served: &Served, workers: Option<u32>) {
        let pipeline = &served.pipeline;
        let (Some(deployer), Some(deployment)) = (&self.inner.deployer, &pipeline.deployment) else {
            return;
        };
        let told = self.tell_busy(&**deployer, served, workers, deployment.replicas.min);
        let told = tokio::time::timeout(LONGEST, told).await;
        let problem = match told {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_) => "it takes too long".into(),
        };
        warn!(pipeline = %pipeline.path, error = &*problem as &dyn std::error::Error, "busy workers are not spared");
    }

    async fn tell_busy(
        &self,
        deployer: &dyn Deployer,
        served: &Served,
        workers: Option<u32>,
        least: u32,
    ) -> Result<(), BoxError> {
        let busy = self.busy(served).await?;
        let count = u32::try_from(busy.len()).unwrap_or(u32::MAX);
        let workers = workers.unwrap_or_else(|| count.max(least));
        deployer.spare(served.pipeline.id, workers, &busy).await?;
        Ok(())
    }
}
