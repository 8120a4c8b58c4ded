//! Applications and pipelines.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{Application, CatalogError, Deployment, Pipeline, Replicas};
use scheduler_core::port::deploy::ChartFacts;
use scheduler_core::port::gateway::{
    AdminApi, ApiError, Caller, NewDeployment, NewPipeline, PipelineChange, PipelineCounts, PipelineLoad,
    PipelineView,
};
use scheduler_core::port::log::{Bounds, Topic, TopicSettings};
use tracing::{info, warn};

use super::check::{check_definition, check_policy};
use super::{LocalNode, error};
use crate::actor::{Message, Status};
use crate::directory::{Served, topic_of};
use crate::node::Node;

/// Shards whose logs are asked about at once.
const BOUNDS_AT_ONCE: usize = 16;

impl LocalNode {
    pub(crate) fn application_of(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        let found = self.inner.directory.application(&caller.client, name);
        found.ok_or_else(|| ApiError::not_found("application", name))
    }

    /// Reads a chart and makes of it what is kept.
    pub(super) async fn deployment(
        &self,
        path: &PipelinePath,
        new: NewDeployment,
    ) -> Result<(Deployment, ChartFacts), ApiError> {
        let Some(deployer) = &self.inner.deployer else {
            let problem = "this node deploys no charts; leave it out and start workers yourself";
            return Err(ApiError::invalid("chart", problem));
        };
        // What is wrong with the request whatever the chart says is better told by the request's names.
        self.check_replicas(new.deployment(None).replicas)?;
        let facts = deployer.inspect(path, &new).await.map_err(error::of_deploy)?;
        let deployment = new.deployment(facts.replicas);
        self.check_replicas(deployment.replicas)?;
        Ok((deployment, facts))
    }

    /// The pipeline and how it fares.
    pub(crate) async fn view(&self, served: &Served) -> Result<PipelineView, ApiError> {
        let pipeline = &served.pipeline;
        let rollout = match (&self.inner.deployer, &pipeline.deployment) {
            (Some(deployer), Some(_)) => deployer.rollout(pipeline.id).await.map_err(error::of_deploy)?,
            _ => None,
        };
        let (counts, problems) = self.counts(served).await?;
        Ok(PipelineView {
            pipeline: (**pipeline).clone(),
            rollout,
            counts,
            problems,
        })
    }

    /// What the shards hold and what is waiting in the log.
    pub(crate) async fn counts(&self, served: &Served) -> Result<(PipelineCounts, Vec<String>), ApiError> {
        let pipeline = &served.pipeline;
        let (status, backlog) = self.survey(served).await?;
        let counts = PipelineCounts {
            backlog,
            ready: status.counts.ready,
            delayed: status.counts.delayed,
            running: status.counts.running,
            succeeded: status.counts.succeeded,
            dead: self
                .inner
                .store
                .dead_count(pipeline.id)
                .await
                .map_err(error::of_store)?,
            cancelled: status.counts.cancelled,
            workers: status.sessions,
        };
        Ok((counts, status.problems))
    }

    /// What can be read of each shard's log, some asked for at once: each answer may take as long as the log is away.
    pub(crate) async fn all_bounds(&self, shards: Vec<ShardId>) -> Result<Vec<(ShardId, Bounds)>, ApiError> {
        let asked = shards.into_iter().map(|shard| async move {
            let bounds = self.inner.log.bounds(shard).await;
            bounds.map(|bounds| (shard, bounds)).map_err(error::of_log)
        });
        stream::iter(asked).buffered(BOUNDS_AT_ONCE).try_collect().await
    }

    /// How the shards fare, and how many tasks wait in the log.
    pub(crate) async fn survey(&self, served: &Served) -> Result<(Status, u64), ApiError> {
        let status = served.mailbox.ask(Message::Status).await;
        let status = status.ok_or_else(|| error::unavailable("the pipeline is going away"))?;
        let mut backlog = 0;
        for (shard, bounds) in self.all_bounds(self.shards_here(served)).await? {
            let tail = status
                .tails
                .get(&shard.partition)
                .copied()
                .unwrap_or(bounds.start);
            backlog += bounds.end.0.saturating_sub(tail.0);
        }
        Ok((status, backlog))
    }

    /// Stores a changed pipeline and tells everybody.
    pub(super) async fn put(&self, pipeline: Pipeline) -> Result<Arc<Served>, CatalogError> {
        let _turn = self.inner.catalog_turn().await;
        let pipeline = self.inner.store.update_pipeline(pipeline).await?;
        Ok(self.inner.serve(Arc::new(pipeline)).await.0)
    }
}

/// What must not stop halfway when its caller goes.
impl LocalNode {
    async fn add_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        let client = caller.client.clone();
        let application = Application {
            client,
            name,
            created_at: self.inner.clock.now(),
        };
        let _turn = self.inner.catalog_turn().await;
        self.inner
            .store
            .add_application(application.clone())
            .await
            .map_err(error::of_catalog)?;
        self.inner.directory.add_application(application.clone());
        Ok(application)
    }

    async fn remove_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        self.application_of(caller, name)?;
        let _turn = self.inner.catalog_turn().await;
        self.inner
            .store
            .remove_application(&caller.client, name)
            .await
            .map_err(error::of_catalog)?;
        self.inner.directory.remove_application(&caller.client, name);
        Ok(())
    }

    async fn add_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<Arc<Served>, ApiError> {
        if self.inner.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let path = PipelinePath {
            client: caller.client.clone(),
            application: application.clone(),
            pipeline: new.name.clone(),
        };
        if self.inner.directory.pipeline(&path).is_some() {
            let problem = format!(
                "there is a pipeline {} in application {application} already",
                new.name
            );
            return Err(ApiError::Conflict(problem));
        }
        let partitions = self.check_partitions(new.partitions.unwrap_or(self.inner.config.partitions))?;
        let policy = new.policy.unwrap_or_else(|| self.inner.config.policy.clone());
        check_policy(&policy)?;
        let (deployment, facts) = match new.deployment {
            Some(deployment) => self
                .deployment(&path, deployment)
                .await
                .map(|(d, facts)| (Some(d), facts))?,
            None => (None, ChartFacts::default()),
        };
        let definition = new
            .definition
            .or(facts.definition)
            .map(|definition| check_definition(&definition));
        let definition = definition.transpose()?.unwrap_or_default();
        let topic = new.topic.unwrap_or_default();
        if topic != TopicSettings::default() {
            let wanted = Topic {
                // It has no number yet.
                pipeline: PipelineId(0),
                path: path.clone(),
                partitions,
                settings: topic.clone(),
            };
            self.inner.log.check(&wanted).await.map_err(error::of_log)?;
        }
        match self.application_of(caller, application) {
            Ok(_) => (),
            Err(_) if self.inner.config.create_applications => {
                match self.add_application(caller, application.clone()).await {
                    Ok(_) | Err(ApiError::Conflict(_)) => (),
                    Err(problem) => return Err(problem),
                }
            }
            Err(problem) => return Err(problem),
        }
        let pipeline = Pipeline {
            id: PipelineId(0),
            path,
            version: 0,
            created_at: self.inner.clock.now(),
            partitions,
            key_partitions: partitions,
            topic,
            policy,
            paused: false,
            definition,
            deployment,
            deleting: false,
        };
        let served = {
            let _turn = self.inner.catalog_turn().await;
            let pipeline = self.inner.store.add_pipeline(pipeline).await;
            let pipeline = Arc::new(pipeline.map_err(error::of_catalog)?);
            info!(pipeline = %pipeline.path, id = pipeline.id.0, "pipeline is created");
            self.inner.serve(pipeline).await.0
        };
        // Without it submissions are refused; its shards make sure of it as they come up.
        if let Err(problem) = self.inner.log.ensure(&topic_of(&served.pipeline)).await {
            warn!(pipeline = %served.pipeline.path, error = &problem as &dyn std::error::Error, "its log is not there yet");
        }
        self.inner.place().await;
        self.inner.deploy(&served.pipeline).await;
        Ok(served)
    }

    async fn alter_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<Arc<Served>, ApiError> {
        let served = self.served(path)?;
        let mut pipeline = (*served.pipeline).clone();
        if let Some(partitions) = change.partitions {
            if partitions < pipeline.partitions {
                let problem = format!(
                    "is {partitions}; there are {} and there can only be more",
                    pipeline.partitions
                );
                return Err(ApiError::invalid("partitions", problem));
            }
            pipeline.partitions = self.check_partitions(partitions)?;
        }
        if let Some(policy) = change.policy {
            check_policy(&policy)?;
            pipeline.policy = policy;
        }
        pipeline.paused = change.paused.unwrap_or(pipeline.paused);
        let mut from_chart = None;
        if let Some(new) = change.deployment {
            let (deployment, facts) = self.deployment(path, new).await?;
            pipeline.deployment = Some(deployment);
            from_chart = facts.definition;
        }
        if change.min_replicas.is_some() || change.max_replicas.is_some() {
            let Some(deployment) = &mut pipeline.deployment else {
                return Err(ApiError::invalid(
                    "replicas",
                    "the pipeline has no deployment to have replicas",
                ));
            };
            let Replicas { min, max } = deployment.replicas;
            let (min, max) = (
                change.min_replicas.unwrap_or(min),
                change.max_replicas.unwrap_or(max),
            );
            deployment.replicas = self.check_replicas(Replicas { min, max })?;
        }
        if let Some(definition) = change.definition.or(from_chart) {
            pipeline.definition = check_definition(&definition)?;
        }
        if pipeline == *served.pipeline {
            return Ok(served);
        }
        let grows = pipeline.partitions > served.pipeline.partitions;
        // A definition may name other executors.
        let redeploys = pipeline.deployment != served.pipeline.deployment
            || pipeline.definition != served.pipeline.definition;
        if grows {
            self.inner
                .log
                .ensure(&topic_of(&pipeline))
                .await
                .map_err(error::of_log)?;
        }
        let served = self.put(pipeline).await.map_err(error::of_catalog)?;
        if grows {
            self.inner.place().await;
        }
        if redeploys {
            self.inner.deploy(&served.pipeline).await;
        }
        Ok(served)
    }
}

impl LocalNode {
    /// Creates a pipeline, to its end.
    pub(crate) async fn make_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<Arc<Served>, ApiError> {
        let (node, caller, application) = (self.clone(), caller.clone(), application.clone());
        let make = async move { node.add_pipeline(&caller, &application, new).await };
        self.inner.to_its_end(make).await
    }

    /// Changes a pipeline, to its end.
    pub(crate) async fn mend_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<Arc<Served>, ApiError> {
        let (node, path) = (self.clone(), path.clone());
        let mend = async move { node.alter_pipeline(&path, change).await };
        self.inner.to_its_end(mend).await
    }
}

#[async_trait]
impl AdminApi for LocalNode {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        let (node, caller) = (self.clone(), caller.clone());
        self.inner
            .to_its_end(async move { node.add_application(&caller, name).await })
            .await
    }

    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        Ok(self.inner.directory.applications(&caller.client))
    }

    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        self.application_of(caller, name)
    }

    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        let (node, caller, name) = (self.clone(), caller.clone(), name.clone());
        self.inner
            .to_its_end(async move { node.remove_application(&caller, &name).await })
            .await
    }

    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        let served = self.make_pipeline(caller, application, new).await?;
        self.view(&served).await
    }

    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        self.application_of(caller, application)?;
        let mut views = Vec::new();
        for served in self.inner.directory.pipelines_of(&caller.client, application) {
            views.push(self.view(&served).await?);
        }
        Ok(views)
    }

    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        self.view(&*self.served(path)?).await
    }

    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        self.load_of(&*self.served(path)?).await
    }

    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        let served = self.mend_pipeline(path, change).await?;
        self.view(&served).await
    }

    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        let served = self.served(path)?;
        let (Some(deployer), Some(deployment)) = (&self.inner.deployer, &served.pipeline.deployment) else {
            return Err(ApiError::Conflict(
                "the pipeline has no chart, so its workers come by themselves: start or stop them where they run".into(),
            ));
        };
        let Replicas { min, max } = deployment.replicas;
        if !(min..=max).contains(&workers) {
            let problem = format!("is {workers}; must be {min} to {max}, the bounds of `replicas`");
            return Err(ApiError::invalid("workers", problem));
        }
        self.check_here(ShardId::new(served.pipeline.id, Partition(0)))?;
        Node::of(self.inner.clone()).spare(&served, Some(workers)).await;
        deployer
            .scale(served.pipeline.id, workers)
            .await
            .map_err(error::of_deploy)?;
        self.view(&served).await
    }

    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        let (node, path) = (self.clone(), path.clone());
        self.inner
            .to_its_end(async move { node.remove_pipeline(&path).await })
            .await
    }
}
