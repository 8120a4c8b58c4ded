//! Every method of the gateway, over the ports in memory and over the embedded adapters.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use scheduler_core::id::{Offset, Partition, TaskId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy};
use scheduler_core::port::gateway::{
    AccessApi as _, AdminApi as _, ApiError, DeadSelection, PipelineChange, TaskApi as _, TaskFilter,
    TaskState, Verdict, WorkerApi as _, WorkerEvent,
};
use scheduler_core::task::{TaskOptions, TaskSpec};
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_runtime::Node;
use scheduler_testkit::memory::{MemoryLog, MemoryStore};

use crate::world::{
    ANNA, BERT, EVER, Worker, config, create_with, held, me, new_pipeline, now, rejected, report, soon,
    success, tasks,
};

/// Ports that outlive the nodes over them.
trait Ports {
    async fn start(&self) -> Node;
}

#[derive(Default)]
struct Memory(MemoryLog, MemoryStore);

impl Ports for Memory {
    async fn start(&self) -> Node {
        self.0.set_now(now());
        let builder = Node::builder(Arc::new(self.0.clone()), Arc::new(self.1.clone()));
        builder.config(config()).start().await.unwrap()
    }
}

struct Directory(tempfile::TempDir);

impl Ports for Directory {
    async fn start(&self) -> Node {
        let embedded = Embedded::open(self.0.path(), EmbeddedConfig::default()).unwrap();
        let builder = Node::builder(embedded.log, embedded.store);
        builder.config(config()).start().await.unwrap()
    }
}

/// One test of each sentence, over both.
macro_rules! over_both {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                super::$test(&super::Memory::default()).await;
            })+
        }

        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&super::Directory(tempfile::tempdir().unwrap())).await;
            })+
        }
    };
}

over_both!(
    applications_and_pipelines_are_made_changed_listed_and_removed,
    keys_say_who_somebody_is,
    tasks_are_found_waited_for_listed_and_cancelled,
    dead_letters_are_listed_redriven_and_purged,
    tasks_of_one_key_are_one_task,
    a_restart_finds_everything_as_it_was,
    many_tasks_go_through_several_partitions_and_workers,
);

/// A policy that tries again at once, and saves often.
fn quick() -> PipelinePolicy {
    let mut policy = PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: 2,
            initial_backoff: Duration::from_millis(1),
            ..RetryPolicy::default()
        },
        ..PipelinePolicy::default()
    };
    policy.checkpoint.interval = Duration::from_millis(100);
    policy
}

async fn run_one(node: &Node, path: &PipelinePath, outcome: AttemptOutcome) -> Offset {
    let lease = soon(node.poll(path, ANNA, 1, EVER)).await.unwrap().remove(0);
    let verdicts = soon(node.report(path, ANNA, vec![report(&lease, outcome)]))
        .await
        .unwrap();
    assert_eq!(verdicts, [Verdict::Taken]);
    lease.offset
}

async fn state(node: &Node, path: &PipelinePath, id: TaskId) -> TaskState {
    soon(node.task(path, id)).await.unwrap().state
}

fn not_found<T>(answer: Result<T, ApiError>) -> bool {
    matches!(answer, Err(ApiError::NotFound { .. }))
}

async fn applications_and_pipelines_are_made_changed_listed_and_removed(ports: &impl Ports) {
    let node = ports.start().await;
    let app = "app".parse().unwrap();
    node.create_application(&me(), "other".parse().unwrap())
        .await
        .unwrap();
    let again = node.create_application(&me(), "other".parse().unwrap()).await;
    assert!(matches!(again, Err(ApiError::Conflict(_))));
    let path = create_with(&node, "p", 2, quick()).await;
    let taken = node.create_pipeline(&me(), &app, new_pipeline("p")).await;
    assert!(matches!(taken, Err(ApiError::Conflict(_))));
    let names: Vec<_> = node
        .applications(&me())
        .await
        .unwrap()
        .into_iter()
        .map(|app| app.name.to_string())
        .collect();
    assert_eq!(names, ["app", "other"]);
    assert_eq!(node.application(&me(), &app).await.unwrap().name, app);
    assert!(matches!(
        node.delete_application(&me(), &app).await,
        Err(ApiError::Conflict(_))
    ));
    assert_eq!(node.pipelines(&me(), &app).await.unwrap().len(), 1);

    let fewer = PipelineChange {
        partitions: Some(1),
        ..PipelineChange::default()
    };
    assert!(matches!(
        node.change_pipeline(&path, fewer).await,
        Err(ApiError::Invalid { .. })
    ));
    let change = PipelineChange {
        partitions: Some(3),
        paused: Some(true),
        ..PipelineChange::default()
    };
    let view = node.change_pipeline(&path, change).await.unwrap();
    assert_eq!(
        (
            view.pipeline.partitions,
            view.pipeline.paused,
            view.pipeline.version
        ),
        (3, true, 2)
    );
    assert_eq!(node.pipeline(&path).await.unwrap().pipeline, view.pipeline);
    assert!(matches!(
        node.scale_pipeline(&path, 1).await,
        Err(ApiError::Conflict(_))
    ));
    assert_eq!(node.locate(&path).await.unwrap().len(), 3);

    soon(node.delete_pipeline(&path)).await.unwrap();
    assert!(not_found(node.pipeline(&path).await));
    assert!(not_found(node.submit(&path, tasks(1)).await));
    assert!(not_found(node.delete_pipeline(&path).await));
    node.delete_application(&me(), &app).await.unwrap();
    assert!(not_found(node.pipelines(&me(), &app).await));
    soon(node.shutdown()).await;
}

async fn keys_say_who_somebody_is(ports: &impl Ports) {
    let node = ports.start().await;
    assert_eq!(node.authenticate(None).await.unwrap(), me());
    assert!(matches!(
        node.authenticate(Some("x")).await,
        Err(ApiError::Unauthenticated(_))
    ));
    node.add_client("tenant".parse().unwrap()).await.unwrap();
    node.add_key("tenant".parse().unwrap(), "secret", "test")
        .await
        .unwrap();
    let caller = node.authenticate(Some("secret")).await.unwrap();
    assert_eq!(caller.client.to_string(), "tenant");
    // What is one client's is not another's.
    create_with(&node, "p", 1, quick()).await;
    assert!(not_found(
        node.application(&caller, &"app".parse().unwrap()).await
    ));
    node.ready().await.unwrap();
    soon(node.shutdown()).await;
    drop(node);
    let node = ports.start().await;
    assert_eq!(node.authenticate(Some("secret")).await.unwrap(), caller);
    soon(node.shutdown()).await;
    assert!(node.ready().await.is_err());
}

async fn tasks_are_found_waited_for_listed_and_cancelled(ports: &impl Ports) {
    let node = ports.start().await;
    let path = create_with(&node, "p", 1, quick()).await;
    let ids = soon(node.submit(&path, tasks(4))).await.unwrap();
    assert_eq!(state(&node, &path, ids[3]).await, TaskState::Queued);
    let mut watch = soon(node.watch(&path, Some(ids[0]))).await.unwrap();
    let mut everything = soon(node.watch(&path, None)).await.unwrap();
    let first = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    assert_eq!(
        soon(node.extend(&path, ANNA, vec![held(&first)])).await.unwrap(),
        [true]
    );
    soon(node.report(&path, ANNA, vec![report(&first, success())]))
        .await
        .unwrap();
    let view = soon(node.wait(&path, ids[0], EVER)).await.unwrap();
    assert_eq!(
        (view.state, &view.output[..]),
        (TaskState::Succeeded, &b"done"[..])
    );
    let mut last = None;
    while let Some(view) = soon(watch.next()).await {
        last = Some(view.state);
    }
    assert_eq!(last, Some(TaskState::Succeeded));
    assert_eq!(soon(everything.next()).await.unwrap().id.shard, ids[0].shard);

    // Queued: at once. Running: as soon as the worker says so.
    let first_queued = ids.iter().find(|id| id.offset == Offset(3)).unwrap();
    assert_eq!(
        soon(node.cancel(&path, *first_queued)).await.unwrap().state,
        TaskState::Cancelled
    );
    let mut worker = Worker::open(&node, &path, BERT).await;
    worker.credit(1).await;
    let running = worker.leases(1).await.remove(0);
    let id = ids[usize::try_from(running.offset.0).unwrap()];
    soon(node.cancel(&path, id)).await.unwrap();
    worker
        .until(|event| matches!(event, WorkerEvent::Stop(leases) if leases[0] == held(&running)))
        .await;
    worker.report(&running, AttemptOutcome::Stopped).await;
    assert_eq!(
        soon(node.wait(&path, id, EVER)).await.unwrap().state,
        TaskState::Cancelled
    );
    assert!(matches!(
        soon(node.cancel(&path, ids[0])).await,
        Err(ApiError::Conflict(_))
    ));
    assert!(matches!(
        soon(node.retry(&path, ids[0])).await,
        Err(ApiError::Conflict(_))
    ));

    let page = soon(node.tasks(&path, &TaskFilter::default(), None, 10))
        .await
        .unwrap();
    let states: Vec<_> = page.items.iter().map(|view| view.state).collect();
    assert_eq!(page.items.len(), 4);
    assert_eq!(states[0], TaskState::Cancelled);
    assert_eq!(states[3], TaskState::Succeeded);
    let stranger = scheduler_core::id::ShardId::new(ids[0].shard.pipeline, Partition(7)).task(Offset(0));
    assert!(not_found(node.task(&path, stranger).await));
    soon(node.shutdown()).await;
}

async fn dead_letters_are_listed_redriven_and_purged(ports: &impl Ports) {
    let node = ports.start().await;
    let path = create_with(&node, "p", 1, quick()).await;
    let ids = soon(node.submit(&path, tasks(5))).await.unwrap();
    for _ in 0..5 {
        run_one(&node, &path, rejected()).await;
    }
    let dead = soon(node.dead(&path, None, 3)).await.unwrap();
    assert_eq!(dead.items.len(), 3);
    let rest = soon(node.dead(&path, dead.next, 3)).await.unwrap();
    assert_eq!(rest.items.len(), 2);
    assert_eq!(soon(node.pipeline(&path)).await.unwrap().counts.dead, 5);

    // One by one, several, all; each lives once.
    soon(node.retry(&path, ids[0])).await.unwrap();
    assert_eq!(
        soon(node.redrive(&path, DeadSelection::Ids(vec![ids[1], ids[2]])))
            .await
            .unwrap(),
        2
    );
    for _ in 0..3 {
        run_one(&node, &path, success()).await;
    }
    for id in &ids[..3] {
        assert_eq!(
            soon(node.wait(&path, *id, EVER)).await.unwrap().state,
            TaskState::Succeeded
        );
    }
    assert!(not_found(
        soon(node.redrive(&path, DeadSelection::Ids(vec![ids[0]]))).await
    ));
    assert_eq!(
        soon(node.purge(&path, DeadSelection::Ids(vec![ids[3]])))
            .await
            .unwrap(),
        1
    );
    assert!(not_found(node.task(&path, ids[3]).await));
    assert_eq!(soon(node.redrive(&path, DeadSelection::All)).await.unwrap(), 1);
    assert_eq!(soon(node.redrive(&path, DeadSelection::All)).await.unwrap(), 0);
    run_one(&node, &path, rejected()).await;
    assert_eq!(soon(node.purge(&path, DeadSelection::All)).await.unwrap(), 1);
    assert!(soon(node.dead(&path, None, 3)).await.unwrap().items.is_empty());
    soon(node.shutdown()).await;
}

async fn tasks_of_one_key_are_one_task(ports: &impl Ports) {
    let keyed = |key: &'static str| TaskSpec {
        options: Some(Box::new(TaskOptions {
            idempotency_key: Some(key.into()),
            ..TaskOptions::default()
        })),
        ..TaskSpec::new("1")
    };
    let node = ports.start().await;
    let path = create_with(&node, "p", 4, quick()).await;
    let ids = soon(node.submit(&path, vec![keyed("a"), TaskSpec::new("2"), keyed("b")]))
        .await
        .unwrap();
    for _ in 0..3 {
        run_one(&node, &path, success()).await;
    }
    let again = soon(node.submit(&path, vec![keyed("b"), keyed("a")]))
        .await
        .unwrap();
    assert_eq!(again, [ids[2], ids[0]]);
    soon(node.shutdown()).await;
    drop(node);
    let node = ports.start().await;
    // Its shard may still be coming up; then the second is taken, and ends as what it is.
    let third = soon(node.submit(&path, vec![keyed("a")])).await.unwrap();
    let view = soon(node.wait(&path, third[0], EVER)).await.unwrap();
    if third[0] == ids[0] {
        assert_eq!(view.state, TaskState::Succeeded);
    } else {
        assert_eq!(view.state, TaskState::Cancelled);
        assert!(view.error.contains(&ids[0].to_string()), "{}", view.error);
    }
    soon(node.shutdown()).await;
}

async fn a_restart_finds_everything_as_it_was(ports: &impl Ports) {
    let node = ports.start().await;
    let path = create_with(&node, "p", 2, quick()).await;
    let gone = create_with(&node, "gone", 1, quick()).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.extend(soon(node.submit(&path, tasks(1))).await.unwrap());
    }
    let ran = run_one(&node, &path, success()).await;
    run_one(&node, &path, rejected()).await;
    soon(node.delete_pipeline(&gone)).await.unwrap();
    soon(node.shutdown()).await;
    drop(node);

    let node = ports.start().await;
    assert!(not_found(node.pipeline(&gone).await));
    let mut ended = Vec::new();
    for id in &ids {
        let state = state(&node, &path, *id).await;
        if state != TaskState::Queued {
            ended.push(state);
        }
    }
    ended.sort_by_key(|state| *state == TaskState::Dead);
    assert_eq!(ended, [TaskState::Succeeded, TaskState::Dead]);
    assert!(ids.iter().any(|id| id.offset == ran));
    for _ in 0..4 {
        run_one(&node, &path, success()).await;
    }
    let page = soon(node.tasks(
        &path,
        &TaskFilter {
            states: vec![TaskState::Succeeded],
            partition: None,
        },
        None,
        100,
    ))
    .await
    .unwrap();
    assert_eq!(page.items.len(), 5);
    assert!(soon(node.pipeline(&path)).await.unwrap().problems.is_empty());
    soon(node.shutdown()).await;
}

async fn many_tasks_go_through_several_partitions_and_workers(ports: &impl Ports) {
    let node = ports.start().await;
    let path = create_with(&node, "p", 3, quick()).await;
    let work = |_| {
        let (node, path) = (node.clone(), path.clone());
        tokio::spawn(async move { node.work(&path, 16, async |params| Ok(params)).await })
    };
    let workers: Vec<_> = (0..3).map(work).collect();
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(soon(node.submit(&path, tasks(50))).await.unwrap());
    }
    let ended = futures::stream::iter(&ids)
        .map(|id| node.wait(&path, *id, EVER))
        .buffer_unordered(64);
    let ended: Vec<_> = soon(ended.collect()).await;
    assert!(
        ended
            .into_iter()
            .all(|view| view.unwrap().state == TaskState::Succeeded)
    );
    let counts = soon(node.pipeline(&path)).await.unwrap().counts;
    assert_eq!((counts.succeeded, counts.running, counts.backlog), (500, 0, 0));
    soon(node.shutdown()).await;
    for worker in workers {
        soon(worker).await.unwrap().unwrap();
    }
    assert_eq!(path, crate::world::path("p"));
}
