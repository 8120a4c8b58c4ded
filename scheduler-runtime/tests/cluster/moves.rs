//! Shards that move: nodes come, go in order, and are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use scheduler_core::id::{Partition, ShardId, TaskId, WorkerId};
use scheduler_core::port::gateway::{
    AdminApi as _, TaskApi as _, TaskFilter, TaskState, WorkerApi as _, WorkerEvent, WorkerHello,
    WorkerSession,
};
use scheduler_core::task::TaskSpec;

use crate::world::{EVER, Member, World, create, create_patient, report, soon, success};

const WORKER: WorkerId = WorkerId(1);

/// What ran, and how often.
type Ledger = Arc<Mutex<BTreeMap<String, u32>>>;

/// A worker that goes through one node, until it is told to stop.
fn work(
    member: &Member,
    path: &scheduler_core::name::PipelinePath,
    ledger: &Ledger,
) -> tokio::task::JoinHandle<()> {
    let (node, path, ledger) = (member.node.clone(), path.clone(), ledger.clone());
    tokio::spawn(async move {
        loop {
            let Ok(leases) = node.poll(&path, WORKER, 4, Duration::from_secs(1)).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            for lease in leases {
                let name = String::from_utf8(lease.spec.params.to_vec()).unwrap();
                *ledger.lock().unwrap().entry(name).or_default() += 1;
                // Until somebody takes it: its shard may be on its way.
                while node
                    .report(&path, WORKER, vec![report(&lease, success())])
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    })
}

async fn submit(
    member: &Member,
    path: &scheduler_core::name::PipelinePath,
    from: u32,
    to: u32,
) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for number in from..to {
        let tasks = vec![TaskSpec::new(number.to_string())];
        ids.extend(soon(member.node.submit(path, tasks)).await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn nodes_come_and_go_in_order_and_nothing_runs_twice() {
    let world = World::default();
    let a = world.start("a").await;
    let path = create(&a.node, "p", 6).await;
    let ledger = Ledger::default();
    let worker = work(&a, &path, &ledger);
    let mut ids = submit(&a, &path, 0, 50).await;
    let b = world.start("b").await;
    ids.extend(submit(&b, &path, 50, 100).await);
    let c = world.start("c").await;
    ids.extend(submit(&c, &path, 100, 150).await);
    world.settled(&a.node, &path, &[2, 2, 2]).await;
    let leaving = b.node.clone();
    let left = tokio::spawn(async move { leaving.shutdown().await });
    ids.extend(submit(&c, &path, 150, 200).await);
    soon(left).await.unwrap();
    for id in &ids {
        let view = soon(c.node.wait(&path, *id, EVER)).await.unwrap();
        assert_eq!(view.state, TaskState::Succeeded, "{view:?}");
    }
    worker.abort();
    let ledger = ledger.lock().unwrap();
    assert_eq!(ledger.len(), 200);
    assert!(ledger.values().all(|runs| *runs == 1), "{ledger:?}");
    assert_eq!(world.group.held(), [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_when_another_node_goes_down_or_is_killed() {
    let world = World::default();
    let mut nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 6).await;
    world.settled(&nodes[0].node, &path, &[2, 2, 2]).await;
    let mut watch = soon(nodes[0].node.watch(&path, None)).await.unwrap();
    for in_order in [true, false] {
        let gone = nodes.remove(1);
        if in_order {
            soon(gone.node.shutdown()).await;
        } else {
            world.kill(gone);
        }
        let shards = if nodes.len() == 2 { vec![3, 3] } else { vec![6] };
        world.settled(&nodes[0].node, &path, &shards).await;
        let mut rest: BTreeSet<_> = submit(&nodes[0], &path, 0, 12).await.into_iter().collect();
        while !rest.is_empty() {
            let view = soon(watch.next()).await.expect("the watch goes on");
            rest.remove(&view.id);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_s_tasks_end_on_the_others() {
    let world = World::default();
    let mut nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 6).await;
    let ledger = Ledger::default();
    let mut ids = submit(&nodes[0], &path, 0, 60).await;
    world.settled(&nodes[0].node, &path, &[2, 2, 2]).await;
    let worker = work(&nodes[0], &path, &ledger);
    world.kill(nodes.remove(1));
    ids.extend(submit(&nodes[1], &path, 60, 120).await);
    for id in &ids {
        let view = soon(nodes[1].node.wait(&path, *id, EVER)).await.unwrap();
        assert_eq!(view.state, TaskState::Succeeded, "{view:?}");
    }
    worker.abort();
    assert_eq!(ledger.lock().unwrap().len(), 120);
    assert_eq!(world.group.held(), [3, 3]);
    let all = soon(nodes[0].node.tasks(&path, &TaskFilter::default(), None, 1_000))
        .await
        .unwrap();
    assert_eq!(all.items.len(), 120);
}

#[tokio::test(start_paused = true)]
async fn lists_are_whole_while_shards_move() {
    let world = World::default();
    let a = world.start("a").await;
    let path = create(&a.node, "p", 8).await;
    let ids = submit(&a, &path, 0, 64).await;
    let mut nodes = vec![a];
    for name in ["b", "c", "d"] {
        nodes.push(world.start(name).await);
        for member in &nodes {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = soon(member.node.tasks(&path, &TaskFilter::default(), after, 7))
                    .await
                    .unwrap();
                found.extend(page.items.into_iter().map(|view| view.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found.len(), ids.len());
            let is_ordered = found.windows(2).all(|pair| {
                let key = |id: &TaskId| (id.shard.partition, std::cmp::Reverse(id.offset));
                key(&pair[0]) < key(&pair[1])
            });
            assert!(is_ordered);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn workers_are_told_that_a_quarantined_shard_has_left_as_of_any_other() {
    let world = World::default();
    let first = world.start("a").await;
    let path = create_patient(&first.node, "p", 2).await;
    world.settled(&first.node, &path, &[2]).await;
    let id = soon(first.node.submit(&path, vec![TaskSpec::new("1")]))
        .await
        .unwrap()[0];
    world.kill(first);
    for partition in [0, 1].map(Partition) {
        world
            .owners_die(ShardId::new(id.shard.pipeline, partition), 4)
            .await;
    }
    let node = world.start("b").await.node;
    let quarantined = async {
        while soon(node.pipeline(&path)).await.unwrap().problems.len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(quarantined).await;
    let mut session = soon(node.attach(&path, hello(WORKER))).await.unwrap();
    // One of the two goes there.
    let _other = world.start("c").await;
    soon(moved_or_over(&mut session)).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_opened_as_the_last_shard_leaves_ends_or_hears_of_it() {
    let world = World::default();
    let first = world.start("a").await;
    create(&first.node, "p", 1).await;
    let path = create_patient(&first.node, "q", 1).await;
    world.settled(&first.node, &path, &[2]).await;
    let attached = tokio::spawn({
        let (node, path) = (first.node.local(), path.clone());
        async move {
            let mut sessions = Vec::new();
            // One worker after the other, at every moment until there is nothing here to have a session with.
            while let Ok(session) = node.attach(&path, hello(WorkerId(sessions.len() as u128))).await {
                sessions.push(session);
                turn().await;
            }
            sessions
        }
    });
    // The only shard of the second pipeline goes there.
    let _second = world.start("b").await;
    for mut session in soon(attached).await.unwrap() {
        soon(moved_or_over(&mut session)).await;
    }
}

fn hello(worker: WorkerId) -> WorkerHello {
    WorkerHello {
        worker,
        name: "test".into(),
        held: Vec::new(),
        reported: Vec::new(),
        shares: true,
        number: 0,
    }
}

/// Lets what else is ready go on by one step each; a yield of the runtime waits until nothing else is ready.
async fn turn() {
    let mut had_turn = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut had_turn, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Waits until a session has been told that a shard has left, or is over.
async fn moved_or_over(session: &mut WorkerSession) {
    while let Some(events) = session.events.next().await {
        if events.iter().any(|event| matches!(event, WorkerEvent::Moved(_))) {
            return;
        }
    }
}
