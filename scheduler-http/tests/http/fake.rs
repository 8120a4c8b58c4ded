//! A gateway that remembers what it was asked, and answers by the application's name.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use scheduler_core::id::{Attempt, Offset, Partition, PipelineId, ShardId, TaskId, WorkerId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::outcome::{DeadReason, DeadTask};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::{Application, Deployment, Pipeline, Replicas};
use scheduler_core::port::deploy::{Rollout, RolloutPhase};
use scheduler_core::port::gateway::{
    AccessApi, AdminApi, ApiError, Caller, DeadSelection, HeldLease, Lease, Location, NewPipeline, Page,
    PageCursor, PipelineChange, PipelineCounts, PipelineLoad, PipelineView, Report, TaskApi, TaskFilter,
    TaskState, TaskStream, TaskView, Verdict, Waiting, WorkerApi, WorkerHello, WorkerSession,
};
use scheduler_core::port::log::TopicSettings;
use scheduler_core::task::{Priority, TaskSpec};
use scheduler_core::time::Timestamp;
use tokio::sync::{Semaphore, mpsc};

/// The key of client `me`.
pub(crate) const KEY: &str = "secret";

/// What the gateway was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    CreateApplication(Name, Name),
    DeleteApplication(Name),
    CreatePipeline(Name, NewPipeline),
    Change(PipelinePath, PipelineChange),
    Scale(PipelinePath, u32),
    DeletePipeline(PipelinePath),
    Submit(PipelinePath, Vec<TaskSpec>),
    Wait(TaskId, Duration),
    Tasks(TaskFilter, Option<PageCursor>, usize),
    Watch(Option<TaskId>),
    Cancel(TaskId),
    Retry(TaskId),
    Dead(Option<PageCursor>, usize),
    Redrive(DeadSelection),
    Purge(DeadSelection),
}

/// Applications whose names say what comes of a request: `missing`, `taken`, `forbidden`, `busy`, `away`, `strict`, `broken`, `panics`,
/// and `stuck`, whose tasks never end. In all others everything exists and works.
#[derive(Debug)]
pub(crate) struct FakeGateway {
    calls: Mutex<Vec<Call>>,
    next_offset: AtomicU64,
    /// The params of every task by its id.
    pub(crate) taken: Mutex<HashMap<String, Bytes>>,
    /// Each submission takes a permit for good.
    pub(crate) submissions: Semaphore,
    /// Has a permit for each submission that began.
    pub(crate) entered: Semaphore,
    watchers: Mutex<Vec<mpsc::UnboundedSender<TaskView>>>,
    pub(crate) watched: Semaphore,
}

impl Default for FakeGateway {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            next_offset: AtomicU64::new(0),
            taken: Mutex::default(),
            submissions: Semaphore::new(Semaphore::MAX_PERMITS),
            entered: Semaphore::new(0),
            watchers: Mutex::default(),
            watched: Semaphore::new(0),
        }
    }
}

pub(crate) fn id(offset: u64) -> TaskId {
    ShardId::new(PipelineId(1), Partition(0)).task(Offset(offset))
}

pub(crate) fn view(id: TaskId, state: TaskState) -> TaskView {
    TaskView {
        id,
        state,
        attempts: Attempt(1),
        priority: Some(Priority::NORMAL),
        submitted_at: Timestamp::from_millis(1_000),
        started_at: Some(Timestamp::from_millis(2_000)),
        finished_at: state.is_final().then(|| Timestamp::from_millis(3_000)),
        next_attempt_at: None,
        progress: Bytes::from_static(b"half \"way\""),
        output: Bytes::from_static(b"{\"1:wget\":\n[\"\"]}"),
        error: String::new(),
        dead_reason: (state == TaskState::Dead).then_some(DeadReason::Rejected),
        params: Some(Bytes::from_static(b"\xff")),
        waiting: (state == TaskState::Queued).then_some(Waiting::Behind { ahead: 12 }),
    }
}

impl FakeGateway {
    /// What was asked since the last time.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    /// Tells everybody who watches.
    pub(crate) fn tell(&self, view: &TaskView) {
        for watcher in self.watchers.lock().unwrap().iter() {
            let _ = watcher.send(view.clone());
        }
    }

    /// Ends all streams of events.
    pub(crate) fn forget_watchers(&self) {
        self.watchers.lock().unwrap().clear();
    }

    fn pipeline_view(path: PipelinePath) -> PipelineView {
        PipelineView {
            pipeline: Pipeline {
                id: PipelineId(1),
                path,
                version: 3,
                created_at: Timestamp::from_millis(1_000),
                partitions: 4,
                key_partitions: 4,
                topic: TopicSettings::default(),
                policy: PipelinePolicy::default(),
                paused: false,
                definition: Bytes::from_static(br#"{"pipeline":[{"executor":"wget","commands":["a"]}]}"#),
                deployment: Some(Deployment {
                    chart: "charts/old".into(),
                    values: Bytes::from_static(b"{\"a\":1}"),
                    replicas: Replicas { min: 1, max: 4 },
                }),
                deleting: false,
            },
            rollout: Some(Rollout {
                phase: RolloutPhase::Ready,
                wanted: 1,
                ready: 1,
                problem: String::new(),
            }),
            counts: PipelineCounts::default(),
            problems: vec!["partition 2: 3 records are missing".into()],
        }
    }
}

fn check(application: &Name) -> Result<(), ApiError> {
    let retry_after = Duration::from_millis(1_500);
    match application.as_str() {
        "missing" => Err(ApiError::not_found("application", application)),
        "taken" => Err(ApiError::Conflict("there is one already".into())),
        "forbidden" => Err(ApiError::Forbidden("not with this key".into())),
        "busy" => Err(ApiError::Overloaded {
            problem: "too many tasks at once".into(),
            retry_after,
        }),
        "away" => Err(ApiError::Unavailable {
            problem: "the store is away".into(),
            retry_after,
            source: Some("cable cut".into()),
        }),
        "strict" => Err(ApiError::invalid("retry.jitter", "must be more even")),
        "broken" => Err(ApiError::Internal("the password is hunter2".into())),
        "panics" => panic!("the password is hunter2"),
        _ => Ok(()),
    }
}

#[async_trait]
impl AccessApi for FakeGateway {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        match key {
            None => Err(ApiError::Unauthenticated("give an API key".into())),
            Some(KEY) => Ok(Caller {
                client: "me".parse().unwrap(),
            }),
            Some(_) => Err(ApiError::Unauthenticated("the API key is unknown".into())),
        }
    }

    async fn ready(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

#[async_trait]
impl AdminApi for FakeGateway {
    async fn create_application(&self, caller: &Caller, name: Name) -> Result<Application, ApiError> {
        check(&name)?;
        self.note(Call::CreateApplication(caller.client.clone(), name.clone()));
        self.application(caller, &name).await
    }

    async fn applications(&self, caller: &Caller) -> Result<Vec<Application>, ApiError> {
        Ok(vec![self.application(caller, &"ocr".parse().unwrap()).await?])
    }

    async fn application(&self, caller: &Caller, name: &Name) -> Result<Application, ApiError> {
        check(name)?;
        Ok(Application {
            client: caller.client.clone(),
            name: name.clone(),
            created_at: Timestamp::from_millis(1_000),
        })
    }

    async fn delete_application(&self, _: &Caller, name: &Name) -> Result<(), ApiError> {
        check(name)?;
        self.note(Call::DeleteApplication(name.clone()));
        Ok(())
    }

    async fn create_pipeline(
        &self,
        caller: &Caller,
        application: &Name,
        new: NewPipeline,
    ) -> Result<PipelineView, ApiError> {
        check(application)?;
        let path = PipelinePath {
            client: caller.client.clone(),
            application: application.clone(),
            pipeline: new.name.clone(),
        };
        self.note(Call::CreatePipeline(application.clone(), new));
        Ok(Self::pipeline_view(path))
    }

    async fn pipelines(&self, caller: &Caller, application: &Name) -> Result<Vec<PipelineView>, ApiError> {
        check(application)?;
        Ok(vec![Self::pipeline_view(PipelinePath {
            client: caller.client.clone(),
            application: application.clone(),
            pipeline: "ocr".parse().unwrap(),
        })])
    }

    async fn pipeline(&self, path: &PipelinePath) -> Result<PipelineView, ApiError> {
        check(&path.application)?;
        Ok(Self::pipeline_view(path.clone()))
    }

    async fn load(&self, path: &PipelinePath) -> Result<PipelineLoad, ApiError> {
        check(&path.application)?;
        Ok(PipelineLoad {
            pipeline: PipelineId(1),
            paused: false,
            backlog: 1,
            ready: 2,
            delayed: 3,
            running: 4,
            timed: 5,
            busy_ms: u64::MAX,
        })
    }

    async fn change_pipeline(
        &self,
        path: &PipelinePath,
        change: PipelineChange,
    ) -> Result<PipelineView, ApiError> {
        check(&path.application)?;
        self.note(Call::Change(path.clone(), change));
        Ok(Self::pipeline_view(path.clone()))
    }

    async fn scale_pipeline(&self, path: &PipelinePath, workers: u32) -> Result<PipelineView, ApiError> {
        check(&path.application)?;
        self.note(Call::Scale(path.clone(), workers));
        Ok(Self::pipeline_view(path.clone()))
    }

    async fn delete_pipeline(&self, path: &PipelinePath) -> Result<(), ApiError> {
        check(&path.application)?;
        self.note(Call::DeletePipeline(path.clone()));
        Ok(())
    }
}

#[async_trait]
impl TaskApi for FakeGateway {
    /// Refuses params with `"refuse"` in them, as a schema would.
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        check(&path.application)?;
        let refused = |task: &TaskSpec| task.params.windows(8).any(|w| w == b"\"refuse\"");
        if let Some(at) = tasks.iter().position(refused) {
            return Err(ApiError::invalid(
                format!("[{at}].refuse"),
                "is not a param of this pipeline",
            ));
        }
        self.entered.add_permits(1);
        self.submissions.acquire().await.unwrap().forget();
        let count = tasks.len() as u64;
        let first = self.next_offset.fetch_add(count, Ordering::Relaxed);
        let ids: Vec<TaskId> = (first..first + count).map(id).collect();
        let params = tasks.iter().map(|task| task.params.clone());
        self.taken
            .lock()
            .unwrap()
            .extend(ids.iter().map(ToString::to_string).zip(params));
        self.note(Call::Submit(path.clone(), tasks));
        Ok(ids)
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        check(&path.application)?;
        Ok(view(id, TaskState::Running))
    }

    /// Tasks at even offsets have ended; of application `lost` it cannot be told.
    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        check(&path.application)?;
        self.note(Call::Wait(id, patience));
        match path.application.as_str() {
            "stuck" => std::future::pending().await,
            "lost" => Err(ApiError::Internal("cannot tell".into())),
            _ if id.offset.0.is_multiple_of(2) => Ok(view(id, TaskState::Succeeded)),
            _ => Ok(view(id, TaskState::Running)),
        }
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        check(&path.application)?;
        self.note(Call::Tasks(filter.clone(), after, limit));
        Ok(Page {
            items: vec![view(id(7), TaskState::Dead)],
            next: after.is_none().then_some(PageCursor {
                partition: Partition(2),
                offset: Offset(7),
            }),
        })
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        check(&path.application)?;
        self.note(Call::Watch(id));
        let (sender, mut receiver) = mpsc::unbounded_channel();
        if let Some(id) = id {
            sender.send(view(id, TaskState::Running)).unwrap();
        }
        self.watchers.lock().unwrap().push(sender);
        self.watched.add_permits(1);
        Ok(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed())
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        check(&path.application)?;
        self.note(Call::Cancel(id));
        Ok(view(id, TaskState::Cancelled))
    }

    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        check(&path.application)?;
        self.note(Call::Retry(id));
        Ok(view(id, TaskState::Queued))
    }

    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        check(&path.application)?;
        self.note(Call::Dead(after, limit));
        let dead = DeadTask {
            offset: Offset(7),
            reason: DeadReason::AttemptsExhausted,
            error: "exit code 4".into(),
            attempts: Attempt(5),
            submitted_at: Timestamp::from_millis(1_000),
            died_at: Timestamp::from_millis(9_000),
            spec: TaskSpec::new("{\"url\":\"x\"}"),
        };
        Ok(Page {
            items: vec![(id(7), dead)],
            next: after.is_none().then_some(PageCursor {
                partition: Partition(2),
                offset: Offset(7),
            }),
        })
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        check(&path.application)?;
        self.note(Call::Redrive(which));
        Ok(12)
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        check(&path.application)?;
        self.note(Call::Purge(which));
        Ok(13)
    }
}

/// HTTP has nothing for workers.
#[async_trait]
impl WorkerApi for FakeGateway {
    async fn attach(&self, _: &PipelinePath, _: WorkerHello) -> Result<WorkerSession, ApiError> {
        unreachable!("no worker speaks HTTP")
    }

    async fn poll(&self, _: &PipelinePath, _: WorkerId, _: u32, _: Duration) -> Result<Vec<Lease>, ApiError> {
        unreachable!("no worker speaks HTTP")
    }

    async fn report(&self, _: &PipelinePath, _: WorkerId, _: Vec<Report>) -> Result<Vec<Verdict>, ApiError> {
        unreachable!("no worker speaks HTTP")
    }

    async fn extend(&self, _: &PipelinePath, _: WorkerId, _: Vec<HeldLease>) -> Result<Vec<bool>, ApiError> {
        unreachable!("no worker speaks HTTP")
    }

    async fn locate(&self, _: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        unreachable!("no worker speaks HTTP")
    }
}
