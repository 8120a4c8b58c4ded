//! Nodes that share a log, a store and a group.

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{NodeId, ShardId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::deploy::Deployer;
use scheduler_core::port::gateway::{AdminApi as _, Caller, HeldLease, Lease, NewPipeline, Report, TaskView};
use scheduler_core::port::store::CheckpointStore as _;
use scheduler_core::task::{TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_runtime::{ClusterConfig, Node, NodeConfig};
use scheduler_testkit::memory::{MemoryGroup, MemoryLog, MemoryPlacement, MemoryStore};

use crate::links::Links;

/// Longer than anything takes; with paused time it is over at once when nothing else can happen.
pub(crate) const EVER: Duration = Duration::from_hours(1);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(EVER, what).await.expect("it happens")
}

pub(crate) fn me() -> Caller {
    Caller {
        client: "default".parse().unwrap(),
    }
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(u64::try_from(now.unwrap().as_millis()).unwrap())
}

#[derive(Debug, Default)]
pub(crate) struct World {
    log: MemoryLog,
    store: MemoryStore,
    pub(crate) group: MemoryGroup,
    links: Links,
}

/// A node, and what is needed to kill it.
pub(crate) struct Member {
    pub(crate) node: Node,
    placement: Arc<MemoryPlacement>,
    address: String,
}

impl World {
    pub(crate) async fn start(&self, name: &str) -> Member {
        self.start_with(name, None).await
    }

    pub(crate) async fn start_with(&self, name: &str, deployer: Option<Arc<dyn Deployer>>) -> Member {
        self.log.set_now(now());
        let placement = Arc::new(self.group.join());
        let address = format!("http://{name}");
        let cluster = ClusterConfig::new(
            Arc::new(self.store.clone()),
            Arc::new(self.links.clone()),
            name,
            address.clone(),
        );
        let config = NodeConfig {
            anonymous: Some("default".parse().unwrap()),
            ..NodeConfig::default()
        };
        let builder = Node::builder(Arc::new(self.log.clone()), Arc::new(self.store.clone()));
        let mut builder = builder
            .config(config)
            .placement(placement.clone())
            .cluster(cluster);
        if let Some(deployer) = deployer {
            builder = builder.deployer(deployer);
        }
        let node = soon(builder.start()).await.expect("the node starts");
        self.links.connect(&address, node.local());
        Member {
            node,
            placement,
            address,
        }
    }

    pub(crate) async fn three(&self) -> Vec<Member> {
        let mut members = Vec::new();
        for name in ["a", "b", "c"] {
            members.push(self.start(name).await);
        }
        members
    }

    /// A shard has had so many owners that died before they saved anything.
    pub(crate) async fn owners_die(&self, shard: ShardId, count: u128) {
        for owner in 0..count {
            self.store.claim(shard, NodeId(1_000 + owner)).await.unwrap();
        }
    }

    /// Nobody reaches the node any more.
    pub(crate) fn cut(&self, member: &Member) {
        self.links.cut(&member.address);
    }

    /// The node is gone, as after a crash.
    pub(crate) fn kill(&self, member: Member) {
        self.links.cut(&member.address);
        drop(member.node);
        self.group.kill(&member.placement);
    }

    /// Waits until a pipeline's shards, the only ones there are, are dealt out so, and `node` knows where each is.
    pub(crate) async fn settled(&self, node: &Node, path: &PipelinePath, shards: &[usize]) {
        let settled = async {
            loop {
                let view = node.pipeline(path).await.unwrap();
                if view.problems.is_empty() && self.group.held() == shards {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        soon(settled).await;
    }
}

/// A policy that tries again at once, and saves often.
fn quick() -> PipelinePolicy {
    let mut policy = PipelinePolicy::default();
    policy.retry.max_attempts = 2;
    policy.retry.initial_backoff = Duration::from_millis(1);
    policy.checkpoint.interval = Duration::from_millis(100);
    policy
}

pub(crate) async fn create(node: &Node, name: &str, partitions: u32) -> PipelinePath {
    create_with(node, name, partitions, quick()).await
}

/// A pipeline whose workers may be silent for longer than anything takes.
pub(crate) async fn create_patient(node: &Node, name: &str, partitions: u32) -> PipelinePath {
    let mut policy = quick();
    policy.timeouts.heartbeat = EVER * 10;
    create_with(node, name, partitions, policy).await
}

async fn create_with(node: &Node, name: &str, partitions: u32, policy: PipelinePolicy) -> PipelinePath {
    let new = NewPipeline {
        name: name.parse().unwrap(),
        deployment: None,
        definition: None,
        partitions: Some(partitions),
        topic: None,
        policy: Some(policy),
    };
    let created = soon(node.create_pipeline(&me(), &"app".parse().unwrap(), new)).await;
    created.expect("it is created").pipeline.path
}

pub(crate) fn keyed(key: &str) -> TaskSpec {
    TaskSpec {
        options: Some(Box::new(TaskOptions {
            idempotency_key: Some(key.to_owned().into()),
            ..TaskOptions::default()
        })),
        ..TaskSpec::new("1")
    }
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

pub(crate) fn success() -> AttemptOutcome {
    AttemptOutcome::Succeeded {
        output: "done".into(),
    }
}

/// What is the same wherever it is asked for.
pub(crate) fn essence(
    view: &TaskView,
) -> (
    scheduler_core::id::TaskId,
    scheduler_core::port::gateway::TaskState,
    bytes::Bytes,
) {
    (view.id, view.state, view.output.clone())
}
