//! Several nodes over one log and one store: who has a shard, who lets go of it, and who comes back to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use scheduler_core::port::gateway::{AdminApi as _, ApiError, TaskApi as _, TaskState, WorkerApi as _};

use crate::world::{ANNA, BERT, EVER, World, create, held, report, soon, success, tasks};

#[tokio::test(start_paused = true)]
async fn two_nodes_that_both_believe_in_a_shard_do_not_keep_it_from_working() {
    let world = World::default();
    let first = world.start().await;
    let path = create(&first, "p").await;
    let ids = soon(first.submit(&path, tasks(20))).await.unwrap();
    // Each is told by its placement that every shard is its own.
    let second = world.start().await;
    let mut left = ids.len();
    while left > 0 {
        for (node, worker) in [(&first, ANNA), (&second, BERT)] {
            let leases = soon(node.poll(&path, worker, 20, Duration::from_secs(5)))
                .await
                .unwrap();
            let reports = leases.iter().map(|lease| report(lease, success())).collect();
            if let Ok(verdicts) = soon(node.report(&path, worker, reports)).await {
                left = left.saturating_sub(verdicts.len());
            }
        }
    }
    // They take it from each other less and less often.
    let before = world.faults.calls("claim");
    tokio::time::sleep(Duration::from_mins(10)).await;
    let claims = world.faults.calls("claim") - before;
    assert!(claims <= 2 * 10 * 60 / 15 + 2, "{claims} claims in ten minutes");
    // Once one of them has left, the other has it for good.
    soon(first.shutdown()).await;
    soon(second.submit(&path, tasks(1))).await.unwrap();
    let lease = soon(second.poll(&path, BERT, 1, EVER)).await.unwrap().remove(0);
    // The last claim of the one that left may have been made just before: then the lease was of an owner that was none, and is reported again.
    let reported = async {
        while let Err(problem) = second.report(&path, BERT, vec![report(&lease, success())]).await {
            assert!(matches!(problem, ApiError::Unavailable { .. }), "{problem}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(reported).await;
    for id in ids {
        assert_eq!(
            soon(second.task(&path, id)).await.unwrap().state,
            TaskState::Succeeded
        );
    }
    let problems = soon(second.pipeline(&path)).await.unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_polls_keeps_its_task_through_the_crash_of_the_node() {
    let world = World::default();
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    // Nothing says so in the store.
    drop(node);
    let node = world.start().await;
    let extended = async {
        loop {
            match node.extend(&path, ANNA, vec![held(&lease)]).await {
                Ok(held) => break held,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    assert_eq!(soon(extended).await, [true]);
    assert!(
        soon(node.poll(&path, BERT, 1, Duration::from_secs(20)))
            .await
            .unwrap()
            .is_empty()
    );
    soon(node.report(&path, ANNA, vec![report(&lease, success())]))
        .await
        .unwrap();
    assert_eq!(
        soon(node.task(&path, ids[0])).await.unwrap().attempts.0,
        1,
        "it ran once"
    );
}

/// Panics where a shard has come up, so many times. The actor says so itself, so it is the actor that panics.
#[derive(Debug)]
struct Bomb(Arc<AtomicU32>);

impl tracing::Subscriber for Bomb {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("scheduler_runtime::actor::shell")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let is_up = event.fields().any(|field| field.name() == "from");
        let left = || {
            self.0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        };
        assert!(!is_up || left().is_err(), "the bomb went off");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_whose_actor_panics_comes_back_and_says_so() {
    let world = World::default();
    let bombs = Arc::new(AtomicU32::new(0));
    let _guard = tracing::subscriber::set_default(Bomb(bombs.clone()));
    let node = world.start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    soon(node.shutdown()).await;
    bombs.store(3, Ordering::Relaxed);
    let node = world.start().await;
    let start = tokio::time::Instant::now();
    let lease = soon(async {
        loop {
            let polled = node.poll(&path, ANNA, 1, Duration::from_secs(1)).await;
            match polled.ok().and_then(|mut leases| leases.pop()) {
                Some(lease) => break lease,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .await;
    assert_eq!(lease.offset, ids[0].offset);
    assert_eq!(bombs.load(Ordering::Relaxed), 0);
    // One, two and four seconds lie between the tries.
    assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
    let problems = soon(node.pipeline(&path)).await.unwrap().problems;
    assert!(problems[0].contains("crashed 3 times"), "{problems:?}");
    assert!(problems[0].contains("the bomb went off"), "{problems:?}");
}
