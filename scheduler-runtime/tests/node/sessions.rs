use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::{Offset, Partition};
use scheduler_core::policy::{PipelinePolicy, Timeouts};
use scheduler_core::port::gateway::{
    AdminApi as _, ApiError, PipelineChange, TaskApi as _, TaskState, Verdict, WorkerApi as _, WorkerCommand,
    WorkerEvent,
};
use scheduler_core::task::TaskSpec;

use crate::world::{ANNA, BERT, EVER, Worker, World, create, held, report, soon, success, tasks};

#[tokio::test(start_paused = true)]
async fn a_poll_whose_caller_vanished_gives_its_leases_back_at_once() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let start = tokio::time::Instant::now();
    {
        let poll = node.poll(&path, ANNA, 1, Duration::from_mins(1));
        tokio::pin!(poll);
        assert!(futures::poll!(poll.as_mut()).is_pending());
        soon(node.submit(&path, tasks(1))).await.unwrap();
        // The answer is on its way; the caller does not wait for it.
        while node.pipeline(&path).await.unwrap().counts.running == 0 {
            tokio::task::yield_now().await;
        }
    }
    let leases = soon(node.poll(&path, BERT, 1, Duration::from_mins(1)))
        .await
        .unwrap();
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].token.attempt.0, 2);
    assert!(start.elapsed() < Duration::from_secs(5), "not by a timeout");
}

#[tokio::test(start_paused = true)]
async fn leases_that_a_transport_did_not_take_return_when_its_session_closes() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let anna = Worker::open(&node, &path, ANNA).await;
    anna.credit(5).await;
    soon(node.submit(&path, tasks(5))).await.unwrap();
    while node.pipeline(&path).await.unwrap().counts.running < 5 {
        tokio::task::yield_now().await;
    }
    let start = tokio::time::Instant::now();
    drop(anna);
    let mut bert = Worker::open(&node, &path, BERT).await;
    bert.credit(5).await;
    bert.leases(5).await;
    assert!(start.elapsed() < Duration::from_secs(5), "not by a timeout");
}

#[tokio::test(start_paused = true)]
async fn a_second_session_of_a_worker_ends_the_first_and_brings_back_what_never_reached_it() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let mut first = Worker::open(&node, &path, ANNA).await;
    first.credit(2).await;
    soon(node.submit(&path, tasks(2))).await.unwrap();
    let leases = first.leases(2).await;
    let mut second = Worker::return_with(&node, &path, ANNA, vec![held(&leases[0])], Vec::new()).await;
    first.ended().await;
    assert!(
        first
            .session
            .commands
            .send(vec![WorkerCommand::Alive])
            .await
            .is_err()
    );
    second.credit(1).await;
    let again = second.leases(1).await;
    assert_eq!(again[0].offset, leases[1].offset);
    // The old session's end does not end the new one.
    drop(first);
    second.report(&leases[0], success()).await;
    second.report(&again[0], success()).await;
    second.settled(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_ended_and_its_tasks_are_given_to_others() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let mut silent = Worker::open(&node, &path, ANNA).await;
    silent.credit(1).await;
    soon(node.submit(&path, tasks(1))).await.unwrap();
    silent.leases(1).await;
    silent.ended().await;
    let leases = soon(node.poll(&path, BERT, 1, Duration::from_mins(1)))
        .await
        .unwrap();
    assert_eq!(leases[0].token.attempt.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_reports_without_end_for_a_partition_that_is_not_there_is_ended() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker.credit(1).await;
    soon(node.submit(&path, tasks(1))).await.unwrap();
    let mut lease = worker.leases(1).await.remove(0);
    lease.partition = Partition(77);
    let big = scheduler_core::outcome::AttemptOutcome::Succeeded {
        output: vec![0; 1 << 20].into(),
    };
    let mut sent = 0;
    while worker
        .session
        .commands
        .send(vec![WorkerCommand::Reports(vec![report(&lease, big.clone())])])
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 5_000, "nobody stops it");
        tokio::task::yield_now().await;
    }
    worker.ended().await;
}

#[tokio::test(start_paused = true)]
async fn credits_beyond_all_bounds_are_as_good_as_the_bound() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let mut worker = Worker::open(&node, &path, ANNA).await;
    worker
        .say(vec![
            WorkerCommand::Credit(u32::MAX),
            WorkerCommand::Credit(u32::MAX),
        ])
        .await;
    soon(node.submit(&path, tasks(100))).await.unwrap();
    assert_eq!(worker.leases(100).await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_new_definition_reaches_sessions_and_a_shorter_heartbeat_ends_them() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let mut worker = Worker::open(&node, &path, ANNA).await;
    let definition = r#"{"pipeline":[{"executor":"e","commands":["true"]}]}"#;
    let change = PipelineChange {
        definition: Some(definition.into()),
        ..PipelineChange::default()
    };
    soon(node.change_pipeline(&path, change)).await.unwrap();
    worker
        .until(|event| matches!(event, WorkerEvent::Definition(_)))
        .await;
    let policy = PipelinePolicy {
        timeouts: Timeouts {
            heartbeat: Duration::from_secs(4),
            ..Timeouts::default()
        },
        ..PipelinePolicy::default()
    };
    let change = PipelineChange {
        policy: Some(policy),
        ..PipelineChange::default()
    };
    soon(node.change_pipeline(&path, change)).await.unwrap();
    worker.ended().await;
    let again = Worker::open(&node, &path, ANNA).await;
    assert_eq!(again.session.heartbeat, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_pipeline_leases_nothing_until_it_is_resumed() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let paused = |paused| PipelineChange {
        paused: Some(paused),
        ..PipelineChange::default()
    };
    soon(node.change_pipeline(&path, paused(true))).await.unwrap();
    soon(node.submit(&path, tasks(1))).await.unwrap();
    let none = soon(node.poll(&path, ANNA, 1, Duration::from_secs(30)))
        .await
        .unwrap();
    assert!(none.is_empty());
    let poll = node.poll(&path, ANNA, 1, Duration::from_secs(30));
    let (leases, resumed) = tokio::join!(poll, node.change_pipeline(&path, paused(false)));
    resumed.unwrap();
    assert_eq!(leases.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unary_reports_are_saved_when_they_answer_and_name_only_partitions_that_are_there() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let ids = soon(node.submit(&path, tasks(1))).await.unwrap();
    let lease = soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().remove(0);
    assert_eq!(
        soon(node.extend(&path, ANNA, vec![held(&lease)])).await.unwrap(),
        [true]
    );
    let mut stranger = report(&lease, success());
    stranger.lease.partition = Partition(9);
    let problem = soon(node.report(&path, ANNA, vec![stranger])).await.unwrap_err();
    assert!(matches!(problem, ApiError::Invalid { .. }), "{problem}");
    let verdicts = soon(node.report(&path, ANNA, vec![report(&lease, success())]))
        .await
        .unwrap();
    assert_eq!(verdicts, [Verdict::Taken]);
    assert_eq!(
        soon(node.report(&path, ANNA, vec![report(&lease, success())]))
            .await
            .unwrap(),
        [Verdict::Late]
    );
    assert_eq!(
        soon(node.extend(&path, ANNA, vec![held(&lease)])).await.unwrap(),
        [false]
    );
    assert_eq!(ids[0].offset, Offset(0));
    assert_eq!(
        soon(node.task(&path, ids[0])).await.unwrap().state,
        TaskState::Succeeded
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_in_this_process_that_panics_has_failed_and_its_worker_goes_on() {
    let node = World::default().start().await;
    let path = create(&node, "p").await;
    let worker = tokio::spawn({
        let (node, path) = (node.clone(), path.clone());
        async move {
            node.work(&path, 1, async |params: Bytes| {
                assert!(params != "bad", "a bug of the handler");
                Ok(params)
            })
            .await
        }
    });
    let both = ["bad", "good"].map(TaskSpec::new);
    let ids = soon(node.submit(&path, both.into())).await.unwrap();
    let bad = soon(node.wait(&path, ids[0], EVER)).await.unwrap();
    assert_eq!(
        (bad.state, bad.error.as_str()),
        (TaskState::Dead, "panicked: a bug of the handler")
    );
    assert_eq!(bad.attempts.0, PipelinePolicy::default().retry.max_attempts);
    let good = soon(node.wait(&path, ids[1], EVER)).await.unwrap();
    assert_eq!(
        (good.state, &good.output[..]),
        (TaskState::Succeeded, &b"good"[..])
    );
    soon(node.shutdown()).await;
    soon(worker).await.unwrap().unwrap();
}
