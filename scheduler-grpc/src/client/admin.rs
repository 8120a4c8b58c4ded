//! Applications and pipelines.

use scheduler_proto::api as wire;

use super::{
    Application, Client, ClientError, CreatePipelineRequest, Pipeline, PipelineRef, UpdatePipelineRequest,
};

impl Client {
    /// Creates an application.
    ///
    /// # Errors
    ///
    /// The name is malformed or taken.
    pub async fn create_application(&self, name: &str) -> Result<Application, ClientError> {
        let request = self.request(application(name));
        Ok(self.admin().create_application(request).await?.into_inner())
    }

    /// The client's applications, by name.
    ///
    /// # Errors
    ///
    /// The node cannot answer.
    pub async fn applications(&self) -> Result<Vec<Application>, ClientError> {
        let request = self.request(wire::ListApplicationsRequest {});
        Ok(self
            .admin()
            .list_applications(request)
            .await?
            .into_inner()
            .applications)
    }

    /// Deletes an application that has no pipelines.
    ///
    /// # Errors
    ///
    /// There is none of the name, or it still has pipelines.
    pub async fn delete_application(&self, name: &str) -> Result<(), ClientError> {
        let request = self.request(application(name));
        self.admin().delete_application(request).await?;
        Ok(())
    }

    /// Creates a pipeline, and deploys its chart if one is named.
    ///
    /// # Errors
    ///
    /// Something about it is malformed, or the name is taken.
    pub async fn create_pipeline(&self, pipeline: CreatePipelineRequest) -> Result<Pipeline, ClientError> {
        let request = self.request(pipeline);
        Ok(self.admin().create_pipeline(request).await?.into_inner())
    }

    /// A pipeline and how it fares.
    ///
    /// # Errors
    ///
    /// There is no such pipeline.
    pub async fn pipeline(&self, pipeline: &PipelineRef) -> Result<Pipeline, ClientError> {
        let request = self.request(pipeline.clone());
        Ok(self.admin().get_pipeline(request).await?.into_inner())
    }

    /// The pipelines of an application, by name.
    ///
    /// # Errors
    ///
    /// There is no such application.
    pub async fn pipelines(&self, application_name: &str) -> Result<Vec<Pipeline>, ClientError> {
        let request = self.request(application(application_name));
        Ok(self.admin().list_pipelines(request).await?.into_inner().pipelines)
    }

    /// Changes what is set in `change` and leaves the rest.
    ///
    /// # Errors
    ///
    /// Something about it is malformed, or there is no such pipeline.
    pub async fn update_pipeline(&self, change: UpdatePipelineRequest) -> Result<Pipeline, ClientError> {
        let request = self.request(change);
        Ok(self.admin().update_pipeline(request).await?.into_inner())
    }

    /// Lets the tasks of a pipeline wait; running ones go on.
    ///
    /// # Errors
    ///
    /// There is no such pipeline.
    pub async fn pause(&self, pipeline: &PipelineRef) -> Result<Pipeline, ClientError> {
        let request = self.request(pipeline.clone());
        Ok(self.admin().pause_pipeline(request).await?.into_inner())
    }

    /// Ends a pause.
    ///
    /// # Errors
    ///
    /// There is no such pipeline.
    pub async fn resume(&self, pipeline: &PipelineRef) -> Result<Pipeline, ClientError> {
        let request = self.request(pipeline.clone());
        Ok(self.admin().resume_pipeline(request).await?.into_inner())
    }

    /// Asks for so many workers now.
    ///
    /// # Errors
    ///
    /// There is no such pipeline, it has no deployment, or the number is out of its bounds.
    pub async fn scale(&self, pipeline: &PipelineRef, workers: u32) -> Result<Pipeline, ClientError> {
        let request = self.request(wire::ScalePipelineRequest {
            application: pipeline.application.clone(),
            pipeline: pipeline.pipeline.clone(),
            workers,
        });
        Ok(self.admin().scale_pipeline(request).await?.into_inner())
    }

    /// Deletes a pipeline with all its tasks and results.
    ///
    /// # Errors
    ///
    /// There is no such pipeline.
    pub async fn delete_pipeline(&self, pipeline: &PipelineRef) -> Result<(), ClientError> {
        let request = self.request(pipeline.clone());
        self.admin().delete_pipeline(request).await?;
        Ok(())
    }
}

fn application(name: &str) -> wire::ApplicationRef {
    wire::ApplicationRef {
        application: name.to_owned(),
    }
}
