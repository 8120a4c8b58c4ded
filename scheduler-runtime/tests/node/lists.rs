use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scheduler_core::id::TaskId;
use scheduler_core::name::PipelinePath;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy, Window};
use scheduler_core::port::gateway::{TaskApi as _, TaskFilter, TaskState, WorkerApi as _};
use scheduler_runtime::Node;

use crate::world::{ANNA, EVER, World, create_with, rejected, report, soon, success, tasks};

/// Reads all pages of `limit`; every task is on one of them.
async fn all(
    node: &Node,
    path: &PipelinePath,
    states: &[TaskState],
    limit: usize,
) -> Vec<(TaskId, TaskState)> {
    let filter = TaskFilter {
        states: states.to_vec(),
        partition: None,
    };
    let (mut listed, mut after) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = soon(node.tasks(path, &filter, after, limit)).await.unwrap();
        assert!(page.items.len() <= limit);
        listed.extend(page.items.iter().map(|view| (view.id, view.state)));
        after = page.next;
        if after.is_none() {
            let different: BTreeSet<_> = listed.iter().map(|(id, _)| *id).collect();
            assert_eq!(
                different.len(),
                listed.len(),
                "a task is listed twice: {listed:?}"
            );
            return listed;
        }
    }
    panic!("the list has no end");
}

#[tokio::test(start_paused = true)]
async fn every_task_is_listed_once_whatever_the_filter_and_the_size_of_pages() {
    let node = World::default().start().await;
    let policy = PipelinePolicy {
        retry: RetryPolicy {
            initial_backoff: Duration::from_hours(1),
            max_backoff: Duration::from_hours(1),
            ..RetryPolicy::default()
        },
        window: Window {
            max_tasks: 24,
            max_span: 64,
            ..Window::default()
        },
        ..PipelinePolicy::default()
    };
    let path = create_with(&node, "p", 3, policy).await;
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        ids.extend(soon(node.submit(&path, tasks(50))).await.unwrap());
    }
    // Some succeed, some die, some fail and are parked, some run, some are cancelled, and some are not loaded yet.
    let mut expected = BTreeMap::new();
    for round in 0..60 {
        let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
        let id = scheduler_core::id::ShardId::new(ids.first().unwrap().shard.pipeline, lease.partition)
            .task(lease.offset);
        let (outcome, state) = match round % 4 {
            0 => (Some(success()), TaskState::Succeeded),
            1 => (Some(rejected()), TaskState::Dead),
            2 => (
                Some(scheduler_core::outcome::AttemptOutcome::Failed { error: "x".into() }),
                TaskState::Delayed,
            ),
            _ if round < 20 => (None, TaskState::Running),
            _ => {
                soon(node.cancel(&path, id)).await.unwrap();
                (
                    Some(scheduler_core::outcome::AttemptOutcome::Stopped),
                    TaskState::Cancelled,
                )
            }
        };
        if let Some(outcome) = outcome {
            soon(node.report(&path, ANNA, vec![report(&lease, outcome)]))
                .await
                .unwrap();
        }
        expected.insert(id, state);
    }
    for id in &ids {
        expected.entry(*id).or_insert(TaskState::Queued);
    }
    for limit in [1, 2, 7, 50, 1_000] {
        let listed = all(&node, &path, &[], limit).await;
        assert_eq!(
            listed.into_iter().collect::<BTreeMap<_, _>>(),
            expected,
            "pages of {limit}"
        );
        for state in [
            TaskState::Queued,
            TaskState::Delayed,
            TaskState::Running,
            TaskState::Succeeded,
            TaskState::Dead,
            TaskState::Cancelled,
            TaskState::Expired,
        ] {
            let listed: BTreeMap<_, _> = all(&node, &path, &[state], limit).await.into_iter().collect();
            let wanted: BTreeMap<_, _> = expected
                .iter()
                .filter(|(_, is)| **is == state)
                .map(|(id, is)| (*id, *is))
                .collect();
            assert_eq!(listed, wanted, "{state:?} in pages of {limit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_row_is_older_than_its_state_is_listed_as_it_is() {
    let node = World::default().start().await;
    let policy = PipelinePolicy {
        window: Window {
            max_tasks: 16,
            max_span: 16,
            ..Window::default()
        },
        ..PipelinePolicy::default()
    };
    let path = create_with(&node, "p", 1, policy).await;
    soon(node.submit(&path, tasks(40))).await.unwrap();
    // The first one runs for long and is carried over into the store.
    let first = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    for _ in 0..30 {
        let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
        soon(node.report(&path, ANNA, vec![report(&lease, success())]))
            .await
            .unwrap();
        soon(node.extend(&path, ANNA, vec![crate::world::held(&first)]))
            .await
            .unwrap();
    }
    let running = all(&node, &path, &[TaskState::Running], 10).await;
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].0.offset, first.offset);
    let waiting = all(&node, &path, &[TaskState::Queued, TaskState::Delayed], 10).await;
    assert!(waiting.iter().all(|(id, _)| id.offset != first.offset));
    assert_eq!(waiting.len(), 9);
}
