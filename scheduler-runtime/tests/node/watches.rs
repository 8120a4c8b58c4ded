use std::time::Duration;

use futures::StreamExt as _;
use scheduler_core::policy::{PipelinePolicy, Window};
use scheduler_core::port::gateway::{AdminApi as _, TaskApi as _, TaskState, WorkerApi as _};
use scheduler_core::task::{TaskOptions, TaskSpec};

use crate::world::{ANNA, Worker, World, create, create_with, now, report, soon, success, tasks};

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_task_that_is_parked_is_told_when_it_has_ended() {
    let node = World::default().start().await;
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
    assert_eq!(
        soon(node.task(&path, ids[0])).await.unwrap().state,
        TaskState::Delayed
    );
    let wait = node.wait(&path, ids[0], Duration::from_hours(20));
    let work = async {
        loop {
            let leases = node.poll(&path, ANNA, 1, Duration::from_mins(1)).await.unwrap();
            if let Some(lease) = leases.first() {
                return node
                    .report(&path, ANNA, vec![report(lease, success())])
                    .await
                    .unwrap();
            }
        }
    };
    let (ended, _) = soon(async { tokio::join!(wait, work) }).await;
    assert_eq!(ended.unwrap().state, TaskState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_task_behind_a_full_window_is_told_when_it_has_ended() {
    let node = World::default().start().await;
    let policy = PipelinePolicy {
        window: Window {
            max_tasks: 4,
            max_span: 8,
            ..Window::default()
        },
        ..PipelinePolicy::default()
    };
    let path = create_with(&node, "p", 1, policy).await;
    let ids = soon(node.submit(&path, tasks(50))).await.unwrap();
    let wait = node.wait(&path, ids[49], Duration::from_hours(20));
    let work = async {
        for _ in 0..50 {
            let leases = node.poll(&path, ANNA, 1, Duration::from_mins(1)).await.unwrap();
            node.report(&path, ANNA, vec![report(&leases[0], success())])
                .await
                .unwrap();
        }
    };
    let (ended, ()) = soon(async { tokio::join!(wait, work) }).await;
    assert_eq!(ended.unwrap().state, TaskState::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_each_change_once_and_ends_with_its_task() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let mut watch = soon(node.watch(&path, Some(ids[0]))).await.unwrap();
    let mut states = vec![soon(watch.next()).await.unwrap().state];
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(1).await;
    let lease = worker.leases(1).await.remove(0);
    states.push(soon(watch.next()).await.unwrap().state);
    worker.report(&lease, success()).await;
    while let Some(view) = soon(watch.next()).await {
        states.push(view.state);
    }
    assert_eq!(
        states,
        [TaskState::Queued, TaskState::Running, TaskState::Succeeded]
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_everything_is_cut_off_and_others_go_on() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let slow = soon(node.watch(&path, None)).await.unwrap();
    soon(node.submit(&path, tasks(3_000))).await.unwrap();
    while soon(node.pipeline(&path)).await.unwrap().counts.ready < 3_000 {
        tokio::task::yield_now().await;
    }
    let seen = soon(slow.count()).await;
    assert!(seen <= 1_024, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_says_how_the_task_is() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let view = soon(node.wait(&path, ids[0], Duration::from_secs(1)))
        .await
        .unwrap();
    assert_eq!(view.state, TaskState::Queued);
}
