//! Another node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{TaskId, WorkerId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::catalog::Application;
use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{
    AccessApi, AdminApi, ApiError, Caller, DeadSelection, HeldLease, Lease, Location, NewPipeline, Page,
    PageCursor, PipelineChange, PipelineLoad, PipelineView, Report, TaskApi, TaskFilter, TaskStream,
    TaskView, Verdict, WorkerApi, WorkerHello, WorkerSession,
};
use scheduler_core::task::TaskSpec;
use scheduler_proto::node as wire;
use scheduler_proto::node::node_service_client::NodeServiceClient;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::channels::{Channels, Place};
use super::convert::{
    Decoded, admin, caller, error, put_caller, put_path, put_span, put_worker_id, task, worker,
};
use super::{ClusterSecret, MAX_MESSAGE_BYTES, PeersConfig, remote_session};

pub(super) type NodeClient = NodeServiceClient<Channel>;

/// The gateway of another node, for its own shards.
#[derive(Debug)]
pub(super) struct RemotePeer {
    pub(super) address: Arc<str>,
    channels: Result<Channels, String>,
    secret: ClusterSecret,
    pub(super) config: Arc<PeersConfig>,
}

impl RemotePeer {
    pub(super) fn new(
        address: &str,
        channels: Result<Channels, String>,
        secret: ClusterSecret,
        config: Arc<PeersConfig>,
    ) -> Self {
        Self {
            address: address.into(),
            channels,
            secret,
            config,
        }
    }

    fn channels(&self) -> Result<&Channels, ApiError> {
        self.channels.as_ref().map_err(|problem| ApiError::Unavailable {
            problem: format!("node address {}: {problem}", self.address),
            retry_after: Duration::from_secs(10),
            source: None,
        })
    }

    fn client_on(channel: Channel) -> NodeClient {
        NodeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn call(&self) -> Result<NodeClient, ApiError> {
        Ok(Self::client_on(self.channels()?.for_call()))
    }

    pub(super) fn stream(&self) -> Result<(NodeClient, Place), ApiError> {
        let (channel, place) = self.channels()?.for_stream();
        Ok((Self::client_on(channel), place))
    }

    /// A request that says that a node makes it.
    pub(super) fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.secret.sign(request.metadata_mut());
        request
    }

    /// The same with a deadline, told to the other node a little earlier than it is kept here.
    fn request<T>(&self, message: T, within: Duration) -> Request<T> {
        let mut request = self.signed(message);
        request.set_timeout(within);
        request
    }

    /// Waits for an answer.
    pub(super) async fn answer<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, ApiError> {
        // The connection's own deadline begins when it has come up.
        let patience = within + self.config.connect_timeout;
        match tokio::time::timeout(patience, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(error::error(&status, &self.address)),
            Err(_) => Err(error::too_late(&self.address, patience)),
        }
    }

    pub(super) fn decoded<T>(decoded: Decoded<T>) -> Result<T, ApiError> {
        decoded.map_err(|error| ApiError::Internal(error.into()))
    }

    /// A message that the other node would refuse is refused here, in words that help.
    fn check_size(message: &impl prost::Message, field: &str) -> Result<(), ApiError> {
        let bytes = message.encoded_len();
        if bytes <= MAX_MESSAGE_BYTES {
            return Ok(());
        }
        let problem = format!("are {bytes} bytes; send fewer at once, at most {MAX_MESSAGE_BYTES} bytes");
        Err(ApiError::invalid(field, problem))
    }

    fn quick(&self) -> Duration {
        self.config.call_timeout
    }

    fn slow(&self) -> Duration {
        self.config.save_timeout
    }
}

fn about(path: &PipelinePath, id: TaskId) -> wire::TaskCall {
    wire::TaskCall {
        path: Some(put_path(path)),
        id: Some(task::put_id(id)),
        patience: None,
    }
}

#[async_trait]
impl PeerGateway for RemotePeer {
    async fn flush(&self, path: &PipelinePath) -> Result<(), ApiError> {
        let request = self.request(put_path(path), self.slow());
        self.answer(self.slow(), self.call()?.flush(request)).await?;
        Ok(())
    }

    async fn busy(&self, path: &PipelinePath) -> Result<Vec<BusyWorker>, ApiError> {
        let request = self.request(put_path(path), self.quick());
        let busy = self.answer(self.quick(), self.call()?.get_busy(request)).await?;
        Ok(admin::busy(busy))
    }

    async fn refresh(&self) -> Result<(), ApiError> {
        let request = self.request(wire::Nothing {}, self.quick());
        self.answer(self.quick(), self.call()?.refresh(request)).await?;
        Ok(())
    }
}

#[async_trait]
impl AccessApi for RemotePeer {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        let key = wire::Key {
            key: key.map(str::to_owned),
        };
        let request = self.request(key, self.quick());
        let client = self
            .answer(self.quick(), self.call()?.authenticate(request))
            .await?;
        Self::decoded(caller(&client.name))
    }

    async fn ready(&self) -> Result<(), ApiError> {
        let request = self.request(wire::Nothing {}, self.quick());
        self.answer(self.quick(), self.call()?.ready(request)).await?;
        Ok(())
    }
}

#[async_trait]
impl AdminApi for RemotePeer {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        let request = self.request(admin::put_application_name(caller, &name), self.slow());
        let made = self
            .answer(self.slow(), self.call()?.create_application(request))
            .await?;
        Self::decoded(admin::application(&made))
    }

    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        let request = self.request(put_caller(caller), self.quick());
        let found = self
            .answer(self.quick(), self.call()?.list_applications(request))
            .await?;
        Self::decoded(found.applications.iter().map(admin::application).collect())
    }

    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        let request = self.request(admin::put_application_name(caller, name), self.quick());
        let found = self
            .answer(self.quick(), self.call()?.get_application(request))
            .await?;
        Self::decoded(admin::application(&found))
    }

    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        let request = self.request(admin::put_application_name(caller, name), self.slow());
        self.answer(self.slow(), self.call()?.delete_application(request))
            .await?;
        Ok(())
    }

    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        let request = self.request(admin::put_new_pipeline(caller, application, new), self.slow());
        let made = self
            .answer(self.slow(), self.call()?.create_pipeline(request))
            .await?;
        Self::decoded(admin::view(made))
    }

    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        let request = self.request(admin::put_application_name(caller, application), self.quick());
        let found = self
            .answer(self.quick(), self.call()?.list_pipelines(request))
            .await?;
        Self::decoded(found.pipelines.into_iter().map(admin::view).collect())
    }

    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        let request = self.request(put_path(path), self.quick());
        let found = self
            .answer(self.quick(), self.call()?.get_pipeline(request))
            .await?;
        Self::decoded(admin::view(found))
    }

    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        let request = self.request(put_path(path), self.quick());
        let load = self.answer(self.quick(), self.call()?.get_load(request)).await?;
        Ok(admin::load(load))
    }

    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        let request = self.request(admin::put_change(path, change), self.slow());
        let changed = self
            .answer(self.slow(), self.call()?.change_pipeline(request))
            .await?;
        Self::decoded(admin::view(changed))
    }

    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        let scale = wire::Scale {
            path: Some(put_path(path)),
            workers,
        };
        let request = self.request(scale, self.slow());
        let scaled = self
            .answer(self.slow(), self.call()?.scale_pipeline(request))
            .await?;
        Self::decoded(admin::view(scaled))
    }

    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        let request = self.request(put_path(path), self.slow());
        self.answer(self.slow(), self.call()?.delete_pipeline(request))
            .await?;
        Ok(())
    }
}

#[async_trait]
impl TaskApi for RemotePeer {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        let submission = wire::Submission {
            path: Some(put_path(path)),
            tasks: tasks.into_iter().map(task::put_spec).collect(),
        };
        Self::check_size(&submission, "tasks")?;
        let request = self.request(submission, self.slow());
        let ids = self.answer(self.slow(), self.call()?.submit(request)).await?;
        Self::decoded(task::ids(ids.ids))
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let request = self.request(about(path, id), self.quick());
        let found = self.answer(self.quick(), self.call()?.get_task(request)).await?;
        Self::decoded(task::view(found))
    }

    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        let within = patience.saturating_add(self.quick());
        let call = wire::TaskCall {
            patience: Some(put_span(patience)),
            ..about(path, id)
        };
        let request = self.request(call, within);
        // Waits may be as many as clients: they go with the streams, so that they hold nothing up.
        let (mut client, _place) = self.stream()?;
        let found = self.answer(within, client.wait_task(request)).await?;
        Self::decoded(task::view(found))
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let (states, partition) = task::put_filter(filter);
        let query = wire::TaskQuery {
            path: Some(put_path(path)),
            states,
            partition,
            after: after.map(task::put_cursor),
            limit: limit as u64,
        };
        let request = self.request(query, self.quick());
        let page = self
            .answer(self.quick(), self.call()?.list_tasks(request))
            .await?;
        Self::decoded(task::page(page))
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        let call = wire::TaskCall {
            path: Some(put_path(path)),
            id: id.map(task::put_id),
            patience: None,
        };
        let (mut client, place) = self.stream()?;
        let request = self.signed(call);
        let views = self.answer(self.quick(), client.watch_tasks(request)).await?;
        // A stream of changes has no errors: whoever watches sees that it ended, and looks again.
        let views = views.map_while(move |view| {
            let _ = &place;
            task::view(view.ok()?).ok()
        });
        Ok(Box::pin(views))
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let request = self.request(about(path, id), self.slow());
        let cancelled = self
            .answer(self.slow(), self.call()?.cancel_task(request))
            .await?;
        Self::decoded(task::view(cancelled))
    }

    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let request = self.request(about(path, id), self.slow());
        let retried = self.answer(self.slow(), self.call()?.retry_task(request)).await?;
        Self::decoded(task::view(retried))
    }

    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        let query = wire::TaskQuery {
            path: Some(put_path(path)),
            states: Vec::new(),
            partition: None,
            after: after.map(task::put_cursor),
            limit: limit as u64,
        };
        let request = self.request(query, self.quick());
        let page = self.answer(self.quick(), self.call()?.list_dead(request)).await?;
        Self::decoded(task::dead_page(page))
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let selection = wire::DeadSelection {
            path: Some(put_path(path)),
            which: Some(task::put_selection(which)),
        };
        let request = self.request(selection, self.slow());
        let mut client = self.call()?;
        let answer = self.answer(self.slow(), client.redrive_dead(request));
        Ok(answer.await?.count)
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let selection = wire::DeadSelection {
            path: Some(put_path(path)),
            which: Some(task::put_selection(which)),
        };
        let request = self.request(selection, self.slow());
        let mut client = self.call()?;
        let answer = self.answer(self.slow(), client.purge_dead(request));
        Ok(answer.await?.count)
    }
}

#[async_trait]
impl WorkerApi for RemotePeer {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        remote_session::attach(self, path, hello).await
    }

    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        let within = patience.saturating_add(self.quick());
        let poll = wire::PollCall {
            path: Some(put_path(path)),
            worker_id: put_worker_id(worker),
            limit,
            patience: Some(put_span(patience)),
        };
        let request = self.request(poll, within);
        let (mut client, _place) = self.stream()?;
        let leases = self.answer(within, client.poll(request)).await?;
        Self::decoded(worker::leases(leases))
    }

    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        let said = wire::ReportCall {
            path: Some(put_path(path)),
            worker_id: put_worker_id(worker),
            reports: reports.into_iter().map(worker::put_report).collect(),
        };
        Self::check_size(&said, "reports")?;
        let request = self.request(said, self.slow());
        let answer = self.answer(self.slow(), self.call()?.report(request)).await?;
        let verdict = |taken| if taken { Verdict::Taken } else { Verdict::Late };
        Ok(answer.taken.into_iter().map(verdict).collect())
    }

    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        let said = wire::ExtendCall {
            path: Some(put_path(path)),
            worker_id: put_worker_id(worker),
            refs: leases.into_iter().map(worker::put_held).collect(),
        };
        let request = self.request(said, self.quick());
        Ok(self
            .answer(self.quick(), self.call()?.extend(request))
            .await?
            .held)
    }

    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        let request = self.request(put_path(path), self.quick());
        let found = self.answer(self.quick(), self.call()?.locate(request)).await?;
        Ok(worker::locations(found))
    }
}
