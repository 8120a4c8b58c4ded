//! A fake gateway: it knows one client, one application and one pipeline, keeps tasks in a list, and hands a session's two ends to the test.

mod server;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::id::{Attempt, Offset, Partition, PipelineId, ShardId, TaskId, WorkerId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::{DeadReason, DeadTask};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::{Application, Deployment, Pipeline, Replicas};
use scheduler_core::port::gateway::*;
use scheduler_core::port::log::TopicSettings;
use scheduler_core::task::TaskSpec;
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, watch};

pub(crate) use server::{Server, request};

/// What a test holds of a session.
pub(crate) struct SessionEnds {
    pub(crate) hello: WorkerHello,
    /// Each item is one batch as the gateway got it; the channel closes when the session's sink is dropped.
    pub(crate) commands: mpsc::Receiver<Vec<WorkerCommand>>,
    pub(crate) events: mpsc::UnboundedSender<Vec<WorkerEvent>>,
}

#[derive(Debug)]
pub(crate) struct FakeGateway {
    /// What was submitted, by offset.
    pub(crate) submitted: Mutex<Vec<TaskSpec>>,
    /// What the calls that wait were given as their patience.
    pub(crate) patiences: Mutex<Vec<Duration>>,
    pub(crate) reports: Mutex<Vec<Report>>,
    pub(crate) changes: Mutex<Vec<PipelineChange>>,
    pub(crate) created: Mutex<Vec<NewPipeline>>,
    pub(crate) ready: watch::Sender<bool>,
    /// What the pipeline has to do, or why that is not known.
    pub(crate) load: watch::Sender<Result<PipelineLoad, String>>,
    /// A permit for each batch that may go on, where a test wants to hold them up.
    pub(crate) gate: Option<Arc<tokio::sync::Semaphore>>,
    /// Told when a batch has come to the gate.
    pub(crate) entered: tokio::sync::Notify,
    sessions: mpsc::UnboundedSender<SessionEnds>,
}

impl std::fmt::Debug for SessionEnds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionEnds")
    }
}

/// A pipeline that has nothing to do.
pub(crate) fn idle() -> PipelineLoad {
    PipelineLoad {
        pipeline: PipelineId(1),
        paused: false,
        backlog: 0,
        ready: 0,
        delayed: 0,
        running: 0,
        timed: 0,
        busy_ms: 0,
    }
}

impl FakeGateway {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<SessionEnds>) {
        let (sessions, opened) = mpsc::unbounded_channel();
        let fake = Self {
            submitted: Mutex::default(),
            patiences: Mutex::default(),
            reports: Mutex::default(),
            changes: Mutex::default(),
            created: Mutex::default(),
            ready: watch::channel(true).0,
            load: watch::channel(Ok(idle())).0,
            gate: None,
            entered: tokio::sync::Notify::default(),
            sessions,
        };
        (fake, opened)
    }

    fn known(path: &PipelinePath) -> Result<(), ApiError> {
        if path.client == name("tenant") && path.application == name("myname") && path.pipeline == name("ocr")
        {
            Ok(())
        } else {
            Err(ApiError::not_found("pipeline", path))
        }
    }

    fn view_of(&self, id: TaskId) -> Result<TaskView, ApiError> {
        let submitted = self.submitted.lock().unwrap();
        let spec = usize::try_from(id.offset.0)
            .ok()
            .and_then(|offset| submitted.get(offset))
            .ok_or_else(|| ApiError::not_found("task", id))?;
        Ok(TaskView {
            id,
            state: TaskState::Queued,
            attempts: Attempt(0),
            priority: Some(spec.priority),
            submitted_at: Timestamp::from_millis(1),
            started_at: None,
            finished_at: None,
            next_attempt_at: None,
            progress: Bytes::new(),
            output: Bytes::new(),
            error: String::new(),
            dead_reason: None,
            params: Some(spec.params.clone()),
            waiting: Some(Waiting::Behind { ahead: 3 }),
        })
    }

    fn pipeline_view() -> PipelineView {
        PipelineView {
            pipeline: Pipeline {
                id: PipelineId(1),
                path: PipelinePath {
                    client: name("tenant"),
                    application: name("myname"),
                    pipeline: name("ocr"),
                },
                version: 1,
                created_at: Timestamp::from_millis(1),
                partitions: 1,
                key_partitions: 1,
                topic: TopicSettings::default(),
                policy: PipelinePolicy::default(),
                paused: false,
                definition: Bytes::from_static(b"{}"),
                deployment: Some(Deployment {
                    chart: "/charts/ocr".into(),
                    values: Bytes::from_static(b"{\"a\":1}"),
                    replicas: Replicas { min: 1, max: 3 },
                }),
                deleting: false,
            },
            rollout: None,
            counts: PipelineCounts::default(),
            problems: Vec::new(),
        }
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn id(offset: u64) -> TaskId {
    ShardId::new(PipelineId(1), Partition(0)).task(Offset(offset))
}

#[async_trait]
impl AccessApi for FakeGateway {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        match key {
            Some("good") => Ok(Caller {
                client: name("tenant"),
            }),
            Some(_) => Err(ApiError::Unauthenticated("the API key is unknown".into())),
            None => Err(ApiError::Unauthenticated("an API key is missing".into())),
        }
    }

    async fn ready(&self) -> Result<(), ApiError> {
        if *self.ready.borrow() {
            Ok(())
        } else {
            Err(ApiError::Unavailable {
                problem: "starting".into(),
                retry_after: Duration::from_secs(1),
                source: None,
            })
        }
    }
}

#[async_trait]
impl AdminApi for FakeGateway {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        if name.as_str() == "myname" {
            return Err(ApiError::Conflict(
                "there is an application myname already".into(),
            ));
        }
        Ok(Application {
            client: caller.client.clone(),
            name,
            created_at: Timestamp::from_millis(5),
        })
    }
    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        Ok(vec![self.application(caller, &name("myname")).await?])
    }
    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        Ok(Application {
            client: caller.client.clone(),
            name: name.clone(),
            created_at: Timestamp::from_millis(5),
        })
    }
    async fn delete_application(&self, _: &Caller, name: &Name) -> Result<(), ApiError> {
        Err(ApiError::Conflict(format!(
            "application {name} still has pipelines"
        )))
    }
    async fn create_pipeline(
        &self,
        _: &Caller,
        _: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        self.created.lock().unwrap().push(new);
        Ok(Self::pipeline_view())
    }
    async fn pipelines(&self, _: &Caller, _: &Name) -> Result<Vec<PipelineView>, ApiError> {
        Ok(vec![Self::pipeline_view()])
    }
    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        Self::known(path)?;
        Ok(Self::pipeline_view())
    }
    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        Self::known(path)?;
        (self.load.borrow().clone()).map_err(|problem| ApiError::Unavailable {
            problem,
            retry_after: Duration::from_secs(1),
            source: None,
        })
    }
    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        Self::known(path)?;
        let mut view = Self::pipeline_view();
        view.pipeline.paused = change.paused.unwrap_or_default();
        self.changes.lock().unwrap().push(change);
        Ok(view)
    }
    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        Self::known(path)?;
        if workers > 3 {
            return Err(ApiError::invalid("workers", "must be at most 3"));
        }
        Ok(Self::pipeline_view())
    }
    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        Self::known(path)
    }
}

#[async_trait]
impl TaskApi for FakeGateway {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        Self::known(path)?;
        if let Some(gate) = &self.gate {
            self.entered.notify_one();
            gate.acquire().await.unwrap().forget();
        }
        if let Some(bad) = tasks.iter().position(|task| task.params.starts_with(b"bad")) {
            return Err(ApiError::invalid(format!("[{bad}].params"), "must be JSON"));
        }
        let mut submitted = self.submitted.lock().unwrap();
        let first = submitted.len() as u64;
        let ids = (0..tasks.len() as u64).map(|n| id(first + n)).collect();
        submitted.extend(tasks);
        Ok(ids)
    }
    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        Self::known(path)?;
        self.view_of(id)
    }
    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        Self::known(path)?;
        self.patiences.lock().unwrap().push(patience);
        self.view_of(id)
    }
    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        Self::known(path)?;
        if !filter.states.is_empty() && !filter.states.contains(&TaskState::Queued) {
            return Ok(Page {
                items: Vec::new(),
                next: None,
            });
        }
        let count = self.submitted.lock().unwrap().len() as u64;
        let from = after.map_or(count, |cursor| cursor.offset.0);
        let items: Vec<_> = (0..from)
            .rev()
            .take(limit)
            .map(|offset| self.view_of(id(offset)))
            .collect::<Result<_, _>>()?;
        let next = items
            .last()
            .filter(|last| last.id.offset > Offset::ZERO)
            .map(|last| PageCursor {
                partition: Partition(0),
                offset: last.id.offset,
            });
        Ok(Page { items, next })
    }
    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        Self::known(path)?;
        let first: Vec<_> = id.map(|id| self.view_of(id)).transpose()?.into_iter().collect();
        Ok(Box::pin(futures::stream::StreamExt::chain(
            futures::stream::iter(first),
            futures::stream::pending(),
        )))
    }
    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        Self::known(path)?;
        let mut view = self.view_of(id)?;
        view.state = TaskState::Cancelled;
        Ok(view)
    }
    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        Self::known(path)?;
        self.view_of(id)
    }
    async fn dead(
        &self,
        path: &PipelinePath,
        _: Option<PageCursor>,
        _: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        Self::known(path)?;
        let dead = DeadTask {
            offset: Offset(7),
            reason: DeadReason::Rejected,
            error: "not a picture".into(),
            attempts: Attempt(1),
            submitted_at: Timestamp::from_millis(1),
            died_at: Timestamp::from_millis(2),
            spec: TaskSpec::new("{}"),
        };
        Ok(Page {
            items: vec![(id(7), dead)],
            next: None,
        })
    }
    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        self.purge(path, which).await
    }
    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        Self::known(path)?;
        Ok(match which {
            DeadSelection::All => 42,
            DeadSelection::Ids(ids) => ids.len() as u64,
        })
    }
}

#[derive(Debug)]
struct Sink(mpsc::Sender<Vec<WorkerCommand>>);

#[async_trait]
impl CommandSink for Sink {
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError> {
        self.0
            .send(commands)
            .await
            .map_err(|_| ApiError::Conflict("another session of the worker took over".into()))
    }
}

#[derive(Debug)]
struct Source(mpsc::UnboundedReceiver<Vec<WorkerEvent>>);

#[async_trait]
impl EventSource for Source {
    async fn next(&mut self) -> Option<Vec<WorkerEvent>> {
        self.0.recv().await
    }
}

#[async_trait]
impl WorkerApi for FakeGateway {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        Self::known(path)?;
        let (commands, taken) = mpsc::channel(1);
        let (events, source) = mpsc::unbounded_channel();
        self.sessions
            .send(SessionEnds {
                hello,
                commands: taken,
                events,
            })
            .unwrap();
        Ok(WorkerSession {
            definition: Bytes::from_static(b"{}"),
            heartbeat: Duration::from_secs(10),
            commands: Box::new(Sink(commands)),
            events: Box::new(Source(source)),
        })
    }
    async fn poll(
        &self,
        path: &PipelinePath,
        _: WorkerId,
        _: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        Self::known(path)?;
        self.patiences.lock().unwrap().push(patience);
        Ok(vec![lease(3)])
    }
    async fn report(
        &self,
        path: &PipelinePath,
        _: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        Self::known(path)?;
        let verdicts = reports.iter().map(|report| match report.lease.offset.0 {
            3 => Verdict::Taken,
            _ => Verdict::Late,
        });
        let verdicts = verdicts.collect();
        self.reports.lock().unwrap().extend(reports);
        Ok(verdicts)
    }
    async fn extend(
        &self,
        path: &PipelinePath,
        _: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        Self::known(path)?;
        Ok(leases.iter().map(|lease| lease.offset.0 == 3).collect())
    }
    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        Self::known(path)?;
        Ok(vec![Location {
            partition: Partition(0),
            address: "127.0.0.1:1".into(),
        }])
    }
}

pub(crate) fn lease(offset: u64) -> Lease {
    Lease {
        partition: Partition(0),
        offset: Offset(offset),
        token: scheduler_core::id::LeaseToken {
            epoch: scheduler_core::id::Epoch(1),
            attempt: Attempt(1),
        },
        run_until: Timestamp::from_millis(1000),
        spec: TaskSpec::new("{\"n\":1}"),
    }
}
