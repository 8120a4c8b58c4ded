//! `WorkerService`: the session, and the calls for workers without one.

use futures::stream::BoxStream;
use scheduler_core::port::gateway::Verdict;
use scheduler_proto::worker as wire;
use scheduler_proto::worker::worker_service_server::WorkerService;
use tonic::{Request, Response, Status, Streaming};

use super::call::Node;
use super::convert::{to_short_millis, worker as convert};
use super::session;
use super::status::{from_api, invalid};

/// Leases of one poll.
const MAX_POLL: u32 = 1000;
/// Signs of life in one heartbeat timeout, so that one lost message does not cost a lease.
const HEARTBEATS_PER_TIMEOUT: u32 = 3;

#[derive(Debug)]
pub(crate) struct WorkerRpc {
    node: Node,
}

impl WorkerRpc {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl WorkerService for WorkerRpc {
    type SessionStream = BoxStream<'static, Result<wire::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        Ok(Response::new(session::run(
            self.node.clone(),
            call,
            request.into_inner(),
        )))
    }

    async fn poll(
        &self,
        request: Request<wire::PollRequest>,
    ) -> Result<Response<wire::PollResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let asked = request.get_ref();
        let path = call.path(&asked.application, &asked.pipeline)?;
        let worker = convert::worker_id(&asked.worker_id, "worker_id")?;
        let limit = asked.limit.max(1);
        if limit > MAX_POLL {
            return Err(invalid("limit", &format!("must be at most {MAX_POLL}")));
        }
        let patience = call.patience("wait_ms", asked.wait_ms)?;

        let gateway = &self.node.gateway;
        let before = gateway.pipeline(&path).await.map_err(from_api)?;
        let leases = gateway
            .poll(&path, worker, limit, patience)
            .await
            .map_err(from_api)?;
        let view = if leases.is_empty() {
            before
        } else {
            // The definition may have changed during the wait. Leases that were granted must reach the worker all the same.
            gateway.pipeline(&path).await.unwrap_or(before)
        };
        Ok(Response::new(wire::PollResponse {
            leases: leases.into_iter().map(convert::lease).collect(),
            heartbeat_ms: to_short_millis(view.pipeline.policy.timeouts.heartbeat / HEARTBEATS_PER_TIMEOUT),
            definition: view.pipeline.definition,
        }))
    }

    async fn report(
        &self,
        request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let said = request.into_inner();
        let path = call.path(&said.application, &said.pipeline)?;
        let worker = convert::worker_id(&said.worker_id, "worker_id")?;
        let reports = convert::reports(said.reports, "reports")?;
        let verdicts = self
            .node
            .gateway
            .report(&path, worker, reports)
            .await
            .map_err(from_api)?;
        Ok(Response::new(wire::ReportResponse {
            taken: verdicts
                .into_iter()
                .map(|verdict| verdict == Verdict::Taken)
                .collect(),
        }))
    }

    async fn extend(
        &self,
        request: Request<wire::ExtendRequest>,
    ) -> Result<Response<wire::ExtendResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let said = request.into_inner();
        let path = call.path(&said.application, &said.pipeline)?;
        let worker = convert::worker_id(&said.worker_id, "worker_id")?;
        let leases = convert::held_leases(said.refs, "refs")?;
        let held = self
            .node
            .gateway
            .extend(&path, worker, leases)
            .await
            .map_err(from_api)?;
        Ok(Response::new(wire::ExtendResponse { held }))
    }

    async fn locate(
        &self,
        request: Request<wire::LocateRequest>,
    ) -> Result<Response<wire::LocateResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let asked = request.get_ref();
        let path = call.path(&asked.application, &asked.pipeline)?;
        let found = self.node.gateway.locate(&path).await.map_err(from_api)?;
        let location = |location: scheduler_core::port::gateway::Location| wire::Location {
            partition: location.partition.0,
            address: location.address,
        };
        Ok(Response::new(wire::LocateResponse {
            locations: found.into_iter().map(location).collect(),
        }))
    }
}
