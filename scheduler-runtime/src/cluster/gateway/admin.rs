//! Applications and pipelines: written on any node, counted on all.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::id::{Partition, ShardId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::Application;
use scheduler_core::port::gateway::{
    AdminApi, ApiError, Caller, NewPipeline, PipelineChange, PipelineCounts, PipelineLoad, PipelineView,
};

use super::super::owner::{LONGEST_CHANGE, LONGEST_READ, in_time};
use super::ClusterNode;
use crate::directory::Served;

/// How often a change is made again, because the pipeline was changed on another node meanwhile.
const MOST_CHANGES: usize = 5;

impl ClusterNode {
    /// The pipeline and how it fares, on all nodes. One that does not answer is a problem that is shown.
    async fn view(&self, served: &Arc<Served>) -> Result<PipelineView, ApiError> {
        let mut view = self.local.view(served).await?;
        self.add_others(served, &mut view).await;
        Ok(view)
    }

    /// Adds what the other nodes have.
    async fn add_others(&self, served: &Served, view: &mut PipelineView) {
        let pipeline = &served.pipeline;
        let places = match self.places(served, None).await {
            Ok(places) => places,
            Err(problem) => {
                let problem = format!(
                    "the owners of its shards are not known: {problem}; only what is here is counted"
                );
                view.problems.push(problem);
                return;
            }
        };
        let nowhere = (0..pipeline.partitions)
            .map(Partition)
            .filter(|partition| !places.contains_key(partition))
            .map(|partition| ShardId::new(pipeline.id, partition));
        let nowhere: Vec<ShardId> = nowhere.collect();
        for shard in &nowhere {
            view.problems.push(format!("shard {shard} is on no node now"));
        }
        match in_time(LONGEST_READ, self.local.all_bounds(nowhere)).await {
            Ok(all) => view.counts.backlog += all.iter().map(|(_, bounds)| bounds.len()).sum::<u64>(),
            Err(problem) => {
                let problem =
                    format!("what waits for the shards that are on no node is not known: {problem}");
                view.problems.push(problem);
            }
        }
        let first = places.get(&Partition(0)).map(|place| place.node);
        let others: BTreeMap<_, _> = places.into_values().map(|place| (place.node, place)).collect();
        let asked = others
            .into_values()
            .filter(|place| place.node != self.inner.world.node)
            .map(|place| async move {
                let asked = place.gateway.pipeline(&pipeline.path);
                (place.node, in_time(LONGEST_READ, asked).await)
            });
        for (node, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(other) => {
                    add(view, &other);
                    if first == Some(node) && other.rollout.is_some() {
                        view.rollout = other.rollout;
                    }
                }
                // It has not heard of the pipeline, so it has nothing of it.
                Err(ApiError::NotFound { .. }) => (),
                Err(problem) => view.problems.push(self.silent(node, &problem)),
            }
        }
    }

    fn silent(&self, node: scheduler_core::id::NodeId, problem: &ApiError) -> String {
        let member = self.cluster().members.get(node);
        let name = member.map_or_else(|| "that has just left".to_owned(), |member| member.name);
        format!("node {name} does not say how its shards fare: {problem}")
    }
}

/// Adds what another node has.
fn add(view: &mut PipelineView, other: &PipelineView) {
    let PipelineCounts {
        backlog,
        ready,
        delayed,
        running,
        succeeded,
        // The store's, and the same for all.
        dead: _,
        cancelled,
        workers,
    } = other.counts;
    let counts = &mut view.counts;
    counts.backlog += backlog;
    counts.ready += ready;
    counts.delayed += delayed;
    counts.running += running;
    counts.succeeded += succeeded;
    counts.cancelled += cancelled;
    counts.workers += workers;
    view.problems.extend(other.problems.iter().cloned());
}

#[async_trait]
impl AdminApi for ClusterNode {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        let application = self.local.create_application(caller, name).await?;
        self.tell_others().await;
        Ok(application)
    }

    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        self.local.applications(caller).await
    }

    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        if self.local.application_of(caller, name).is_err() {
            self.look_again().await;
        }
        self.local.application_of(caller, name)
    }

    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        self.application(caller, name).await?;
        self.local.delete_application(caller, name).await?;
        self.tell_others().await;
        Ok(())
    }

    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        let path = PipelinePath {
            client: caller.client.clone(),
            application: application.clone(),
            pipeline: new.name.clone(),
        };
        let is_there = self.inner.directory.pipeline(&path).is_some();
        // It may have been deleted, or its application made, on another node just now.
        if is_there || self.local.application_of(caller, application).is_err() {
            self.look_again().await;
        }
        let served = self.local.make_pipeline(caller, application, new).await?;
        self.tell_others().await;
        // Its shards are still on their way to nodes.
        self.local.view(&served).await
    }

    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        self.application(caller, application).await?;
        let mut views = self.local.pipelines(caller, application).await?;
        let members = self.cluster().members.all();
        let places = members.keys().filter_map(|node| self.place_of(*node));
        let asked = places.map(|place| async move {
            let asked = place.gateway.pipelines(caller, application);
            (place.node, in_time(LONGEST_READ, asked).await)
        });
        for (node, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(others) => {
                    for other in others {
                        let id = other.pipeline.id;
                        if let Some(view) = views.iter_mut().find(|view| view.pipeline.id == id) {
                            add(view, &other);
                            view.rollout = view.rollout.take().or(other.rollout);
                        }
                    }
                }
                Err(ApiError::NotFound { .. }) => (),
                Err(problem) => {
                    let problem = self.silent(node, &problem);
                    for view in &mut views {
                        view.problems.push(problem.clone());
                    }
                }
            }
        }
        Ok(views)
    }

    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        self.view(&self.served(path).await?).await
    }

    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        self.load_of(&*self.served(path).await?).await
    }

    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        self.served(path).await?;
        let mut tries = 0;
        let served = loop {
            match self.local.mend_pipeline(path, change.clone()).await {
                // Of the version that was changed here another node has made the next.
                Err(ApiError::Conflict(_)) if tries < MOST_CHANGES => {
                    tries += 1;
                    self.look_again().await;
                }
                answer => break answer?,
            }
        };
        self.tell_others().await;
        self.view(&served).await
    }

    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        let served = self.served(path).await?;
        let shard = ShardId::new(served.pipeline.id, Partition(0));
        self.ask_owner(&served, shard, LONGEST_CHANGE, |owner| async move {
            owner.scale_pipeline(path, workers).await
        })
        .await?;
        self.view(&served).await
    }

    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        self.served(path).await?;
        let mut tries = 0;
        loop {
            match self.local.delete_pipeline(path).await {
                Err(ApiError::Conflict(_)) if tries < MOST_CHANGES => {
                    tries += 1;
                    self.look_again().await;
                }
                answer => {
                    self.tell_others().await;
                    return answer;
                }
            }
        }
    }
}
