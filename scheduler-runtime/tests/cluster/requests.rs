//! Every request, asked of every node, has the same answer.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{
    AccessApi as _, AdminApi as _, ApiError, DeadSelection, PipelineChange, TaskApi as _, TaskFilter,
    TaskState, WorkerApi as _, WorkerCommand, WorkerEvent, WorkerHello,
};
use scheduler_core::task::TaskSpec;

use crate::world::{EVER, Member, World, create, essence, held, keyed, me, report, soon, success};

const ANNA: WorkerId = WorkerId(1);

#[tokio::test(start_paused = true)]
async fn a_pipeline_made_on_one_node_is_used_on_another_at_once() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 6).await;
    let ids = soon(nodes[1].node.submit(&path, vec![TaskSpec::new("1")]))
        .await
        .unwrap();
    let view = soon(nodes[2].node.task(&path, ids[0])).await.unwrap();
    assert_eq!(view.state, TaskState::Queued);
    let leases = soon(nodes[2].node.poll(&path, ANNA, 1, EVER)).await.unwrap();
    soon(
        nodes[1]
            .node
            .report(&path, ANNA, vec![report(&leases[0], success())]),
    )
    .await
    .unwrap();
    for member in &nodes {
        let view = soon(member.node.wait(&path, ids[0], EVER)).await.unwrap();
        assert_eq!(
            (view.state, &view.output[..]),
            (TaskState::Succeeded, &b"done"[..])
        );
    }
    nodes[0].node.add_client("tenant".parse().unwrap()).await.unwrap();
    nodes[0]
        .node
        .add_key("tenant".parse().unwrap(), "secret", "")
        .await
        .unwrap();
    let caller = soon(nodes[1].node.authenticate(Some("secret"))).await.unwrap();
    assert_eq!(caller.client.to_string(), "tenant");
    let unknown = soon(nodes[1].node.authenticate(Some("wrong"))).await;
    assert!(matches!(unknown, Err(ApiError::Unauthenticated(_))));
}

#[tokio::test(start_paused = true)]
async fn every_node_gives_the_same_answers() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 6).await;
    let mut ids = Vec::new();
    for turn in 0..12 {
        let node = &nodes[turn % 3].node;
        ids.extend(
            soon(node.submit(&path, vec![TaskSpec::new("1"), TaskSpec::new("2")]))
                .await
                .unwrap(),
        );
    }
    world.settled(&nodes[0].node, &path, &[2, 2, 2]).await;
    // Some succeed and some die, run and reported anywhere.
    let mut ended: BTreeMap<_, _> = BTreeMap::new();
    for turn in 0..12 {
        let lease = soon(nodes[turn % 3].node.poll(&path, ANNA, 1, EVER))
            .await
            .unwrap()
            .remove(0);
        let still = soon(nodes[(turn + 1) % 3].node.extend(&path, ANNA, vec![held(&lease)])).await;
        assert_eq!(still.unwrap(), [true]);
        let outcome = if turn % 2 == 0 {
            success()
        } else {
            AttemptOutcome::Rejected { error: "no".into() }
        };
        soon(
            nodes[(turn + 2) % 3]
                .node
                .report(&path, ANNA, vec![report(&lease, outcome)]),
        )
        .await
        .unwrap();
        ended.insert((lease.partition, lease.offset), turn % 2 == 0);
    }
    assert_eq!(ended.len(), 12, "nothing ran twice");

    let mut answers = BTreeSet::new();
    for member in &nodes {
        let node = &member.node;
        let counts = soon(node.pipeline(&path)).await.unwrap().counts;
        assert_eq!(
            (counts.succeeded, counts.dead, counts.ready + counts.backlog),
            (6, 6, 12)
        );
        assert_eq!(
            soon(node.pipelines(&me(), &"app".parse().unwrap()))
                .await
                .unwrap()[0]
                .counts,
            counts
        );
        for id in &ids {
            soon(node.task(&path, *id)).await.unwrap();
        }
        // All of them, page by page, in one order.
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = soon(node.tasks(&path, &TaskFilter::default(), after, 5))
                .await
                .unwrap();
            all.extend(page.items.iter().map(essence));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all.len(), ids.len());
        let dead = soon(node.dead(&path, None, 100)).await.unwrap().items;
        assert_eq!(dead.len(), 6);
        let places: Vec<_> = soon(node.locate(&path)).await.unwrap();
        assert!(places.iter().all(|place| place.address.starts_with("http://")));
        let places: Vec<_> = places
            .into_iter()
            .map(|place| (place.partition, place.address))
            .collect();
        answers.insert(format!("{all:?} {dead:?} {places:?}"));
    }
    assert_eq!(answers.len(), 1);

    dead_letters_are_changed_anywhere(&nodes, &path).await;
}

/// Six dead letters, of which one is retried and cancelled, one purged, and the others redriven.
async fn dead_letters_are_changed_anywhere(nodes: &[Member], path: &PipelinePath) {
    let dead: Vec<_> = soon(nodes[1].node.dead(path, None, 100)).await.unwrap().items;
    let (first, second) = (dead[0].0, dead[5].0);
    assert_eq!(
        soon(nodes[0].node.retry(path, first)).await.unwrap().state,
        TaskState::Queued
    );
    let some = DeadSelection::Ids(vec![second]);
    assert_eq!(soon(nodes[0].node.redrive(path, some)).await.unwrap(), 1);
    let some = DeadSelection::Ids(vec![dead[1].0]);
    assert_eq!(soon(nodes[2].node.purge(path, some)).await.unwrap(), 1);
    assert_eq!(
        soon(nodes[1].node.redrive(path, DeadSelection::All))
            .await
            .unwrap(),
        3
    );
    assert!(
        soon(nodes[2].node.dead(path, None, 100))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let cancelled = soon(nodes[2].node.cancel(path, first)).await.unwrap();
    assert_eq!(cancelled.state, TaskState::Cancelled);
    let again = soon(nodes[0].node.cancel(path, first)).await.unwrap();
    assert_eq!(again.state, TaskState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn tasks_of_one_key_are_one_task_on_all_nodes() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 6).await;
    world.settled(&nodes[1].node, &path, &[2, 2, 2]).await;
    let batch = || vec![keyed("a"), TaskSpec::new("2"), keyed("b"), keyed("c"), keyed("d")];
    let first = soon(nodes[0].node.submit(&path, batch())).await.unwrap();
    let all: BTreeSet<_> = first.iter().collect();
    assert_eq!(all.len(), 5);
    // Their shards have read them.
    for _ in 0..5 {
        let lease = soon(nodes[2].node.poll(&path, ANNA, 1, EVER))
            .await
            .unwrap()
            .remove(0);
        soon(nodes[2].node.report(&path, ANNA, vec![report(&lease, success())]))
            .await
            .unwrap();
    }
    for member in &nodes {
        let again = soon(member.node.submit(&path, batch())).await.unwrap();
        for index in [0, 2, 3, 4] {
            assert_eq!(again[index], first[index]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_one_task_when_the_pipeline_gets_partitions() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 2).await;
    world.settled(&nodes[1].node, &path, &[1, 1]).await;
    let batch = || -> Vec<_> { (0..20).map(|key| keyed(&format!("key {key}"))).collect() };
    let first = soon(nodes[0].node.submit(&path, batch())).await.unwrap();
    for _ in &first {
        let leases = soon(nodes[2].node.poll(&path, ANNA, 1, EVER)).await.unwrap();
        soon(
            nodes[2]
                .node
                .report(&path, ANNA, vec![report(&leases[0], success())]),
        )
        .await
        .unwrap();
    }
    let more = PipelineChange {
        partitions: Some(6),
        ..PipelineChange::default()
    };
    soon(nodes[1].node.change_pipeline(&path, more)).await.unwrap();
    world.settled(&nodes[1].node, &path, &[2, 2, 2]).await;
    for member in &nodes {
        let again = soon(member.node.submit(&path, batch())).await.unwrap();
        assert_eq!(again, first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_sees_what_happens_on_other_nodes() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 3).await;
    world.settled(&nodes[1].node, &path, &[1, 1, 1]).await;
    let mut everything = soon(nodes[1].node.watch(&path, None)).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.extend(
            soon(nodes[0].node.submit(&path, vec![TaskSpec::new("1")]))
                .await
                .unwrap(),
        );
    }
    let mut one = soon(nodes[2].node.watch(&path, Some(ids[1]))).await.unwrap();
    for _ in 0..3 {
        let lease = soon(nodes[2].node.poll(&path, ANNA, 1, EVER))
            .await
            .unwrap()
            .remove(0);
        soon(nodes[2].node.report(&path, ANNA, vec![report(&lease, success())]))
            .await
            .unwrap();
    }
    let mut last = None;
    while let Some(view) = soon(one.next()).await {
        last = Some(view.state);
    }
    assert_eq!(last, Some(TaskState::Succeeded));
    let mut ended = BTreeSet::new();
    while ended.len() < 3 {
        let view = soon(everything.next()).await.expect("the watch goes on");
        if view.state == TaskState::Succeeded {
            ended.insert(view.id);
        }
    }
    assert_eq!(ended, ids.into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_through_a_node_without_shards() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 1).await;
    world.settled(&nodes[1].node, &path, &[1]).await;
    for (turn, member) in nodes.iter().enumerate() {
        let hello = WorkerHello {
            worker: WorkerId(7 + turn as u128),
            name: "test".into(),
            held: Vec::new(),
            reported: Vec::new(),
            shares: false,
            number: 0,
        };
        let mut session = soon(member.node.attach(&path, hello)).await.unwrap();
        let id = soon(member.node.submit(&path, vec![TaskSpec::new("1")]))
            .await
            .unwrap()[0];
        session
            .commands
            .send(vec![WorkerCommand::Credit(1)])
            .await
            .unwrap();
        let lease = 'leased: loop {
            for event in soon(session.events.next()).await.expect("the session goes on") {
                if let WorkerEvent::Leases(mut leases) = event {
                    break 'leased leases.remove(0);
                }
            }
        };
        let reports = vec![report(&lease, success())];
        session
            .commands
            .send(vec![WorkerCommand::Reports(reports)])
            .await
            .unwrap();
        let view = soon(member.node.wait(&path, id, EVER)).await.unwrap();
        assert_eq!(view.state, TaskState::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_and_deletions_reach_all_nodes() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 3).await;
    soon(nodes[1].node.submit(&path, vec![TaskSpec::new("1")]))
        .await
        .unwrap();
    for (turn, member) in nodes.iter().enumerate() {
        let change = PipelineChange {
            partitions: Some(4 + u32::try_from(turn).unwrap()),
            paused: Some(turn == 1),
            ..PipelineChange::default()
        };
        let view = soon(member.node.change_pipeline(&path, change)).await.unwrap();
        assert_eq!(view.pipeline.version, 2 + turn as u64);
        for other in &nodes {
            let seen = soon(other.node.pipeline(&path)).await.unwrap().pipeline;
            assert_eq!(seen, view.pipeline, "what was answered holds on every node");
        }
    }
    world.settled(&nodes[0].node, &path, &[2, 2, 2]).await;
    assert_eq!(soon(nodes[0].node.locate(&path)).await.unwrap().len(), 6);
    soon(nodes[1].node.delete_pipeline(&path)).await.unwrap();
    for member in &nodes {
        let gone = soon(member.node.submit(&path, vec![TaskSpec::new("1")])).await;
        assert!(matches!(gone, Err(ApiError::NotFound { .. })));
    }
    assert!(world.group.held().is_empty());
    let again = create(&nodes[2].node, "p", 1).await;
    let id = soon(nodes[0].node.submit(&again, vec![TaskSpec::new("1")]))
        .await
        .unwrap()[0];
    assert_eq!(id.shard.partition, Partition(0));
    let lease = soon(nodes[1].node.poll(&again, ANNA, 1, EVER)).await.unwrap();
    assert_eq!(lease.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_reached_is_a_problem_that_is_shown() {
    let world = World::default();
    let nodes = world.three().await;
    let path = create(&nodes[0].node, "p", 3).await;
    world.settled(&nodes[0].node, &path, &[1, 1, 1]).await;
    world.cut(&nodes[1]);
    let view = soon(nodes[0].node.pipeline(&path)).await.unwrap();
    assert!(
        view.problems.iter().any(|problem| problem.starts_with("node b ")),
        "{:?}",
        view.problems
    );
    // Submissions go to the log, whoever is away.
    for _ in 0..6 {
        soon(nodes[0].node.submit(&path, vec![TaskSpec::new("1")]))
            .await
            .unwrap();
    }
    let ids = soon(
        nodes[0]
            .node
            .submit(&path, vec![keyed("x"), keyed("y"), keyed("z")]),
    )
    .await
    .unwrap();
    assert_eq!(ids.len(), 3);
}
