//! A link to another node: it reaches the node while it lives, and can be cut.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{TaskId, WorkerId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::catalog::Application;
use scheduler_core::port::cluster::{PeerGateway, Peers};
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{
    AccessApi, AdminApi, ApiError, Caller, DeadSelection, HeldLease, Lease, Location, NewPipeline, Page,
    PageCursor, PipelineChange, PipelineLoad, PipelineView, Report, TaskApi, TaskFilter, TaskStream,
    TaskView, Verdict, WorkerApi, WorkerHello, WorkerSession,
};
use scheduler_core::task::TaskSpec;
use scheduler_runtime::LocalNode;
use tokio_util::sync::CancellationToken;

/// The nodes by their addresses, each with the end of its link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    nodes: Arc<Mutex<BTreeMap<String, (LocalNode, CancellationToken)>>>,
}

impl Links {
    pub(crate) fn connect(&self, address: &str, node: LocalNode) {
        let link = (node, CancellationToken::new());
        self.nodes.lock().unwrap().insert(address.to_owned(), link);
    }

    /// From now on nobody reaches the node, and calls that are under way end.
    pub(crate) fn cut(&self, address: &str) -> Option<LocalNode> {
        let (node, end) = self.nodes.lock().unwrap().remove(address)?;
        end.cancel();
        Some(node)
    }
}

impl Peers for Links {
    fn at(&self, address: &str) -> Arc<dyn PeerGateway> {
        Arc::new(Link {
            links: self.clone(),
            address: address.to_owned(),
        })
    }
}

#[derive(Debug)]
struct Link {
    links: Links,
    address: String,
}

impl Link {
    fn node(&self) -> Result<(LocalNode, CancellationToken), ApiError> {
        let node = self.links.nodes.lock().unwrap().get(&self.address).cloned();
        node.ok_or_else(away)
    }
}

fn away() -> ApiError {
    ApiError::Unavailable {
        problem: "the link is cut".into(),
        retry_after: Duration::from_secs(1),
        source: None,
    }
}

#[async_trait]
impl PeerGateway for Link {
    async fn flush(&self, path: &PipelinePath) -> Result<(), ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.flush(path))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn busy(&self, path: &PipelinePath) -> Result<Vec<BusyWorker>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.busy(path))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn refresh(&self) -> Result<(), ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.refresh())
            .await
            .unwrap_or_else(|| Err(away()))
    }
}

#[async_trait]
impl AccessApi for Link {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.authenticate(key))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn ready(&self) -> Result<(), ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.ready())
            .await
            .unwrap_or_else(|| Err(away()))
    }
}

#[async_trait]
impl AdminApi for Link {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.create_application(caller, name))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.applications(caller))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.application(caller, name))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.delete_application(caller, name))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.create_pipeline(caller, application, new))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.pipelines(caller, application))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.pipeline(path))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.load(path))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.change_pipeline(path, change))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.scale_pipeline(path, workers))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.delete_pipeline(path))
            .await
            .unwrap_or_else(|| Err(away()))
    }
}

#[async_trait]
impl TaskApi for Link {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.submit(path, tasks))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.task(path, id))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.wait(path, id, patience))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.tasks(path, filter, after, limit))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.watch(path, id))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.cancel(path, id))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.retry(path, id))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.dead(path, after, limit))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.redrive(path, which))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.purge(path, which))
            .await
            .unwrap_or_else(|| Err(away()))
    }
}

#[async_trait]
impl WorkerApi for Link {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.attach(path, hello))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.poll(path, worker, limit, patience))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.report(path, worker, reports))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.extend(path, worker, leases))
            .await
            .unwrap_or_else(|| Err(away()))
    }

    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        let (node, end) = self.node()?;
        end.run_until_cancelled(node.locate(path))
            .await
            .unwrap_or_else(|| Err(away()))
    }
}
