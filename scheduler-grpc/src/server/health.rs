//! The standard health service, answering from the gateway's readiness when somebody asks.

use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::Node;

/// Services that can be asked for by name; the empty name is the node.
const SERVICES: [&str; 4] = [
    "",
    "scheduler.worker.v1.WorkerService",
    "scheduler.api.v1.TaskService",
    "scheduler.api.v1.AdminService",
];

#[derive(Debug)]
pub(crate) struct HealthRpc {
    node: Node,
}

impl HealthRpc {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }
}

async fn status(node: &Node) -> ServingStatus {
    if node.stopping.is_cancelled() {
        return ServingStatus::NotServing;
    }
    match node.gateway.ready().await {
        Ok(()) => ServingStatus::Serving,
        Err(problem) => {
            tracing::debug!(%problem, "the node is not ready");
            ServingStatus::NotServing
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthRpc {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!("there is no service {service}")));
        }
        Ok(Response::new(answer(status(&self.node).await)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            // As the protocol of health checks has it: the service may come later, though here it will not.
            let unknown = futures::stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(
                unknown
                    .chain(futures::stream::pending())
                    .take_until(self.node.stopping.clone().cancelled_owned())
                    .boxed(),
            ));
        }
        let node = self.node.clone();
        let changes = futures::stream::unfold(None, move |last| {
            let node = node.clone();
            async move {
                loop {
                    if last.is_some() {
                        tokio::time::sleep(node.config.health_interval).await;
                    }
                    let now = status(&node).await;
                    if Some(now) != last {
                        return Some((Ok(answer(now)), Some(now)));
                    }
                }
            }
        });
        Ok(Response::new(
            changes
                .take_until(self.node.stopping.clone().cancelled_owned())
                .boxed(),
        ))
    }
}
