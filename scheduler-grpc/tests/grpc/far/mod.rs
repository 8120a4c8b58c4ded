//! The gateway of another node: it writes down what it is asked, and answers always the same.

mod node;

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use scheduler_core::id::*;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::{DeadReason, DeadTask};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::{Application, Deployment, Pipeline, Replicas};
use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::deploy::{BusyWorker, Rollout, RolloutPhase};
use scheduler_core::port::gateway::*;
use scheduler_core::port::log::TopicSettings;
use scheduler_core::task::{Priority, TaskSpec};
use scheduler_core::time::Timestamp;
use tokio::sync::mpsc;

pub(crate) use node::{FarNode, Link};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn path() -> PipelinePath {
    PipelinePath {
        client: name("tenant"),
        application: name("docs"),
        pipeline: name("ocr"),
    }
}

pub(crate) fn id(offset: u64) -> TaskId {
    ShardId::new(PipelineId(9), Partition(2)).task(Offset(offset))
}

pub(crate) fn lease(offset: u64, spec: TaskSpec) -> Lease {
    Lease {
        partition: Partition(2),
        offset: Offset(offset),
        token: LeaseToken {
            epoch: Epoch(1),
            attempt: Attempt(1),
        },
        run_until: Timestamp::from_millis(1000),
        spec,
    }
}

/// What a test holds of a session.
#[derive(Debug)]
pub(crate) struct FarSession {
    pub(crate) hello: WorkerHello,
    pub(crate) commands: mpsc::Receiver<Vec<WorkerCommand>>,
    pub(crate) events: mpsc::UnboundedSender<Vec<WorkerEvent>>,
}

#[derive(Debug, Default)]
pub(crate) struct FarGateway {
    calls: Mutex<Vec<String>>,
    /// What every call is answered, if set.
    pub(crate) fails: Mutex<Option<fn() -> ApiError>>,
    sessions: Option<mpsc::UnboundedSender<FarSession>>,
}

impl FarGateway {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<FarSession>) {
        let (sessions, opened) = mpsc::unbounded_channel();
        let far = Self {
            sessions: Some(sessions),
            ..Self::default()
        };
        (far, opened)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note<T>(&self, call: String, answer: T) -> Result<T, ApiError> {
        self.calls.lock().unwrap().push(call);
        self.fails
            .lock()
            .unwrap()
            .map_or(Ok(answer), |error| Err(error()))
    }
}

fn application() -> Application {
    Application {
        client: name("tenant"),
        name: name("docs"),
        created_at: Timestamp::MAX,
    }
}

fn pipeline() -> PipelineView {
    let mut policy = PipelinePolicy::default();
    policy.retry.jitter = 0.1 + 0.2;
    policy.timeouts.run = Duration::from_nanos(12_345_678_901);
    PipelineView {
        pipeline: Pipeline {
            id: PipelineId(9),
            path: path(),
            version: u64::MAX,
            created_at: Timestamp::from_millis(3),
            partitions: 4,
            key_partitions: 3,
            topic: TopicSettings::default(),
            policy,
            paused: true,
            definition: Bytes::from_static(b"\xff\x00"),
            deployment: Some(Deployment {
                chart: "c".into(),
                values: Bytes::from_static(b"\xff"),
                replicas: Replicas { min: 1, max: 2 },
            }),
            deleting: true,
        },
        rollout: Some(Rollout {
            phase: RolloutPhase::Failed,
            wanted: 1,
            ready: 2,
            problem: "p".into(),
        }),
        counts: PipelineCounts {
            backlog: 1,
            ready: 2,
            delayed: 3,
            running: 4,
            succeeded: 5,
            dead: 6,
            cancelled: 7,
            workers: 8,
        },
        problems: vec!["one".into(), String::new()],
    }
}

fn busy() -> Vec<BusyWorker> {
    vec![BusyWorker {
        name: "ocr-1".into(),
        tasks: u64::MAX,
    }]
}

fn full_view() -> TaskView {
    TaskView {
        id: id(1),
        state: TaskState::Dead,
        attempts: Attempt(3),
        priority: Some(Priority::MAX),
        submitted_at: Timestamp::from_millis(1),
        started_at: Some(Timestamp::from_millis(2)),
        finished_at: Some(Timestamp::from_millis(3)),
        next_attempt_at: Some(Timestamp::ZERO),
        progress: Bytes::from_static(b"\xff"),
        output: Bytes::from_static(b"\xfe"),
        error: "e".into(),
        dead_reason: Some(DeadReason::Undecodable),
        params: Some(Bytes::new()),
        waiting: Some(Waiting::InLog { ahead: u64::MAX }),
    }
}

fn bare_view() -> TaskView {
    TaskView {
        state: TaskState::Queued,
        priority: None,
        started_at: None,
        finished_at: None,
        next_attempt_at: None,
        progress: Bytes::new(),
        dead_reason: None,
        params: None,
        ..full_view()
    }
}

#[async_trait]
impl PeerGateway for FarGateway {
    async fn flush(&self, path: &PipelinePath) -> Result<(), ApiError> {
        self.note(format!("flush {path:?}"), ())
    }

    async fn busy(&self, path: &PipelinePath) -> Result<Vec<BusyWorker>, ApiError> {
        self.note(format!("busy {path:?}"), busy())
    }

    async fn refresh(&self) -> Result<(), ApiError> {
        self.note("refresh".to_owned(), ())
    }
}

#[async_trait]
impl AccessApi for FarGateway {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        let caller = Caller {
            client: name("tenant"),
        };
        self.note(format!("authenticate {key:?}"), caller)
    }
    async fn ready(&self) -> Result<(), ApiError> {
        self.note("ready".into(), ())
    }
}

#[async_trait]
impl AdminApi for FarGateway {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        self.note(format!("create_application {caller:?} {name:?}"), application())
    }
    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        self.note(
            format!("applications {caller:?}"),
            vec![application(), application()],
        )
    }
    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        self.note(format!("application {caller:?} {name:?}"), application())
    }
    async fn delete_application(&self, caller: &Caller, name: &Name) -> Result<(), ApiError> {
        self.note(format!("delete_application {caller:?} {name:?}"), ())
    }
    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        let call = format!("create_pipeline {caller:?} {application:?} {new:?}");
        self.note(call, pipeline())
    }
    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        let bare = PipelineView {
            pipeline: Pipeline {
                deployment: None,
                ..pipeline().pipeline
            },
            rollout: None,
            ..pipeline()
        };
        let call = format!("pipelines {caller:?} {application:?}");
        self.note(call, vec![pipeline(), bare])
    }
    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        self.note(format!("pipeline {path:?}"), pipeline())
    }
    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        let load = PipelineLoad {
            pipeline: PipelineId(u32::MAX),
            paused: true,
            backlog: 1,
            ready: 2,
            delayed: 3,
            running: 4,
            timed: 5,
            busy_ms: u64::MAX,
        };
        self.note(format!("load {path:?}"), load)
    }
    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        self.note(format!("change {path:?} {change:?}"), pipeline())
    }
    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        self.note(format!("scale {path:?} {workers}"), pipeline())
    }
    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        self.note(format!("delete {path:?}"), ())
    }
}

#[async_trait]
impl TaskApi for FarGateway {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        self.note(format!("submit {path:?} {tasks:?}"), vec![id(0), id(u64::MAX)])
    }
    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.note(format!("task {path:?} {id:?}"), full_view())
    }
    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        self.note(format!("wait {path:?} {id:?} {patience:?}"), bare_view())
    }
    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let page = Page {
            items: vec![full_view(), bare_view()],
            next: after,
        };
        self.note(format!("tasks {path:?} {filter:?} {after:?} {limit}"), page)
    }
    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        let views = futures::stream::iter([full_view(), bare_view()]);
        let stream: TaskStream = match id {
            Some(_) => Box::pin(views),
            None => Box::pin(views.take(1).chain(futures::stream::pending())),
        };
        self.note(format!("watch {path:?} {id:?}"), stream)
    }
    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.note(format!("cancel {path:?} {id:?}"), full_view())
    }
    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.note(format!("retry {path:?} {id:?}"), bare_view())
    }
    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        let dead = DeadTask {
            offset: Offset(7),
            reason: DeadReason::Rejected,
            error: "not a picture".into(),
            attempts: Attempt(1),
            submitted_at: Timestamp::from_millis(1),
            died_at: Timestamp::from_millis(2),
            spec: TaskSpec::new("{}"),
        };
        let page = Page {
            items: vec![(id(7), dead)],
            next: after,
        };
        self.note(format!("dead {path:?} {after:?} {limit}"), page)
    }
    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        self.note(format!("redrive {path:?} {which:?}"), u64::MAX)
    }
    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        self.note(format!("purge {path:?} {which:?}"), 0)
    }
}

#[derive(Debug)]
struct Sink(mpsc::Sender<Vec<WorkerCommand>>);

#[async_trait]
impl CommandSink for Sink {
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError> {
        let sent = self.0.send(commands).await;
        sent.map_err(|_| ApiError::Conflict("another session of the worker took over".into()))
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
impl WorkerApi for FarGateway {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        self.note(format!("attach {path:?}"), ())?;
        let (commands, taken) = mpsc::channel(1);
        let (events, source) = mpsc::unbounded_channel();
        let session = FarSession {
            hello,
            commands: taken,
            events,
        };
        self.sessions.as_ref().unwrap().send(session).unwrap();
        Ok(WorkerSession {
            definition: Bytes::from_static(b"\xffdefinition"),
            heartbeat: Duration::from_nanos(2_500_000_003),
            commands: Box::new(Sink(commands)),
            events: Box::new(Source(source)),
        })
    }
    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        let call = format!("poll {path:?} {worker:?} {limit} {patience:?}");
        self.note(call, vec![lease(3, TaskSpec::new("{}"))])
    }
    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        let call = format!("report {path:?} {worker:?} {reports:?}");
        self.note(call, vec![Verdict::Taken, Verdict::Late])
    }
    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        self.note(
            format!("extend {path:?} {worker:?} {leases:?}"),
            vec![true, false],
        )
    }
    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        let locations = vec![
            Location {
                partition: Partition(0),
                address: "http://127.0.0.1:1".into(),
            },
            Location {
                partition: Partition(1),
                address: String::new(),
            },
        ];
        self.note(format!("locate {path:?}"), locations)
    }
}
