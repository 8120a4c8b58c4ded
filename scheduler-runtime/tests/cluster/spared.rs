//! Who is busy, on all nodes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use scheduler_core::id::{PipelineId, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::deploy::{BusyWorker, ChartFacts, DeployError, Deployer, Rollout, Wanted};
use scheduler_core::port::gateway::{
    AdminApi as _, NewDeployment, NewPipeline, TaskApi as _, WorkerApi as _, WorkerCommand, WorkerEvent,
    WorkerHello, WorkerSession,
};
use scheduler_core::task::TaskSpec;

use crate::world::{Member, World, me, soon};

/// A deployer that writes down who is to be spared.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u32, Vec<BusyWorker>)>>);

#[async_trait]
impl Deployer for Told {
    async fn inspect(&self, _: &PipelinePath, _: &NewDeployment) -> Result<ChartFacts, DeployError> {
        Ok(ChartFacts::default())
    }

    async fn apply(&self, _: Wanted) -> Result<(), DeployError> {
        Ok(())
    }

    async fn scale(&self, _: PipelineId, _: u32) -> Result<(), DeployError> {
        Ok(())
    }

    fn is_scaled_by_others(&self, _: PipelineId) -> bool {
        false
    }

    async fn spare(&self, _: PipelineId, workers: u32, busy: &[BusyWorker]) -> Result<(), DeployError> {
        self.0.lock().unwrap().push((workers, busy.to_vec()));
        Ok(())
    }

    async fn rollout(&self, _: PipelineId) -> Result<Option<Rollout>, DeployError> {
        Ok(None)
    }

    async fn hand_over(&self, _: PipelineId) -> Result<(), DeployError> {
        Ok(())
    }

    async fn remove(&self, _: PipelineId, _: &PipelinePath) -> Result<(), DeployError> {
        Ok(())
    }

    async fn shutdown(&self) {}
}

/// A session with one node that has so many tasks.
async fn session(
    member: &Member,
    path: &PipelinePath,
    worker: u128,
    name: &str,
    tasks: u32,
) -> WorkerSession {
    let hello = WorkerHello {
        worker: WorkerId(worker),
        name: name.to_owned(),
        held: Vec::new(),
        reported: Vec::new(),
        shares: false,
        number: 0,
    };
    let mut session = soon(member.node.attach(path, hello)).await.unwrap();
    session
        .commands
        .send(vec![WorkerCommand::Credit(tasks)])
        .await
        .unwrap();
    let mut held = 0;
    while held < tasks as usize {
        for event in soon(session.events.next()).await.expect("the session goes on") {
            if let WorkerEvent::Leases(leases) = event {
                held += leases.len();
            }
        }
    }
    session
}

#[tokio::test(start_paused = true)]
async fn workers_are_busy_with_the_tasks_that_they_have_of_all_nodes() {
    let (world, told) = (World::default(), Arc::<Told>::default());
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(world.start_with(name, Some(told.clone())).await);
    }
    let new = NewPipeline {
        name: "p".parse().unwrap(),
        deployment: Some(NewDeployment {
            chart: "chart".into(),
            values: "".into(),
            min_replicas: Some(0),
            max_replicas: Some(4),
        }),
        definition: None,
        partitions: Some(3),
        topic: None,
        policy: None,
    };
    let created = soon(nodes[0].node.create_pipeline(&me(), &"app".parse().unwrap(), new)).await;
    let path = created.unwrap().pipeline.path;
    world.settled(&nodes[1].node, &path, &[1, 1, 1]).await;
    for number in 0..60 {
        let task = TaskSpec::new(number.to_string());
        soon(nodes[0].node.submit(&path, vec![task])).await.unwrap();
    }
    // One worker has sessions with two nodes.
    let _sessions = [
        session(&nodes[0], &path, 1, "anna", 2).await,
        session(&nodes[1], &path, 1, "anna", 3).await,
        session(&nodes[2], &path, 2, "bert", 1).await,
        // It is idle.
        session(&nodes[2], &path, 3, "cora", 0).await,
    ];
    for member in &nodes {
        soon(member.node.scale_pipeline(&path, 1)).await.unwrap();
    }
    let busy = |name: &str, tasks| BusyWorker {
        name: name.to_owned(),
        tasks,
    };
    // Asked anywhere, it is the same.
    let expected = (1, vec![busy("anna", 5), busy("bert", 1)]);
    assert_eq!(*told.0.lock().unwrap(), vec![expected; 3]);

    // Without an answer of all nobody is called idle.
    world.cut(&nodes[2]);
    told.0.lock().unwrap().clear();
    let first = nodes[0].node.scale_pipeline(&path, 1).await;
    let second = nodes[1].node.scale_pipeline(&path, 1).await;
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    assert_eq!(*told.0.lock().unwrap(), []);
}
