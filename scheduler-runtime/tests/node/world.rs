//! Ports that outlive nodes, nodes over them, and workers that do as they are told.

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{
    AdminApi as _, Caller, HeldLease, Lease, NewPipeline, Report, WorkerApi as _, WorkerCommand, WorkerEvent,
    WorkerHello, WorkerSession,
};
use scheduler_core::task::TaskSpec;
use scheduler_core::time::Timestamp;
use scheduler_runtime::{Node, NodeConfig};
use scheduler_testkit::fault::{Faults, FaultyLog, FaultyStore};
use scheduler_testkit::memory::{MemoryLog, MemoryStore};

/// Longer than anything takes; with paused time it is over at once when nothing else can happen.
pub(crate) const EVER: Duration = Duration::from_hours(24);

pub(crate) const ANNA: WorkerId = WorkerId(1);
pub(crate) const BERT: WorkerId = WorkerId(2);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(EVER, what).await.expect("it happens")
}

pub(crate) fn me() -> Caller {
    Caller {
        client: "default".parse().unwrap(),
    }
}

pub(crate) fn path(pipeline: &str) -> PipelinePath {
    PipelinePath {
        client: "default".parse().unwrap(),
        application: "app".parse().unwrap(),
        pipeline: pipeline.parse().unwrap(),
    }
}

pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        anonymous: Some("default".parse().unwrap()),
        ..NodeConfig::default()
    }
}

pub(crate) fn new_pipeline(name: &str) -> NewPipeline {
    NewPipeline {
        name: name.parse().unwrap(),
        deployment: None,
        definition: None,
        partitions: None,
        topic: None,
        policy: None,
    }
}

pub(crate) fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(u64::try_from(now.unwrap().as_millis()).unwrap())
}

/// A log and a store in memory, with faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) store: MemoryStore,
    pub(crate) faults: Faults,
}

impl World {
    pub(crate) async fn start(&self) -> Node {
        self.start_with(config()).await
    }

    pub(crate) async fn start_with(&self, config: NodeConfig) -> Node {
        self.log.set_now(now());
        let log = FaultyLog::new(Arc::new(self.log.clone()), self.faults.clone());
        let store = FaultyStore::new(self.store.clone(), self.faults.clone());
        let builder = Node::builder(Arc::new(log), Arc::new(store)).config(config);
        soon(builder.start()).await.expect("the node starts")
    }
}

/// Makes a pipeline of one partition.
pub(crate) async fn create(node: &Node, name: &str) -> PipelinePath {
    create_with(node, name, 1, PipelinePolicy::default()).await
}

pub(crate) async fn create_with(
    node: &Node,
    name: &str,
    partitions: u32,
    policy: PipelinePolicy,
) -> PipelinePath {
    let new = NewPipeline {
        partitions: Some(partitions),
        policy: Some(policy),
        ..new_pipeline(name)
    };
    let created = soon(node.create_pipeline(&me(), &"app".parse().unwrap(), new)).await;
    created.expect("it is created").pipeline.path
}

pub(crate) fn tasks(count: usize) -> Vec<TaskSpec> {
    (0..count)
        .map(|number| TaskSpec::new(number.to_string()))
        .collect()
}

pub(crate) fn success() -> AttemptOutcome {
    AttemptOutcome::Succeeded {
        output: "done".into(),
    }
}

pub(crate) fn rejected() -> AttemptOutcome {
    AttemptOutcome::Rejected { error: "no".into() }
}

pub(crate) fn held(lease: &Lease) -> HeldLease {
    HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    }
}

pub(crate) fn report(lease: &Lease, outcome: AttemptOutcome) -> Report {
    Report {
        lease: held(lease),
        outcome,
    }
}

/// A worker with a session.
pub(crate) struct Worker {
    pub(crate) session: WorkerSession,
    /// Events that came and were not asked for.
    pub(crate) others: Vec<WorkerEvent>,
}

impl Worker {
    pub(crate) async fn open(node: &Node, path: &PipelinePath, worker: WorkerId) -> Self {
        Self::return_with(node, path, worker, Vec::new(), Vec::new()).await
    }

    pub(crate) async fn return_with(
        node: &Node,
        path: &PipelinePath,
        worker: WorkerId,
        held: Vec<HeldLease>,
        reported: Vec<Report>,
    ) -> Self {
        let hello = WorkerHello {
            shares: false,
            number: 0,
            worker,
            name: format!("worker-{}", worker.0),
            held,
            reported,
        };
        Self {
            session: soon(node.attach(path, hello)).await.expect("a session opens"),
            others: Vec::new(),
        }
    }

    pub(crate) async fn say(&self, commands: Vec<WorkerCommand>) {
        soon(self.session.commands.send(commands))
            .await
            .expect("the session is open");
    }

    pub(crate) async fn credit(&self, tasks: u32) {
        self.say(vec![WorkerCommand::Credit(tasks)]).await;
    }

    pub(crate) async fn report(&self, lease: &Lease, outcome: AttemptOutcome) {
        self.say(vec![WorkerCommand::Reports(vec![report(lease, outcome)])])
            .await;
    }

    /// Waits for at least so many leases.
    pub(crate) async fn leases(&mut self, count: usize) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < count {
            for event in soon(self.session.events.next())
                .await
                .expect("the session goes on")
            {
                match event {
                    WorkerEvent::Leases(more) => leases.extend(more),
                    other => self.others.push(other),
                }
            }
        }
        leases
    }

    /// Gives signs of life until an event comes that is wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&WorkerEvent) -> bool) {
        let mut alive = tokio::time::interval(self.session.heartbeat);
        let found = async {
            loop {
                if let Some(at) = self.others.iter().position(&wanted) {
                    self.others.drain(..=at);
                    return;
                }
                tokio::select! {
                    events = self.session.events.next() => self.others.extend(events.expect("the session goes on")),
                    _ = alive.tick() => {
                        let alive = self.session.commands.send(vec![WorkerCommand::Alive]).await;
                        alive.expect("the session is open");
                    }
                }
            }
        };
        soon(found).await;
    }

    /// Waits until so many reports for partition 0 are settled.
    pub(crate) async fn settled(&mut self, reports: u64) {
        self.until(|event| {
            matches!(event, WorkerEvent::Settled { partition: Partition(0), count, .. } if *count >= reports)
        })
        .await;
    }

    /// Takes all events until the session is over.
    pub(crate) async fn ended(&mut self) -> Vec<WorkerEvent> {
        while let Some(events) = soon(self.session.events.next()).await {
            self.others.extend(events);
        }
        std::mem::take(&mut self.others)
    }
}
