//! `NodeService`: the gateway for this node's own shards, for other nodes.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use scheduler_core::id::TaskId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::gateway::Verdict;
use scheduler_proto::node as wire;
use scheduler_proto::node::node_service_server::{NodeService, NodeServiceServer};
use scheduler_proto::worker as public;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::convert::error::put_error;
use super::convert::{Malformed, admin, caller, path, put_caller, span, task, there, worker, worker_id};
use super::{ClusterSecret, MAX_MESSAGE_BYTES, service_session};

type Answer<T> = Result<Response<T>, Status>;

impl From<Malformed> for Status {
    fn from(error: Malformed) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Serves other nodes.
#[derive(Clone, Debug)]
pub(crate) struct NodeRpc {
    pub(super) local: Arc<dyn PeerGateway>,
    /// The server stops: streams that only watch end.
    pub(super) stopping: CancellationToken,
    /// The grace is over: every stream ends.
    pub(super) closing: CancellationToken,
}

/// Lets nodes in and nobody else.
#[derive(Clone, Debug)]
pub(crate) struct OnlyNodes(ClusterSecret);

impl tonic::service::Interceptor for OnlyNodes {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.0.has_signed(request.metadata()) {
            Ok(request)
        } else {
            Err(Status::unauthenticated(
                "only a node of this cluster may call this",
            ))
        }
    }
}

impl NodeRpc {
    pub(crate) fn service(
        local: Arc<dyn PeerGateway>,
        secret: ClusterSecret,
        stopping: CancellationToken,
        closing: CancellationToken,
    ) -> InterceptedService<NodeServiceServer<Self>, OnlyNodes> {
        let rpc = Self {
            local,
            stopping,
            closing,
        };
        let service = NodeServiceServer::new(rpc).max_decoding_message_size(MAX_MESSAGE_BYTES);
        InterceptedService::new(service, OnlyNodes(secret))
    }
}

fn task_of(call: &wire::TaskCall) -> Result<(PipelinePath, TaskId), Malformed> {
    Ok((path(call.path.as_ref())?, task::id(there(call.id, "task id")?)?))
}

#[expect(clippy::unnecessary_wraps, reason = "what every call returns")]
fn done<T>(answer: T) -> Answer<T> {
    Ok(Response::new(answer))
}

#[tonic::async_trait]
impl NodeService for NodeRpc {
    type WatchTasksStream = BoxStream<'static, Result<wire::TaskView, Status>>;
    type AttachStream = BoxStream<'static, Result<wire::SessionResponse, Status>>;

    async fn authenticate(&self, request: Request<wire::Key>) -> Answer<wire::Client> {
        let key = request.get_ref().key.as_deref();
        let caller = self.local.authenticate(key).await.map_err(put_error)?;
        done(put_caller(&caller))
    }

    async fn ready(&self, _: Request<wire::Nothing>) -> Answer<wire::Nothing> {
        self.local.ready().await.map_err(put_error)?;
        done(wire::Nothing {})
    }

    async fn create_application(&self, request: Request<wire::ApplicationName>) -> Answer<wire::Application> {
        let (caller, name) = admin::application_name(request.get_ref())?;
        let made = self.local.create_application(&caller, name).await;
        done(admin::put_application(&made.map_err(put_error)?))
    }

    async fn list_applications(&self, request: Request<wire::Client>) -> Answer<wire::Applications> {
        let caller = caller(&request.get_ref().name)?;
        let found = self.local.applications(&caller).await.map_err(put_error)?;
        let applications = found.iter().map(admin::put_application).collect();
        done(wire::Applications { applications })
    }

    async fn get_application(&self, request: Request<wire::ApplicationName>) -> Answer<wire::Application> {
        let (caller, name) = admin::application_name(request.get_ref())?;
        let found = self.local.application(&caller, &name).await;
        done(admin::put_application(&found.map_err(put_error)?))
    }

    async fn delete_application(&self, request: Request<wire::ApplicationName>) -> Answer<wire::Nothing> {
        let (caller, name) = admin::application_name(request.get_ref())?;
        let deleted = self.local.delete_application(&caller, &name).await;
        deleted.map_err(put_error)?;
        done(wire::Nothing {})
    }

    async fn create_pipeline(&self, request: Request<wire::NewPipeline>) -> Answer<wire::PipelineView> {
        let (caller, application, new) = admin::new_pipeline(request.into_inner())?;
        let made = self.local.create_pipeline(&caller, &application, new).await;
        done(admin::put_view(made.map_err(put_error)?))
    }

    async fn list_pipelines(&self, request: Request<wire::ApplicationName>) -> Answer<wire::PipelineViews> {
        let (caller, name) = admin::application_name(request.get_ref())?;
        let found = self.local.pipelines(&caller, &name).await.map_err(put_error)?;
        let pipelines = found.into_iter().map(admin::put_view).collect();
        done(wire::PipelineViews { pipelines })
    }

    async fn get_pipeline(&self, request: Request<wire::Path>) -> Answer<wire::PipelineView> {
        let path = path(Some(request.get_ref()))?;
        let found = self.local.pipeline(&path).await;
        done(admin::put_view(found.map_err(put_error)?))
    }

    async fn get_load(&self, request: Request<wire::Path>) -> Answer<wire::Load> {
        let path = path(Some(request.get_ref()))?;
        let load = self.local.load(&path).await.map_err(put_error)?;
        done(admin::put_load(load))
    }

    async fn change_pipeline(&self, request: Request<wire::PipelineChange>) -> Answer<wire::PipelineView> {
        let request = request.into_inner();
        let path = path(request.path.as_ref())?;
        let change = admin::change(request)?;
        let changed = self.local.change_pipeline(&path, change).await;
        done(admin::put_view(changed.map_err(put_error)?))
    }

    async fn scale_pipeline(&self, request: Request<wire::Scale>) -> Answer<wire::PipelineView> {
        let path = path(request.get_ref().path.as_ref())?;
        let scaled = self.local.scale_pipeline(&path, request.get_ref().workers).await;
        done(admin::put_view(scaled.map_err(put_error)?))
    }

    async fn delete_pipeline(&self, request: Request<wire::Path>) -> Answer<wire::Nothing> {
        let path = path(Some(request.get_ref()))?;
        self.local.delete_pipeline(&path).await.map_err(put_error)?;
        done(wire::Nothing {})
    }

    async fn submit(&self, request: Request<wire::Submission>) -> Answer<wire::TaskIds> {
        let request = request.into_inner();
        let path = path(request.path.as_ref())?;
        let tasks = request
            .tasks
            .into_iter()
            .map(task::spec)
            .collect::<Result<_, _>>()?;
        let ids = self.local.submit(&path, tasks).await.map_err(put_error)?;
        let ids = ids.into_iter().map(task::put_id).collect();
        done(wire::TaskIds { ids })
    }

    async fn get_task(&self, request: Request<wire::TaskCall>) -> Answer<wire::TaskView> {
        let (path, id) = task_of(request.get_ref())?;
        let found = self.local.task(&path, id).await;
        done(task::put_view(found.map_err(put_error)?))
    }

    async fn wait_task(&self, request: Request<wire::TaskCall>) -> Answer<wire::TaskView> {
        let (path, id) = task_of(request.get_ref())?;
        let patience = span(request.get_ref().patience);
        let found = self.local.wait(&path, id, patience).await;
        done(task::put_view(found.map_err(put_error)?))
    }

    async fn list_tasks(&self, request: Request<wire::TaskQuery>) -> Answer<wire::TaskPage> {
        let query = request.get_ref();
        let path = path(query.path.as_ref())?;
        let filter = task::filter(&query.states, query.partition)?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let after = query.after.map(task::cursor);
        let page = self.local.tasks(&path, &filter, after, limit).await;
        done(task::put_page(page.map_err(put_error)?))
    }

    async fn watch_tasks(&self, request: Request<wire::TaskCall>) -> Answer<Self::WatchTasksStream> {
        let path = path(request.get_ref().path.as_ref())?;
        let id = request.get_ref().id.map(task::id).transpose()?;
        let tasks = self.local.watch(&path, id).await.map_err(put_error)?;
        let tasks = tasks
            .map(|view| Ok(task::put_view(view)))
            .take_until(self.stopping.clone().cancelled_owned());
        done(tasks.boxed())
    }

    async fn cancel_task(&self, request: Request<wire::TaskCall>) -> Answer<wire::TaskView> {
        let (path, id) = task_of(request.get_ref())?;
        let cancelled = self.local.cancel(&path, id).await;
        done(task::put_view(cancelled.map_err(put_error)?))
    }

    async fn retry_task(&self, request: Request<wire::TaskCall>) -> Answer<wire::TaskView> {
        let (path, id) = task_of(request.get_ref())?;
        let retried = self.local.retry(&path, id).await;
        done(task::put_view(retried.map_err(put_error)?))
    }

    async fn list_dead(&self, request: Request<wire::TaskQuery>) -> Answer<wire::DeadPage> {
        let query = request.get_ref();
        let path = path(query.path.as_ref())?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let page = self.local.dead(&path, query.after.map(task::cursor), limit).await;
        done(task::put_dead_page(page.map_err(put_error)?))
    }

    async fn redrive_dead(&self, request: Request<wire::DeadSelection>) -> Answer<wire::Count> {
        let request = request.into_inner();
        let path = path(request.path.as_ref())?;
        let which = task::selection(request.which)?;
        let count = self.local.redrive(&path, which).await.map_err(put_error)?;
        done(wire::Count { count })
    }

    async fn purge_dead(&self, request: Request<wire::DeadSelection>) -> Answer<wire::Count> {
        let request = request.into_inner();
        let path = path(request.path.as_ref())?;
        let which = task::selection(request.which)?;
        let count = self.local.purge(&path, which).await.map_err(put_error)?;
        done(wire::Count { count })
    }

    async fn attach(&self, request: Request<Streaming<wire::SessionRequest>>) -> Answer<Self::AttachStream> {
        let (session, inbound) = service_session::open(self, request.into_inner()).await?;
        done(service_session::run(self, session, inbound))
    }

    async fn poll(&self, request: Request<wire::PollCall>) -> Answer<wire::Leases> {
        let asked = request.get_ref();
        let path = path(asked.path.as_ref())?;
        let worker = worker_id(&asked.worker_id)?;
        let leases = self
            .local
            .poll(&path, worker, asked.limit, span(asked.patience))
            .await;
        done(worker::put_leases(leases.map_err(put_error)?))
    }

    async fn report(&self, request: Request<wire::ReportCall>) -> Answer<public::ReportResponse> {
        let said = request.into_inner();
        let path = path(said.path.as_ref())?;
        let worker = worker_id(&said.worker_id)?;
        let reports = worker::reports(said.reports)?;
        let verdicts = self
            .local
            .report(&path, worker, reports)
            .await
            .map_err(put_error)?;
        let taken = verdicts.into_iter().map(|verdict| verdict == Verdict::Taken);
        done(public::ReportResponse {
            taken: taken.collect(),
        })
    }

    async fn extend(&self, request: Request<wire::ExtendCall>) -> Answer<public::ExtendResponse> {
        let said = request.into_inner();
        let path = path(said.path.as_ref())?;
        let worker = worker_id(&said.worker_id)?;
        let leases = said.refs.into_iter().map(worker::held).collect();
        let held = self.local.extend(&path, worker, leases).await;
        done(public::ExtendResponse {
            held: held.map_err(put_error)?,
        })
    }

    async fn locate(&self, request: Request<wire::Path>) -> Answer<public::LocateResponse> {
        let path = path(Some(request.get_ref()))?;
        let found = self.local.locate(&path).await.map_err(put_error)?;
        done(worker::put_locations(found))
    }

    async fn flush(&self, request: Request<wire::Path>) -> Answer<wire::Nothing> {
        let path = path(Some(request.get_ref()))?;
        self.local.flush(&path).await.map_err(put_error)?;
        done(wire::Nothing {})
    }

    async fn get_busy(&self, request: Request<wire::Path>) -> Answer<wire::BusyWorkers> {
        let path = path(Some(request.get_ref()))?;
        let busy = self.local.busy(&path).await.map_err(put_error)?;
        done(admin::put_busy(busy))
    }

    async fn refresh(&self, _: Request<wire::Nothing>) -> Answer<wire::Nothing> {
        self.local.refresh().await.map_err(put_error)?;
        done(wire::Nothing {})
    }
}
