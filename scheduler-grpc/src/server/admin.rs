//! `AdminService`.

use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::PipelineChange;
use scheduler_proto::api as wire;
use scheduler_proto::api::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::call::{Node, name};
use super::convert::admin as convert;
use super::status::from_api;

#[derive(Debug)]
pub(crate) struct AdminRpc {
    node: Node,
}

impl AdminRpc {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }

    async fn set_paused(
        &self,
        request: Request<wire::PipelineRef>,
        paused: bool,
    ) -> Result<Response<wire::Pipeline>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let change = PipelineChange {
            paused: Some(paused),
            ..PipelineChange::default()
        };
        let view = self
            .node
            .gateway
            .change_pipeline(&path, change)
            .await
            .map_err(from_api)?;
        Ok(Response::new(convert::pipeline(&view)))
    }
}

#[tonic::async_trait]
impl AdminService for AdminRpc {
    async fn create_application(
        &self,
        request: Request<wire::ApplicationRef>,
    ) -> Result<Response<wire::Application>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = name("application", &request.get_ref().application)?;
        let made = self
            .node
            .gateway
            .create_application(&call.caller, wanted)
            .await
            .map_err(from_api)?;
        Ok(Response::new(convert::application(&made)))
    }

    async fn get_application(
        &self,
        request: Request<wire::ApplicationRef>,
    ) -> Result<Response<wire::Application>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = name("application", &request.get_ref().application)?;
        let found = self
            .node
            .gateway
            .application(&call.caller, &wanted)
            .await
            .map_err(from_api)?;
        Ok(Response::new(convert::application(&found)))
    }

    async fn list_applications(
        &self,
        request: Request<wire::ListApplicationsRequest>,
    ) -> Result<Response<wire::ListApplicationsResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let found = self
            .node
            .gateway
            .applications(&call.caller)
            .await
            .map_err(from_api)?;
        Ok(Response::new(wire::ListApplicationsResponse {
            applications: found.iter().map(convert::application).collect(),
        }))
    }

    async fn delete_application(
        &self,
        request: Request<wire::ApplicationRef>,
    ) -> Result<Response<wire::Empty>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = name("application", &request.get_ref().application)?;
        self.node
            .gateway
            .delete_application(&call.caller, &wanted)
            .await
            .map_err(from_api)?;
        Ok(Response::new(wire::Empty {}))
    }

    async fn create_pipeline(
        &self,
        request: Request<wire::CreatePipelineRequest>,
    ) -> Result<Response<wire::Pipeline>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let request = request.into_inner();
        let application = name("application", &request.application)?;
        let new = convert::new_pipeline(request)?;
        let view = self
            .node
            .gateway
            .create_pipeline(&call.caller, &application, new)
            .await
            .map_err(from_api)?;
        Ok(Response::new(convert::pipeline(&view)))
    }

    async fn get_pipeline(
        &self,
        request: Request<wire::PipelineRef>,
    ) -> Result<Response<wire::Pipeline>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let view = self.node.gateway.pipeline(&path).await.map_err(from_api)?;
        Ok(Response::new(convert::pipeline(&view)))
    }

    async fn list_pipelines(
        &self,
        request: Request<wire::ApplicationRef>,
    ) -> Result<Response<wire::ListPipelinesResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let application = name("application", &request.get_ref().application)?;
        let views = self
            .node
            .gateway
            .pipelines(&call.caller, &application)
            .await
            .map_err(from_api)?;
        Ok(Response::new(wire::ListPipelinesResponse {
            pipelines: views.iter().map(convert::pipeline).collect(),
        }))
    }

    async fn update_pipeline(
        &self,
        request: Request<wire::UpdatePipelineRequest>,
    ) -> Result<Response<wire::Pipeline>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let request = request.into_inner();
        let path = PipelinePath {
            client: call.caller.client.clone(),
            application: name("application", &request.application)?,
            pipeline: name("name", &request.name)?,
        };
        let now = self.node.gateway.pipeline(&path).await.map_err(from_api)?;
        let change = convert::change(request, &now)?;
        let view = self
            .node
            .gateway
            .change_pipeline(&path, change)
            .await
            .map_err(from_api)?;
        Ok(Response::new(convert::pipeline(&view)))
    }

    async fn pause_pipeline(
        &self,
        request: Request<wire::PipelineRef>,
    ) -> Result<Response<wire::Pipeline>, Status> {
        self.set_paused(request, true).await
    }

    async fn resume_pipeline(
        &self,
        request: Request<wire::PipelineRef>,
    ) -> Result<Response<wire::Pipeline>, Status> {
        self.set_paused(request, false).await
    }

    async fn scale_pipeline(
        &self,
        request: Request<wire::ScalePipelineRequest>,
    ) -> Result<Response<wire::Pipeline>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let view = self
            .node
            .gateway
            .scale_pipeline(&path, wanted.workers)
            .await
            .map_err(from_api)?;
        Ok(Response::new(convert::pipeline(&view)))
    }

    async fn delete_pipeline(
        &self,
        request: Request<wire::PipelineRef>,
    ) -> Result<Response<wire::Empty>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        self.node.gateway.delete_pipeline(&path).await.map_err(from_api)?;
        Ok(Response::new(wire::Empty {}))
    }
}
