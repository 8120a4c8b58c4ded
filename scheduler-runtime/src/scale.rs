//! Scales each deployment on the work that waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::PipelineId;
use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::deploy::Deployer;
use scheduler_core::scaling::{Load, Scaler, ScalingPolicy};
use tracing::{info, warn};

use crate::cluster::ClusterNode;
use crate::directory::Served;
use crate::node::Node;

/// How often the load of deployments is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// One deployment.
struct Scaled {
    bounds: Replicas,
    scaler: Scaler,
    /// What had succeeded at the last look, and how long it took in all.
    succeeded: u64,
    busy_ms: u64,
    service_time: Option<Duration>,
    workers: u32,
    /// The turn of its actor in which there was nothing to do and nothing to come.
    idle_at: Option<u64>,
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
    let scaled = scaled.entry(pipeline.id).or_insert_with(|| Scaled {
        bounds,
        scaler: Scaler::new(ScalingPolicy::default(), bounds, bounds.min),
        succeeded: 0,
        busy_ms: 0,
        service_time: None,
        workers: bounds.min,
        idle_at: None,
    });
    if scaled.bounds != bounds {
        scaled.bounds = bounds;
        scaled.scaler.set_bounds(bounds);
        scaled.idle_at = None;
    }
    // A pipeline that had nothing to do and heard nothing since has nothing to do.
    if scaled.idle_at == Some(served.mailbox.turns()) {
        return;
    }
    let Ok((status, mut backlog)) = node.local().load(served).await else {
        return;
    };
    let mut counts = status.counts;
    // Shards that came or went make the sums jump; only what has grown is measured.
    let ended = counts.succeeded.saturating_sub(scaled.succeeded);
    if let Some(latest) = counts.busy_ms.saturating_sub(scaled.busy_ms).checked_div(ended) {
        let latest = Duration::from_millis(latest);
        // Half of what was known before: a change is seen within a few looks, a single odd task hardly.
        scaled.service_time = Some(scaled.service_time.map_or(latest, |known| (known + latest) / 2));
    }
    (scaled.succeeded, scaled.busy_ms) = (counts.succeeded, counts.busy_ms);
    if let Some(cluster) = &node.inner.cluster {
        let cluster = ClusterNode::of(node.inner.clone(), cluster.clone());
        // Without an answer the number of workers stays as it is.
        let Ok(elsewhere) = cluster.elsewhere(served).await else {
            return;
        };
        backlog += elsewhere.backlog;
        counts.ready += elsewhere.ready;
        counts.delayed += elsewhere.delayed;
        counts.running += elsewhere.running;
    }
    let waiting = if pipeline.paused {
        0
    } else {
        backlog + counts.ready
    };
    let load = Load {
        waiting,
        running: counts.running,
        service_time: scaled.service_time,
    };
    let wanted = scaled.scaler.observe(node.inner.clock.now(), load);
    let is_idle = backlog + counts.ready + counts.delayed + counts.running == 0 && wanted == bounds.min;
    let all_here = status.tails.len() == pipeline.partitions as usize;
    if wanted != scaled.workers {
        if let Err(problem) = deployer.scale(pipeline.id, wanted).await {
            let problem = &problem as &dyn std::error::Error;
            warn!(pipeline = %pipeline.path, error = problem, "workers are not scaled");
            return;
        }
        info!(pipeline = %pipeline.path, from = scaled.workers, to = wanted, waiting, "workers are scaled");
        scaled.workers = wanted;
    }
    scaled.idle_at = status.turn.filter(|_| is_idle && all_here);
}
