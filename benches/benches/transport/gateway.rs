//! A gateway that costs next to nothing: it takes every task, and gives a worker a lease for every credit. What is timed with it is the transport.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::id::{
    Attempt, Epoch, LeaseToken, Offset, Partition, PipelineId, ShardId, TaskId, WorkerId,
};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::catalog::Application;
use scheduler_core::port::gateway::{
    AccessApi, AdminApi, ApiError, Caller, CommandSink, DeadSelection, EventSource, HeldLease, Lease,
    Location, NewPipeline, Page, PageCursor, PipelineChange, PipelineLoad, PipelineView, Queues, Report,
    TaskApi, TaskFilter, TaskStream, TaskView, Verdict, WorkerApi, WorkerCommand, WorkerEvent, WorkerHello,
    WorkerSession,
};
use scheduler_core::task::TaskSpec;
use scheduler_core::time::Timestamp;
use tokio::sync::mpsc;

const SHARD: ShardId = ShardId::new(PipelineId(1), Partition(0));
/// Batches of leases on their way to a worker.
const UNDER_WAY: usize = 64;

/// See the file.
#[derive(Debug)]
pub(crate) struct Easy {
    client: Name,
    submitted: AtomicU64,
}

impl Easy {
    pub(crate) fn new() -> Self {
        Self {
            client: "bench".parse().expect("a name"),
            submitted: AtomicU64::new(0),
        }
    }
}

/// No benchmark asks for it.
fn absent<T>() -> Result<T, ApiError> {
    Err(ApiError::not_found("answer", "of this benchmark"))
}

/// A session's two ends: what is said at one comes out of the other.
#[derive(Debug)]
struct Sink {
    next: AtomicU64,
    params: Bytes,
    events: mpsc::Sender<Vec<WorkerEvent>>,
}

#[async_trait]
impl CommandSink for Sink {
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError> {
        let credits: u32 = commands
            .iter()
            .map(|command| match command {
                WorkerCommand::Credit(credits) => *credits,
                _ => 0,
            })
            .sum();
        if credits == 0 {
            return Ok(());
        }
        let first = self.next.fetch_add(credits.into(), Ordering::Relaxed);
        let leases = (first..first + u64::from(credits)).map(|offset| Lease {
            partition: Partition(0),
            offset: Offset(offset),
            token: LeaseToken {
                epoch: Epoch(1),
                attempt: Attempt(1),
            },
            run_until: Timestamp::from_millis(1_800_000_000_000),
            spec: TaskSpec::new(self.params.slice(..)),
        });
        let leases = vec![WorkerEvent::Leases(leases.collect())];
        self.events
            .send(leases)
            .await
            .map_err(|_| ApiError::Conflict("the session is over".to_owned()))
    }
}

#[derive(Debug)]
struct Source(mpsc::Receiver<Vec<WorkerEvent>>);

#[async_trait]
impl EventSource for Source {
    async fn next(&mut self) -> Option<Vec<WorkerEvent>> {
        self.0.recv().await
    }
}

#[async_trait]
impl WorkerApi for Easy {
    async fn attach(&self, _: &PipelinePath, _: WorkerHello) -> Result<WorkerSession, ApiError> {
        let (events, source) = mpsc::channel(UNDER_WAY);
        let sink = Sink {
            next: AtomicU64::new(0),
            params: Bytes::from(vec![b'x'; 128]),
            events,
        };
        Ok(WorkerSession {
            definition: Bytes::new(),
            heartbeat: Duration::from_secs(10),
            commands: Box::new(sink),
            events: Box::new(Source(source)),
        })
    }
    async fn poll(&self, _: &PipelinePath, _: WorkerId, _: u32, _: Duration) -> Result<Vec<Lease>, ApiError> {
        absent()
    }
    async fn report(&self, _: &PipelinePath, _: WorkerId, _: Vec<Report>) -> Result<Vec<Verdict>, ApiError> {
        absent()
    }
    async fn extend(&self, _: &PipelinePath, _: WorkerId, _: Vec<HeldLease>) -> Result<Vec<bool>, ApiError> {
        absent()
    }
    async fn locate(&self, _: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        absent()
    }
}

#[async_trait]
impl TaskApi for Easy {
    async fn submit(&self, _: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        let count = tasks.len() as u64;
        let first = self.submitted.fetch_add(count, Ordering::Relaxed);
        Ok((first..first + count)
            .map(|offset| SHARD.task(Offset(offset)))
            .collect())
    }
    async fn task(&self, _: &PipelinePath, _: TaskId) -> Result<TaskView, ApiError> {
        absent()
    }
    async fn wait(&self, _: &PipelinePath, _: TaskId, _: Duration) -> Result<TaskView, ApiError> {
        absent()
    }
    async fn tasks(
        &self,
        _: &PipelinePath,
        _: &TaskFilter,
        _: Option<PageCursor>,
        _: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        absent()
    }
    async fn watch(&self, _: &PipelinePath, _: Option<TaskId>) -> Result<TaskStream, ApiError> {
        absent()
    }
    async fn cancel(&self, _: &PipelinePath, _: TaskId) -> Result<TaskView, ApiError> {
        absent()
    }
    async fn retry(&self, _: &PipelinePath, _: TaskId) -> Result<TaskView, ApiError> {
        absent()
    }
    async fn dead(
        &self,
        _: &PipelinePath,
        _: Option<PageCursor>,
        _: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        absent()
    }
    async fn redrive(&self, _: &PipelinePath, _: DeadSelection) -> Result<u64, ApiError> {
        absent()
    }
    async fn purge(&self, _: &PipelinePath, _: DeadSelection) -> Result<u64, ApiError> {
        absent()
    }
}

#[async_trait]
impl AccessApi for Easy {
    async fn authenticate(&self, _: Option<&str>) -> Result<Caller, ApiError> {
        Ok(Caller {
            client: self.client.clone(),
        })
    }
    async fn ready(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

#[async_trait]
impl AdminApi for Easy {
    async fn create_application(&self, _: &Caller, _: Name) -> Result<Application, ApiError> {
        absent()
    }
    async fn applications(&self, _: &Caller) -> Result<Vec<Application>, ApiError> {
        absent()
    }
    async fn application(&self, _: &Caller, _: &Name) -> Result<Application, ApiError> {
        absent()
    }
    async fn delete_application(&self, _: &Caller, _: &Name) -> Result<(), ApiError> {
        absent()
    }
    async fn create_pipeline(&self, _: &Caller, _: &Name, _: NewPipeline) -> Result<PipelineView, ApiError> {
        absent()
    }
    async fn pipelines(&self, _: &Caller, _: &Name) -> Result<Vec<PipelineView>, ApiError> {
        absent()
    }
    async fn pipeline(&self, _: &PipelinePath) -> Result<PipelineView, ApiError> {
        absent()
    }
    async fn load(&self, _: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        absent()
    }
    async fn change_pipeline(&self, _: &PipelinePath, _: PipelineChange) -> Result<PipelineView, ApiError> {
        absent()
    }
    async fn scale_pipeline(&self, _: &PipelinePath, _: u32) -> Result<PipelineView, ApiError> {
        absent()
    }
    async fn delete_pipeline(&self, _: &PipelinePath) -> Result<(), ApiError> {
        absent()
    }
}

#[async_trait]
impl Queues for Easy {
    async fn queues(&self) -> Vec<(PipelinePath, PipelineLoad)> {
        Vec::new()
    }
}
