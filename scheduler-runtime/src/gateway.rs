//! What transports call: a node answers alone, or for its cluster.

use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{TaskId, WorkerId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::catalog::Application;
use scheduler_core::port::gateway::{
    AccessApi, AdminApi, ApiError, Caller, DeadSelection, HeldLease, Lease, Location, NewPipeline, Page,
    PageCursor, PipelineChange, PipelineLoad, PipelineView, Report, TaskApi, TaskFilter, TaskStream,
    TaskView, Verdict, WorkerApi, WorkerHello, WorkerSession,
};
use scheduler_core::task::TaskSpec;

use crate::node::Node;

#[async_trait]
impl AccessApi for Node {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        self.gateway.authenticate(key).await
    }

    async fn ready(&self) -> Result<(), ApiError> {
        self.gateway.ready().await
    }
}

#[async_trait]
impl AdminApi for Node {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        self.gateway.create_application(caller, name).await
    }

    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        self.gateway.applications(caller).await
    }

    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        self.gateway.application(caller, name).await
    }

    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        self.gateway.delete_application(caller, name).await
    }

    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        self.gateway.create_pipeline(caller, application, new).await
    }

    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        self.gateway.pipelines(caller, application).await
    }

    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        self.gateway.pipeline(path).await
    }

    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        self.gateway.load(path).await
    }

    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        self.gateway.change_pipeline(path, change).await
    }

    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        self.gateway.scale_pipeline(path, workers).await
    }

    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        self.gateway.delete_pipeline(path).await
    }
}

#[async_trait]
impl TaskApi for Node {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        self.gateway.submit(path, tasks).await
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.gateway.task(path, id).await
    }

    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        self.gateway.wait(path, id, patience).await
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        self.gateway.tasks(path, filter, after, limit).await
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        self.gateway.watch(path, id).await
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.gateway.cancel(path, id).await
    }

    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.gateway.retry(path, id).await
    }

    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        self.gateway.dead(path, after, limit).await
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        self.gateway.redrive(path, which).await
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        self.gateway.purge(path, which).await
    }
}

#[async_trait]
impl WorkerApi for Node {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        self.gateway.attach(path, hello).await
    }

    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        self.gateway.poll(path, worker, limit, patience).await
    }

    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        self.gateway.report(path, worker, reports).await
    }

    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        self.gateway.extend(path, worker, leases).await
    }

    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        self.gateway.locate(path).await
    }
}
