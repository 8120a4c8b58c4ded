//! What would come of a pipeline, without making it.

use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::deploy::ChartFacts;
use scheduler_core::port::gateway::{ApiError, Caller, NewPipeline};
use scheduler_core::port::inspect::Plan;

use super::LocalNode;
use super::check::{check_definition, check_policy};

impl LocalNode {
    /// Checks all that is checked as a pipeline is created.
    pub(super) async fn plan_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<Plan, ApiError> {
        let path = PipelinePath {
            client: caller.client.clone(),
            application: application.clone(),
            pipeline: new.name,
        };
        if self.inner.directory.pipeline(&path).is_some() {
            let problem = format!(
                "there is a pipeline {} in application {application} already",
                path.pipeline
            );
            return Err(ApiError::Conflict(problem));
        }
        if !self.inner.config.create_applications {
            self.application_of(caller, application)?;
        }
        self.check_partitions(new.partitions.unwrap_or(self.inner.config.partitions))?;
        if let Some(policy) = &new.policy {
            check_policy(policy)?;
        }
        let (replicas, facts) = match new.deployment {
            Some(deployment) => {
                let (deployment, facts) = self.deployment(&path, deployment).await?;
                (Some(deployment.replicas), facts)
            }
            None => (None, ChartFacts::default()),
        };
        let definition = new.definition.or(facts.definition);
        let definition = definition
            .map(|definition| check_definition(&definition))
            .transpose()?;
        Ok(Plan {
            objects: facts.objects,
            replicas,
            definition: definition.unwrap_or_default(),
        })
    }
}
