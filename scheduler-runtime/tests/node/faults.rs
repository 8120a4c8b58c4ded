use std::time::Duration;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, NodeId, Offset, Tenure};
use scheduler_core::policy::{PipelinePolicy, Window};
use scheduler_core::port::gateway::{
    AdminApi as _, ApiError, DeadSelection, TaskApi as _, TaskState, WorkerApi as _, WorkerEvent,
};
use scheduler_core::port::store::CheckpointStore as _;
use scheduler_core::task::{TaskOptions, TaskSpec};
use scheduler_testkit::fault::Fault;

use crate::world::{
    ANNA, EVER, Worker, World, create, create_with, now, rejected, report, soon, success, tasks,
};

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_nothing_is_settled_and_afterwards_nothing_is_lost() {
    for fault in [Fault::Unavailable, Fault::DoneUnavailable] {
        let world = World::default();
        let node = world.start().await;
        let policy = PipelinePolicy {
            window: Window {
                max_tasks: 100,
                max_span: 150,
                ..Window::default()
            },
            ..PipelinePolicy::default()
        };
        let path = create_with(&node, "p", 1, policy).await;
        // The shard is up, and that is saved.
        soon(node.dead(&path, None, 1)).await.unwrap();
        world.faults.set("save", fault);
        let ids = soon(node.submit(&path, tasks(1_000))).await.unwrap();
        let mut worker = Worker::open(&node, &path, ANNA).await;
        worker.credit(1_000).await;
        let mut reported = 0;
        // Leases and reports go on until the window is full of what is not saved.
        let mut alive = tokio::time::interval(worker.session.heartbeat);
        for _ in 0..200 {
            tokio::select! {
                events = worker.session.events.next() => for event in events.unwrap() {
                    match event {
                        WorkerEvent::Leases(leases) => {
                            reported += leases.len();
                            let reports = leases.iter().map(|lease| report(lease, success())).collect();
                            worker.say(vec![scheduler_core::port::gateway::WorkerCommand::Reports(reports)]).await;
                        }
                        WorkerEvent::Settled { .. } => panic!("nothing is saved"),
                        _ => (),
                    }
                },
                _ = alive.tick() => worker.say(vec![scheduler_core::port::gateway::WorkerCommand::Alive]).await,
            }
        }
        assert!((100..=300).contains(&reported), "{reported}");
        let told = soon(node.wait(&path, ids[0], Duration::from_secs(1))).await;
        assert!(matches!(told, Err(ApiError::Unavailable { .. })), "{told:?}");

        world.faults.heal("save");
        while reported < 1_000 {
            let leases = worker.leases(1).await;
            reported += leases.len();
            for lease in &leases {
                worker.report(lease, success()).await;
            }
        }
        worker.settled(1_000).await;
        let view = soon(node.pipeline(&path)).await.unwrap();
        assert_eq!((view.counts.succeeded, view.counts.backlog), (1_000, 0));
        soon(node.shutdown()).await;
        let node = world.start().await;
        for id in &ids {
            let task = soon(node.task(&path, *id)).await.unwrap();
            assert_eq!((task.state, task.attempts.0), (TaskState::Succeeded, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_away_refuses_submissions_and_is_read_on_when_it_is_back() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    world.faults.set("append", Fault::Unavailable);
    let refused = soon(node.submit(&path, tasks(1))).await;
    assert!(
        matches!(refused, Err(ApiError::Unavailable { .. })),
        "{refused:?}"
    );
    world.faults.heal("append");
    for call in ["next", "read"] {
        world.faults.set(call, Fault::Unavailable);
    }
    soon(node.submit(&path, tasks(1))).await.unwrap();
    // The reader was waiting already.
    let first = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap();
    soon(node.report(&path, ANNA, vec![report(&first[0], success())]))
        .await
        .unwrap();
    soon(node.submit(&path, tasks(2))).await.unwrap();
    assert!(
        soon(node.poll(&path, ANNA, 1, Duration::from_secs(30)))
            .await
            .unwrap()
            .is_empty()
    );
    for call in ["next", "read"] {
        world.faults.heal(call);
    }
    assert_eq!(soon(node.poll(&path, ANNA, 2, EVER)).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_read_is_shown_and_other_pipelines_live_on() {
    let world = World::default();
    let node = world.start().await;
    let (bad, good) = (create(&node, "bad").await, create(&node, "good").await);
    let shard = soon(node.submit(&bad, tasks(1))).await.unwrap()[0].shard;
    soon(node.shutdown()).await;
    let claimed = world.store.claim(shard, NodeId(9)).await.unwrap();
    let tenure = Tenure {
        shard,
        epoch: claimed.epoch,
    };
    let mut checkpoint = Checkpoint::empty(
        tenure,
        CheckpointId(1),
        scheduler_core::time::Timestamp::ZERO,
        Offset::ZERO,
    );
    checkpoint.state = vec![0xff; 9].into();
    world.store.save(&[&checkpoint]).await.unwrap();

    let node = world.start().await;
    soon(node.submit(&good, tasks(1))).await.unwrap();
    assert_eq!(soon(node.poll(&good, ANNA, 1, EVER)).await.unwrap().len(), 1);
    let view = soon(node.pipeline(&bad)).await.unwrap();
    assert!(view.problems[0].contains("cannot be read"), "{:?}", view.problems);
    // It takes tasks, can be looked at, and can be deleted.
    soon(node.submit(&bad, tasks(1))).await.unwrap();
    soon(node.delete_pipeline(&bad)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_good_stops_the_shard_and_is_shown_until_somebody_tries_again() {
    let damaged = ["claim", "keys", "bounds", "save"].map(|call| (call, Fault::Damaged));
    let panics = ["claim", "read", "parked"].map(|call| (call, Fault::Panics));
    for (call, fault) in damaged.into_iter().chain(panics) {
        let world = World::default();
        let node = world.start().await;
        let path = create(&node, "p").await;
        let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
        soon(node.shutdown()).await;
        let before = world.faults.calls(call);
        world.faults.set(call, fault);
        let node = world.start().await;
        soon(world.faults.called(call, before + 1)).await;
        world.faults.heal(call);
        let problems = loop {
            let problems = soon(node.pipeline(&path)).await.unwrap().problems;
            if !problems.is_empty() {
                break problems;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(problems[0].contains("the test says so"), "{problems:?}");
        for paused in [true, false] {
            let change = scheduler_core::port::gateway::PipelineChange {
                paused: Some(paused),
                ..Default::default()
            };
            soon(node.change_pipeline(&path, change)).await.unwrap();
        }
        let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
        assert_eq!(lease.offset, ids[0].offset);
    }
}

#[tokio::test(start_paused = true)]
async fn damage_in_one_shard_does_not_keep_others_from_being_saved() {
    let world = World::default();
    let node = world.start().await;
    let path = create_with(&node, "p", 3, PipelinePolicy::default()).await;
    soon(node.dead(&path, None, 1)).await.unwrap();
    for _ in 0..3 {
        soon(node.submit(&path, tasks(1))).await.unwrap();
    }
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(3).await;
    let leases = worker.leases(3).await;
    world.faults.set("save", Fault::Held);
    for lease in &leases {
        worker.report(lease, success()).await;
    }
    let calls = world.faults.calls("save");
    world.faults.set("save", Fault::Damaged);
    soon(world.faults.called("save", calls + 1)).await;
    let problems = loop {
        let problems = soon(node.pipeline(&path)).await.unwrap().problems;
        if !problems.is_empty() {
            break problems;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(problems[0].contains("cannot be saved"));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_whose_shard_cannot_come_up_can_be_deleted_and_leaves_nobody_trying() {
    let world = World::default();
    let node = world.start().await;
    for call in ["claim", "parked", "bounds"] {
        world.faults.set(call, Fault::Unavailable);
        let new = crate::world::new_pipeline("p");
        let app = "app".parse().unwrap();
        // Nothing can be said of its backlog while the log is away, but it is there.
        let _ = soon(node.create_pipeline(&crate::world::me(), &app, new)).await;
        let calls = world.faults.calls(call);
        soon(world.faults.called(call, calls + 2)).await;
        soon(node.delete_pipeline(&crate::world::path("p")))
            .await
            .unwrap();
        let calls = world.faults.calls(call);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(world.faults.calls(call), calls, "{call} is still tried");
        world.faults.heal(call);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_though_the_store_is_away() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    soon(node.submit(&path, tasks(1))).await.unwrap();
    soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap();
    world.faults.set("save", Fault::Held);
    soon(node.shutdown()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_was_read_before_it_was_redriven_and_ended_does_not_live_again() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    soon(node.report(&path, ANNA, vec![report(&lease, rejected())]))
        .await
        .unwrap();

    world.faults.set("dead_tasks", Fault::DoneHeld);
    let redrive = tokio::spawn({
        let (node, path) = (node.clone(), path.clone());
        async move { node.redrive(&path, DeadSelection::All).await }
    });
    soon(world.faults.called("dead_tasks", 1)).await;
    soon(node.retry(&path, ids[0])).await.unwrap();
    let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    soon(node.report(&path, ANNA, vec![report(&lease, success())]))
        .await
        .unwrap();
    world.faults.heal("dead_tasks");

    assert_eq!(soon(redrive).await.unwrap().unwrap(), 0);
    assert_eq!(
        soon(node.task(&path, ids[0])).await.unwrap().state,
        TaskState::Succeeded
    );
    assert!(
        soon(node.poll(&path, ANNA, 1, Duration::from_secs(30)))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_parked_task_that_was_read_before_it_ended_is_not_taken_in_again() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let later = TaskSpec {
        options: Some(Box::new(TaskOptions {
            not_before: Some(now() + Duration::from_hours(2)),
            ..TaskOptions::default()
        })),
        ..TaskSpec::new("1")
    };
    let ids = soon(node.submit(&path, vec![later])).await.unwrap();
    // It is in the store alone by then.
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.faults.set("parked_task", Fault::DoneHeld);
    let cancel = tokio::spawn({
        let (node, path, id) = (node.clone(), path.clone(), ids[0]);
        async move { node.cancel(&path, id).await }
    });
    soon(world.faults.called("parked_task", 1)).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    soon(node.report(&path, ANNA, vec![report(&lease, success())]))
        .await
        .unwrap();
    world.faults.heal("parked_task");
    let late = soon(cancel).await.unwrap();
    assert!(matches!(late, Err(ApiError::Conflict(_))), "{late:?}");
    assert_eq!(
        soon(node.task(&path, ids[0])).await.unwrap().state,
        TaskState::Succeeded
    );
}
