//! What a pipeline has to do, and who does it, on all nodes.

use std::collections::BTreeMap;

use scheduler_core::id::{Partition, ShardId};
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{ApiError, PipelineLoad};

use super::super::owner::{LONGEST_READ, Place, in_time};
use super::ClusterNode;
use crate::directory::Served;

impl ClusterNode {
    /// What all shards have to do; an error if one of their owners does not say, since a part of it would take workers away.
    pub(crate) async fn load_of(&self, served: &Served) -> Result<PipelineLoad, ApiError> {
        let pipeline = &served.pipeline;
        let mut load = self.local.load_of(served).await?;
        let places = self.places(served, None).await?;
        let nowhere: Vec<ShardId> = (0..pipeline.partitions)
            .map(Partition)
            .filter(|partition| !places.contains_key(partition))
            .map(|partition| ShardId::new(pipeline.id, partition))
            .collect();
        if !nowhere.is_empty() {
            let bounds = in_time(LONGEST_READ, self.local.all_bounds(nowhere)).await?;
            load.backlog += bounds.iter().map(|(_, bounds)| bounds.len()).sum::<u64>();
        }
        let asked = self.others(places).map(|place| async move {
            let asked = place.gateway.load(&pipeline.path);
            in_time(LONGEST_READ, asked).await
        });
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(other) => add(&mut load, &other),
                // It has not heard of the pipeline, so it has nothing of it.
                Err(ApiError::NotFound { .. }) => (),
                Err(problem) => return Err(problem),
            }
        }
        Ok(load)
    }

    /// Workers that have tasks of any shard; an error if one of the owners does not say, since a part of them would let the others seem idle.
    pub(crate) async fn busy(&self, served: &Served) -> Result<Vec<BusyWorker>, ApiError> {
        let path = &served.pipeline.path;
        let places = self.places(served, None).await?;
        let asked = self.others(places).map(|place| async move {
            let asked = place.gateway.busy(path);
            in_time(LONGEST_READ, asked).await
        });
        let mut busy = self.local.busy_here(served).await?;
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(others) => busy.extend(others),
                Err(ApiError::NotFound { .. }) => (),
                Err(problem) => return Err(problem),
            }
        }
        Ok(sum(busy))
    }

    /// The owners of shards that are not this node, each once.
    fn others(&self, places: BTreeMap<Partition, Place>) -> impl Iterator<Item = Place> + use<> {
        let ours = self.inner.world.node;
        let owners: BTreeMap<_, _> = places.into_values().map(|place| (place.node, place)).collect();
        owners.into_values().filter(move |place| place.node != ours)
    }
}

/// A worker has tasks of several nodes.
fn sum(busy: Vec<BusyWorker>) -> Vec<BusyWorker> {
    let mut tasks = BTreeMap::<String, u64>::new();
    for worker in busy {
        *tasks.entry(worker.name).or_default() += worker.tasks;
    }
    tasks
        .into_iter()
        .map(|(name, tasks)| BusyWorker { name, tasks })
        .collect()
}

fn add(load: &mut PipelineLoad, other: &PipelineLoad) {
    let PipelineLoad {
        // What this node has heard of it counts.
        pipeline: _,
        paused: _,
        backlog,
        ready,
        delayed,
        running,
        timed,
        busy_ms,
    } = other;
    load.backlog += backlog;
    load.ready += ready;
    load.delayed += delayed;
    load.running += running;
    load.timed += timed;
    load.busy_ms += busy_ms;
}
