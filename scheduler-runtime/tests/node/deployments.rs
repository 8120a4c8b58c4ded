use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::deploy::{
    BusyWorker, ChartFacts, DeployError, Deployer, Rollout, RolloutPhase, Wanted,
};
use scheduler_core::port::gateway::{
    AdminApi as _, ApiError, NewDeployment, NewPipeline, PipelineChange, TaskApi as _, WorkerApi as _,
};
use scheduler_runtime::Node;

use crate::world::{
    ANNA, BERT, EVER, Worker, World, config, me, new_pipeline, path, report, soon, success, tasks,
};

/// A deployer that does nothing, and remembers it.
#[derive(Debug, Default)]
struct Fake {
    state: Mutex<State>,
    changed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    is_away: bool,
    attempts: u32,
    wanted: BTreeMap<PipelineId, (Wanted, u32)>,
    /// Something else says how many workers there are.
    is_scaled_by_others: bool,
    /// How many workers were going to be wanted, and who was busy then.
    spared: Vec<(u32, Vec<BusyWorker>)>,
}

impl Fake {
    /// Waits until so many workers are wanted of the pipeline.
    async fn wants(&self, workers: std::ops::RangeInclusive<u32>) {
        let wanted = async {
            loop {
                let changed = self.changed.notified();
                if self
                    .state
                    .lock()
                    .unwrap()
                    .wanted
                    .values()
                    .any(|(_, is)| workers.contains(is))
                {
                    return;
                }
                changed.await;
            }
        };
        soon(wanted).await;
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, DeployError> {
        let mut state = self.state.lock().unwrap();
        state.attempts += 1;
        if state.is_away {
            return Err(DeployError::Unavailable("away".into()));
        }
        let answer = change(&mut state);
        self.changed.notify_waiters();
        Ok(answer)
    }
}

#[async_trait]
impl Deployer for Fake {
    async fn inspect(&self, _: &PipelinePath, _: &NewDeployment) -> Result<ChartFacts, DeployError> {
        Ok(ChartFacts {
            definition: None,
            replicas: Some(Replicas { min: 0, max: 4 }),
            objects: Vec::new(),
        })
    }

    async fn apply(&self, wanted: Wanted) -> Result<(), DeployError> {
        let Replicas { min, max } = wanted.deployment.replicas;
        self.with(|state| {
            // Workers outlive nodes: those that are there stay.
            let there = state.wanted.get(&wanted.pipeline);
            let workers = there.map_or(min, |(_, workers)| (*workers).clamp(min, max));
            state.wanted.insert(wanted.pipeline, (wanted, workers));
        })
    }

    async fn scale(&self, pipeline: PipelineId, workers: u32) -> Result<(), DeployError> {
        self.with(|state| state.wanted.get_mut(&pipeline).unwrap().1 = workers)
    }

    fn is_scaled_by_others(&self, _: PipelineId) -> bool {
        self.state.lock().unwrap().is_scaled_by_others
    }

    async fn spare(&self, _: PipelineId, workers: u32, busy: &[BusyWorker]) -> Result<(), DeployError> {
        self.with(|state| state.spared.push((workers, busy.to_vec())))
    }

    async fn rollout(&self, pipeline: PipelineId) -> Result<Option<Rollout>, DeployError> {
        let wanted = self
            .state
            .lock()
            .unwrap()
            .wanted
            .get(&pipeline)
            .map(|(_, workers)| *workers);
        Ok(wanted.map(|wanted| Rollout {
            phase: RolloutPhase::Ready,
            wanted,
            ready: wanted,
            problem: String::new(),
        }))
    }

    async fn hand_over(&self, pipeline: PipelineId) -> Result<(), DeployError> {
        self.with(|state| state.wanted.remove(&pipeline)).map(drop)
    }

    async fn remove(&self, pipeline: PipelineId, _: &PipelinePath) -> Result<(), DeployError> {
        self.with(|state| state.wanted.remove(&pipeline)).map(drop)
    }

    async fn shutdown(&self) {}
}

async fn start(world: &World, deployer: &Arc<Fake>) -> Node {
    let builder = Node::builder(Arc::new(world.log.clone()), Arc::new(world.store.clone()));
    builder
        .config(config())
        .deployer(deployer.clone())
        .start()
        .await
        .unwrap()
}

async fn deploy(node: &Node) -> PipelinePath {
    let new = NewPipeline {
        deployment: Some(NewDeployment {
            chart: "chart".into(),
            values: "".into(),
            min_replicas: None,
            max_replicas: None,
        }),
        ..new_pipeline("p")
    };
    soon(node.create_pipeline(&me(), &"app".parse().unwrap(), new))
        .await
        .unwrap()
        .pipeline
        .path
}

#[tokio::test(start_paused = true)]
async fn workers_come_with_work_and_go_without_and_come_again() {
    let (world, deployer) = (World::default(), Arc::default());
    let node = start(&world, &deployer).await;
    let path = deploy(&node).await;
    // Nobody knows how long a task takes; later it is known that it takes no time.
    for workers in [4, 1, 1] {
        deployer.wants(0..=0).await;
        // It has been idle for long.
        tokio::time::sleep(Duration::from_mins(10)).await;
        let looks = deployer.state.lock().unwrap().attempts;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(deployer.state.lock().unwrap().attempts, looks);
        soon(node.submit(&path, tasks(40))).await.unwrap();
        deployer.wants(workers..=workers).await;
        for _ in 0..40 {
            let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
            soon(node.report(&path, ANNA, vec![report(&lease, success())]))
                .await
                .unwrap();
        }
    }
    deployer.wants(0..=0).await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_deployed_is_deployed_when_the_deployer_is_back() {
    let (world, deployer) = (World::default(), Arc::<Fake>::default());
    let node = start(&world, &deployer).await;
    deployer.state.lock().unwrap().is_away = true;
    deploy(&node).await;
    assert!(deployer.state.lock().unwrap().wanted.is_empty());
    deployer.state.lock().unwrap().is_away = false;
    deployer.wants(0..=0).await;
}

#[tokio::test(start_paused = true)]
async fn bounds_are_kept_and_a_deletion_ends_the_workers() {
    let (world, deployer) = (World::default(), Arc::<Fake>::default());
    let node = start(&world, &deployer).await;
    let path_ = deploy(&node).await;
    let change = PipelineChange {
        min_replicas: Some(2),
        ..PipelineChange::default()
    };
    let view = soon(node.change_pipeline(&path_, change)).await.unwrap();
    assert_eq!(view.rollout.unwrap().wanted, 2);
    assert!(matches!(
        node.scale_pipeline(&path_, 5).await,
        Err(ApiError::Invalid { .. })
    ));
    assert_eq!(
        node.scale_pipeline(&path_, 3)
            .await
            .unwrap()
            .rollout
            .unwrap()
            .wanted,
        3
    );
    soon(node.delete_pipeline(&path_)).await.unwrap();
    assert!(deployer.state.lock().unwrap().wanted.is_empty());
    assert!(node.pipeline(&path("p")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn workers_that_an_earlier_node_left_go_when_there_is_nothing_for_them() {
    let (world, deployer) = (World::default(), Arc::<Fake>::default());
    let node = start(&world, &deployer).await;
    let path = deploy(&node).await;
    soon(node.scale_pipeline(&path, 4)).await.unwrap();
    deployer.wants(4..=4).await;
    node.shutdown().await;
    deployer.wants(4..=4).await;
    let _next = start(&world, &deployer).await;
    deployer.wants(0..=0).await;
}

/// What a session calls itself, with as many tasks.
fn busy(of: &[(&str, u64)]) -> Vec<BusyWorker> {
    of.iter()
        .map(|(name, tasks)| BusyWorker {
            name: (*name).to_owned(),
            tasks: *tasks,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn who_is_busy_is_said_before_there_are_fewer_workers_and_at_no_other_time() {
    let (world, deployer) = (World::default(), Arc::<Fake>::default());
    let node = start(&world, &deployer).await;
    let path = deploy(&node).await;
    let mut worker = Worker::open(&node, &path, BERT).await;
    soon(node.submit(&path, tasks(40))).await.unwrap();
    deployer.wants(4..=4).await;
    worker.credit(2).await;
    let held = worker.leases(2).await;
    for _ in 0..38 {
        let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
        soon(node.report(&path, ANNA, vec![report(&lease, success())]))
            .await
            .unwrap();
    }
    let spared = || std::mem::take(&mut deployer.state.lock().unwrap().spared);
    assert_eq!(spared(), []);
    let alive = tokio::spawn(async move { worker.until(|_| false).await });
    deployer.wants(2..=2).await;
    assert_eq!(spared(), [(2, busy(&[("worker-2", 2)]))]);
    soon(node.scale_pipeline(&path, 1)).await.unwrap();
    assert_eq!(spared(), [(1, busy(&[("worker-2", 2)]))]);
    let narrower = PipelineChange {
        max_replicas: Some(3),
        ..PipelineChange::default()
    };
    soon(node.change_pipeline(&path, narrower)).await.unwrap();
    assert_eq!(spared(), [(3, busy(&[("worker-2", 2)]))]);

    alive.abort();
    soon(node.report(
        &path,
        BERT,
        held.iter().map(|lease| report(lease, success())).collect(),
    ))
    .await
    .unwrap();
    deployer.wants(0..=0).await;
    assert_eq!(spared().last(), Some(&(0, Vec::new())));
}

#[tokio::test(start_paused = true)]
async fn where_something_else_scales_it_is_looked_now_and_then_who_is_busy_while_others_are_not() {
    let (world, deployer) = (World::default(), Arc::<Fake>::default());
    deployer.state.lock().unwrap().is_scaled_by_others = true;
    let node = start(&world, &deployer).await;
    let path = deploy(&node).await;
    let spared = || std::mem::take(&mut deployer.state.lock().unwrap().spared);
    let mut worker = Worker::open(&node, &path, BERT).await;
    soon(node.submit(&path, tasks(2))).await.unwrap();
    worker.credit(1).await;
    let first = worker.leases(1).await.remove(0);
    tokio::time::sleep(Duration::from_secs(8)).await;
    // One task waits: whoever is there is wanted.
    assert_eq!(spared(), []);
    worker.report(&first, success()).await;
    worker.credit(1).await;
    worker.leases(1).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    // At once, and once more five seconds later.
    assert_eq!(spared(), vec![(1, busy(&[("worker-2", 1)])); 2]);
}
