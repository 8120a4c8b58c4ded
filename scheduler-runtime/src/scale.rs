//! Scales each deployment on the work that waits, and tells of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::deploy::{Deployer, RolloutPhase};
use scheduler_core::port::gateway::{ApiError, PipelineLoad, Queues};
use scheduler_core::scaling::{Load, Pace, Scaler, ScalingPolicy};
use scheduler_core::time::Timestamp;
use tracing::{info, warn};

use crate::cluster::ClusterNode;
use crate::directory::Served;
use crate::node::Node;

/// How often the load of deployments is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How often it is looked who is busy, where something else takes workers away without telling.
const SPARE_EVERY: Duration = Duration::from_secs(5);

/// Loads that are asked for at once for the metric.
const QUEUES_AT_ONCE: usize = 16;

/// One deployment.
struct Scaled {
    bounds: Replicas,
    scaler: Scaler,
    pace: Pace,
    workers: u32,
    /// Whether it is known how many workers were there when we came: an earlier node may have left more than the least.
    is_adopted: bool,
    /// When it was last said who is busy.
    spared: Option<Timestamp>,
}

impl Scaled {
    fn new(bounds: Replicas) -> Self {
        Self {
            bounds,
            scaler: Scaler::new(ScalingPolicy::default(), bounds, bounds.min),
            pace: Pace::default(),
            workers: bounds.min,
            is_adopted: false,
            spared: None,
        }
    }

    /// Takes over what is there, once that is known: before it has come up somewhere, a number says nothing.
    async fn adopt(&mut self, deployer: &dyn Deployer, pipeline: PipelineId) {
        let Ok(Some(there)) = deployer.rollout(pipeline).await else {
            return;
        };
        if there.phase != RolloutPhase::Ready && there.ready == 0 {
            return;
        }
        self.is_adopted = true;
        if there.wanted > self.workers {
            self.scaler = Scaler::new(ScalingPolicy::default(), self.bounds, there.wanted);
            self.workers = there.wanted;
        }
    }
}

impl Node {
    /// What a pipeline has to do, on all nodes.
    async fn load_of(&self, served: &Served) -> Result<PipelineLoad, ApiError> {
        match &self.inner.cluster {
            Some(cluster) => {
                let cluster = ClusterNode::of(self.inner.clone(), cluster.clone());
                cluster.load_of(served).await
            }
            None => self.local().load_of(served).await,
        }
    }
}

#[async_trait]
impl Queues for Node {
    async fn queues(&self) -> Vec<(PipelinePath, PipelineLoad)> {
        let mut ours = self.inner.directory.pipelines();
        ours.retain(|served| !served.pipeline.deleting && self.inner.deploys(served.pipeline.id));
        ours.sort_by(|a, b| a.pipeline.path.cmp(&b.pipeline.path));
        let loads = ours.into_iter().map(|served| async move {
            let load = self.load_of(&served).await;
            (served.pipeline.path.clone(), load)
        });
        let known = stream::iter(loads)
            .buffered(QUEUES_AT_ONCE)
            .filter_map(async |(path, load)| match load {
                Ok(load) => Some((path, load)),
                Err(problem) => {
                    warn!(pipeline = %path, error = &problem as &dyn std::error::Error, "its queue is not told of");
                    None
                }
            });
        known.collect().await
    }
}

/// Looks at every deployment with room to scale, while the node runs.
pub(crate) fn run(node: &Node) -> impl Future<Output = ()> + Send + use<> {
    let (deployer, inner) = (node.inner.deployer.clone(), Arc::downgrade(&node.inner));
    async move {
        let Some(deployer) = deployer else { return };
        let mut scaled: HashMap<PipelineId, Scaled> = HashMap::new();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(inner) = inner.upgrade() else { return };
            let node = Node::of(inner);
            // One that another node deploys begins anew when it comes back.
            scaled.retain(|id, _| node.inner.directory.by_id(*id).is_some() && node.inner.deploys(*id));
            for served in node.inner.directory.pipelines() {
                look(&node, &*deployer, &mut scaled, &served).await;
            }
        }
    }
}

async fn look(
    node: &Node,
    deployer: &dyn Deployer,
    scaled: &mut HashMap<PipelineId, Scaled>,
    served: &Arc<Served>,
) {
    let pipeline = &served.pipeline;
    let Some(bounds) = pipeline.deployment.as_ref().map(|deployment| deployment.replicas) else {
        return;
    };
    if pipeline.deleting || bounds.min == bounds.max || !node.inner.deploys(pipeline.id) {
        return;
    }
    let scaled = scaled.entry(pipeline.id).or_insert_with(|| Scaled::new(bounds));
    if scaled.bounds != bounds {
        scaled.bounds = bounds;
        scaled.scaler.set_bounds(bounds);
    }
    if !scaled.is_adopted {
        scaled.adopt(deployer, pipeline.id).await;
    }
    // Without an answer the number of workers stays as it is.
    let Ok(load) = node.load_of(served).await else {
        return;
    };
    let waiting = load.waiting();
    let load = Load {
        waiting,
        running: load.running,
        service_time: scaled.pace.observe(load.timed, load.busy_ms),
    };
    let now = node.inner.clock.now();
    let wanted = scaled.scaler.observe(now, load);
    // With nothing that waits, all that are not busy are more than will be wanted soon.
    let may_shrink = waiting == 0
        && load.running > 0
        && deployer.is_scaled_by_others(pipeline.id)
        && scaled.spared.is_none_or(|at| now.since(at) >= SPARE_EVERY);
    if wanted < scaled.workers {
        node.spare(served, Some(wanted)).await;
    } else if may_shrink {
        scaled.spared = Some(now);
        node.spare(served, None).await;
    }
    if wanted != scaled.workers {
        if let Err(problem) = deployer.scale(pipeline.id, wanted).await {
            let problem = &problem as &dyn std::error::Error;
            warn!(pipeline = %pipeline.path, error = problem, "workers are not scaled");
            return;
        }
        info!(pipeline = %pipeline.path, from = scaled.workers, to = wanted, waiting, "workers are scaled");
        scaled.workers = wanted;
    }
}
