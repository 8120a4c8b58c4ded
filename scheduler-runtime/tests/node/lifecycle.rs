use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{Epoch, NodeId, TaskId};
use scheduler_core::name::PipelinePath;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{
    AccessApi as _, AdminApi as _, ApiError, PipelineChange, TaskApi as _, TaskState, WorkerApi as _,
    WorkerEvent,
};
use scheduler_core::port::store::CheckpointStore as _;
use scheduler_core::task::TaskOptions;
use scheduler_runtime::Node;
use scheduler_testkit::fault::Fault;

use crate::world::{
    ANNA, BERT, EVER, Worker, World, config, create, create_with, held, me, new_pipeline, now, path, soon,
    success, tasks,
};

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_running_tasks_settles_their_reports_and_releases_the_shards() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(1).await;
    let ids = soon(node.submit(&path, tasks(2))).await.unwrap();
    let lease = worker.leases(1).await.remove(0);
    let (down, events) = tokio::join!(
        async {
            let down = tokio::spawn({
                let node = node.clone();
                async move { node.shutdown().await }
            });
            soon(down).await.unwrap();
        },
        async {
            worker.until(|event| *event == WorkerEvent::GoAway).await;
            worker.report(&lease, success()).await;
            worker.ended().await
        },
    );
    let () = down;
    let settled = events
        .iter()
        .position(|event| matches!(event, WorkerEvent::Settled { count: 1, .. }));
    assert!(
        settled.is_some(),
        "the report is settled before the session ends: {events:?}"
    );
    assert!(matches!(node.ready().await, Err(ApiError::Unavailable { .. })));
    assert!(matches!(
        node.submit(&path, tasks(1)).await,
        Err(ApiError::Unavailable { .. })
    ));
    drop(node);

    let start = tokio::time::Instant::now();
    let node = world.start().await;
    assert_eq!(
        soon(node.task(&path, ids[0])).await.unwrap().state,
        TaskState::Succeeded
    );
    let other = soon(node.poll(&path, BERT, 2, EVER)).await.unwrap();
    assert_eq!(other.len(), 1);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "a released shard needs no grace"
    );
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_leases_nothing_more_whatever_is_changed() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let mut worker = Worker::open(&node, &path, ANNA).await;
    let pause = |paused| PipelineChange {
        paused: Some(paused),
        ..PipelineChange::default()
    };
    soon(node.change_pipeline(&path, pause(true))).await.unwrap();
    soon(node.submit(&path, tasks(1))).await.unwrap();
    worker.credit(1).await;
    world.faults.set("release", Fault::Held);
    let down = tokio::spawn({
        let node = node.clone();
        async move { node.shutdown().await }
    });
    worker.until(|event| *event == WorkerEvent::GoAway).await;
    // Nothing runs, so it is drained; and it is not down, because it cannot release its shard.
    soon(node.change_pipeline(&path, pause(false))).await.unwrap();
    world.faults.heal("release");
    soon(down).await.unwrap();
    let events = worker.ended().await;
    assert!(
        !events.iter().any(|event| matches!(event, WorkerEvent::Leases(_))),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_answered_when_the_node_goes_down() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let start = tokio::time::Instant::now();
    let (polled, ()) = tokio::join!(node.poll(&path, ANNA, 1, Duration::from_mins(1)), node.shutdown());
    assert!(polled.unwrap().is_empty());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_dropped_lets_go_of_everything() {
    let world = World::default();
    let store = Arc::new(world.store.clone());
    let node = Node::builder(Arc::new(world.log.clone()), store.clone())
        .config(config())
        .start()
        .await
        .unwrap();
    let path = create(&node, "p").await;
    let worker = Worker::open(&node, &path, ANNA).await;
    drop(node);
    // An open session does not keep it either.
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_worker_reports_what_it_did_meanwhile_and_nothing_runs_twice() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(3).await;
    let ids = soon(node.submit(&path, tasks(3))).await.unwrap();
    let leases = worker.leases(3).await;
    drop((node, worker));

    let node = world.start().await;
    let reported = vec![crate::world::report(&leases[0], success())];
    let mut worker = Worker::return_with(&node, &path, ANNA, vec![held(&leases[1])], reported).await;
    worker.settled(1).await;
    worker.report(&leases[1], success()).await;
    worker.settled(2).await;
    for id in &ids[..2] {
        let task = soon(node.wait(&path, *id, EVER)).await.unwrap();
        assert_eq!((task.state, task.attempts.0), (TaskState::Succeeded, 1));
    }
    // The third was neither held nor reported: another attempt follows.
    worker.credit(1).await;
    assert_eq!(worker.leases(1).await[0].offset, leases[2].offset);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_hears_a_worker_that_lost_its_connection_and_comes_back_with_what_it_has() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(1).await;
    let lease = worker.leases(1).await.remove(0);
    let down = tokio::spawn({
        let node = node.clone();
        async move { node.shutdown().await }
    });
    worker.until(|event| matches!(event, WorkerEvent::GoAway)).await;
    drop(worker);

    let mut worker = Worker::return_with(&node, &path, ANNA, vec![held(&lease)], Vec::new()).await;
    worker.report(&lease, success()).await;
    worker.settled(1).await;
    soon(down).await.unwrap();
    let node = world.start().await;
    let task = soon(node.wait(&path, ids[0], EVER)).await.unwrap();
    assert_eq!((task.state, task.attempts.0), (TaskState::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_second_claim_on_the_same_store_makes_the_first_owner_stop_and_say_so() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(1).await;
    let lease = worker.leases(1).await.remove(0);
    soon(world.store.claim(ids[0].shard, NodeId(99))).await.unwrap();
    worker.report(&lease, success()).await;
    worker.until(|event| matches!(event, WorkerEvent::Moved(_))).await;
    assert!(
        !worker
            .others
            .iter()
            .any(|event| matches!(event, WorkerEvent::Settled { .. }))
    );
    let view = soon(node.pipeline(&path)).await.unwrap();
    assert!(view.problems[0].contains("another node"), "{:?}", view.problems);
    assert_eq!(view.counts.running, 0);
}

/// A node that was replaced as owner of a parked task's shard, and can hear of it only as it reads the row. Answers the newer epoch.
async fn replaced(world: &World) -> (Node, PipelinePath, TaskId, Epoch) {
    let node = world.start().await;
    let path = create(&node, "p").await;
    let mut later = tasks(1);
    later[0].options = Some(Box::new(TaskOptions {
        not_before: Some(now() + Duration::from_hours(2)),
        ..TaskOptions::default()
    }));
    let id = soon(node.submit(&path, later)).await.unwrap()[0];
    while world.store.parked_task(id).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = world.store.claim(id.shard, NodeId(99)).await.unwrap();
    world.faults.set("save", Fault::Unavailable);
    (node, path, id, other.epoch)
}

#[tokio::test(start_paused = true)]
async fn a_replaced_owner_changes_no_row_of_its_successor() {
    let world = World::default();
    let (node, path, id, _) = replaced(&world).await;
    let refused = soon(node.cancel(&path, id)).await.unwrap_err();
    assert!(matches!(refused, ApiError::Unavailable { .. }), "{refused:?}");
    let problems = soon(node.pipeline(&path)).await.unwrap().problems;
    assert!(problems[0].contains("another node"), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_owner_takes_in_no_rows_of_its_successor() {
    let world = World::default();
    let (node, path, _, newer) = replaced(&world).await;
    // Whoever waits is told that the shard leaves, and asks again.
    let lease = loop {
        if let Some(lease) = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().pop() {
            break lease;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(lease.token.epoch > newer, "{:?}", lease.token);
}

#[tokio::test(start_paused = true)]
async fn starts_and_stops_in_a_row_do_not_put_a_shard_into_quarantine() {
    let world = World::default();
    let path = create(&world.start().await, "p").await;
    for round in 0..8 {
        let node = world.start().await;
        if round % 2 == 0 {
            // Down again before the claim has answered.
            soon(node.shutdown()).await;
        } else {
            // A crash as soon as it is up.
            let calls = world.faults.calls("save");
            soon(world.faults.called("save", calls + 1)).await;
        }
    }
    let node = world.start().await;
    soon(node.submit(&path, tasks(1))).await.unwrap();
    assert_eq!(soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().len(), 1);
    assert!(soon(node.pipeline(&path)).await.unwrap().problems.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_quarantined_shard_says_so_and_comes_up_when_somebody_resumes_the_pipeline() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    soon(node.shutdown()).await;
    for node in 1..=4 {
        world.store.claim(ids[0].shard, NodeId(node)).await.unwrap();
    }
    let node = world.start().await;
    let problems = loop {
        let problems = soon(node.pipeline(&path)).await.unwrap().problems;
        if !problems.is_empty() {
            break problems;
        }
        tokio::task::yield_now().await;
    };
    assert!(problems[0].contains("quarantined"), "{problems:?}");
    for paused in [true, false] {
        let change = PipelineChange {
            paused: Some(paused),
            ..Default::default()
        };
        soon(node.change_pipeline(&path, change)).await.unwrap();
    }
    assert_eq!(soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().len(), 1);
    assert!(soon(node.pipeline(&path)).await.unwrap().problems.is_empty());
}

#[tokio::test(start_paused = true)]
async fn deleting_a_pipeline_ends_its_sessions_polls_waits_and_watches_and_its_name_is_free_again() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let mut worker = Worker::open(&node, &path, ANNA).await;
    let wait = tokio::spawn({
        let (node, path, id) = (node.clone(), path.clone(), ids[0]);
        async move { node.wait(&path, id, Duration::from_hours(1)).await }
    });
    let mut watch = soon(node.watch(&path, None)).await.unwrap();
    tokio::task::yield_now().await;
    soon(node.delete_pipeline(&path)).await.unwrap();
    worker.ended().await;
    assert!(soon(wait).await.unwrap().is_err());
    while soon(futures::StreamExt::next(&mut watch)).await.is_some() {}
    assert!(matches!(
        node.pipeline(&path).await,
        Err(ApiError::NotFound { .. })
    ));

    let path = create(&node, "p").await;
    let again = soon(node.submit(&path, tasks(1))).await.unwrap();
    assert_ne!(again[0].shard.pipeline, ids[0].shard.pipeline);
    assert!(matches!(
        node.task(&path, ids[0]).await,
        Err(ApiError::NotFound { .. })
    ));
    assert_eq!(soon(node.poll(&path, BERT, 1, EVER)).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_goes_on_when_its_caller_goes_and_when_the_node_starts_again() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    world.faults.set("forget", Fault::Held);
    {
        let delete = node.delete_pipeline(&path);
        tokio::pin!(delete);
        tokio::select! {
            _ = &mut delete => panic!("it is held"),
            () = soon(world.faults.called("forget", 1)) => (),
        }
    }
    let taken = node
        .create_pipeline(&me(), &"app".parse().unwrap(), new_pipeline("p"))
        .await;
    assert!(matches!(taken, Err(ApiError::Conflict(_))));
    drop(node);
    let node = world.start().await;
    soon(world.faults.called("forget", 2)).await;
    world.faults.heal("forget");
    loop {
        let new = node
            .create_pipeline(&me(), &"app".parse().unwrap(), new_pipeline("p"))
            .await;
        if new.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_or_change_goes_on_when_its_caller_goes() {
    let world = World::default();
    let node = world.start().await;
    world.faults.set("add_pipeline", Fault::Held);
    {
        let app = "app".parse().unwrap();
        let me = me();
        let create = node.create_pipeline(&me, &app, new_pipeline("p"));
        tokio::pin!(create);
        tokio::select! {
            _ = &mut create => panic!("it is held"),
            () = soon(world.faults.called("add_pipeline", 1)) => (),
        }
    }
    world.faults.heal("add_pipeline");
    while node.pipeline(&path("p")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pipelines_made_at_the_same_time_all_come_up() {
    let world = World::default();
    let node = world.start().await;
    create(&node, "first").await;
    let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    let created = futures::future::join_all(
        names
            .iter()
            .map(|name| create_with(&node, name, 3, PipelinePolicy::default())),
    );
    for path in soon(created).await {
        soon(node.submit(&path, tasks(1))).await.unwrap();
        assert_eq!(soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn new_partitions_take_their_share() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let change = PipelineChange {
        partitions: Some(4),
        ..Default::default()
    };
    soon(node.change_pipeline(&path, change)).await.unwrap();
    for _ in 0..8 {
        soon(node.submit(&path, tasks(1))).await.unwrap();
    }
    let mut partitions = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let leases = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap();
        partitions.insert(leases[0].partition.0);
    }
    assert_eq!(partitions.len(), 4);
    assert_eq!(soon(node.locate(&path)).await.unwrap().len(), 4);
}
