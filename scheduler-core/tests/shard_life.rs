//! The life of a task: attempts, retries, timeouts, cancellation.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::world::*;
use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset};
use scheduler_core::outcome::{AttemptOutcome, DeadReason, Ending};
use scheduler_core::policy::{Aging, PipelinePolicy, RetryPolicy, Settle, Timeouts};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::{Answer, Input};
use scheduler_core::task::{RecordBody, TaskOptions};

fn timeouts(timeouts: Timeouts) -> PipelinePolicy {
    PipelinePolicy { timeouts, ..policy() }
}

#[test]
fn a_task_that_succeeds_ends_once_and_its_result_is_saved() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    assert_eq!((lease.offset, lease.token.attempt), (task, Attempt(1)));
    assert_eq!(world.report(ANNA, &lease, success()), Answer::Done);
    assert_eq!(world.report(ANNA, &lease, success()), Answer::Late);
    assert_eq!(world.state(task), TaskState::Succeeded);
    world.save();
    assert_eq!(&world.store.results[&task].output[..], b"done");
    assert_eq!(world.truncated, [task.next()]);
}

#[test]
fn a_failed_attempt_is_followed_by_another_after_its_backoff() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    for backoff in [1, 2, 4] {
        let lease = world.lease(ANNA);
        world.report(ANNA, &lease, failure());
        assert_eq!(world.state(task), TaskState::Delayed);
        world.advance(Duration::from_millis(backoff * 1_000 - 1));
        assert!(world.is_idle(ANNA));
        world.advance(Duration::from_millis(1));
    }
    assert_eq!(world.lease(ANNA).token.attempt, Attempt(4));
}

#[test]
fn the_backoff_has_a_cap() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            max_backoff: secs(3),
            ..policy().retry
        },
        ..policy()
    });
    world.arrive(task());
    for backoff in [1, 2, 3, 3] {
        let lease = world.lease(ANNA);
        world.report(ANNA, &lease, failure());
        world.advance(secs(backoff));
    }
    assert_eq!(world.lease(ANNA).token.attempt, Attempt(5));
}

#[test]
fn a_task_whose_attempts_are_used_up_is_a_dead_letter() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    for _ in 0..5 {
        let lease = world.lease(ANNA);
        world.report(ANNA, &lease, failure());
        world.advance(secs(60));
    }
    world.save();
    let dead = &world.store.dead[&task];
    assert_eq!(
        (dead.reason, dead.attempts, dead.error.as_str()),
        (DeadReason::AttemptsExhausted, Attempt(5), "no luck")
    );
}

#[test]
fn a_rejected_task_is_a_dead_letter_at_once() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    let outcome = AttemptOutcome::Rejected {
        error: "bad picture".into(),
    };
    world.report(ANNA, &lease, outcome);
    world.save();
    assert_eq!(world.store.dead[&task].reason, DeadReason::Rejected);
}

#[test]
fn a_record_that_is_no_task_is_a_dead_letter_with_its_bytes() {
    let mut world = World::new(policy());
    let raw = Bytes::from_static(b"\xff");
    let offset = world.submit(RecordBody::Undecodable {
        raw: raw.clone(),
        problem: "priority: not a number".into(),
    });
    world.forward();
    world.save();
    let dead = world.store.dead[&offset].clone();
    assert_eq!((dead.reason, &dead.spec.params), (DeadReason::Undecodable, &raw));
    assert_eq!(world.tell(Input::Revive(dead)), Answer::Late);
}

#[test]
fn a_returned_lease_uses_up_no_attempt() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    for _ in 0..20 {
        let lease = world.lease(ANNA);
        world.report(ANNA, &lease, AttemptOutcome::Returned);
        assert_eq!(world.state(task), TaskState::Queued);
    }
    assert_eq!(world.lease(ANNA).token.attempt, Attempt(21));
}

#[test]
fn a_task_that_is_not_leased_in_time_expires() {
    let mut world = World::new(timeouts(Timeouts {
        start: Some(secs(5)),
        ..Timeouts::default()
    }));
    let task = world.arrive(task());
    let other = world.arrive(common::world::task());
    let lease = world.lease(ANNA);
    world.advance(secs(5));
    assert_eq!(world.state(other), TaskState::Expired);
    assert_eq!((lease.offset, world.state(task)), (task, TaskState::Running));
}

#[test]
fn an_attempt_that_runs_too_long_is_stopped_and_has_failed() {
    let mut world = World::new(timeouts(Timeouts {
        run: secs(60),
        ..Timeouts::default()
    }));
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    assert_eq!(lease.run_until, world.now + secs(60));
    for _ in 0..6 {
        world.advance(secs(10));
        world.tell(Input::Alive { worker: ANNA });
    }
    assert_eq!(world.stops.len(), 1);
    assert_eq!(world.stops[0].1.token, lease.token);
    assert_eq!(world.state(task), TaskState::Delayed);
    assert!(world.view(task).error.contains("run timeout"));
}

#[test]
fn a_lease_without_a_sign_of_life_is_lost() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.lease(ANNA);
    world.advance(Duration::from_millis(29_999));
    assert_eq!(world.state(task), TaskState::Running);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.state(task), TaskState::Delayed);
    assert!(world.view(task).error.contains("no sign of life"));
}

#[test]
fn a_worker_that_is_alive_keeps_all_its_leases() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    world.lease(ANNA);
    for _ in 0..5 {
        world.advance(secs(29));
        assert_eq!(world.tell(Input::Alive { worker: ANNA }), Answer::Done);
    }
    assert_eq!(world.state(task), TaskState::Running);
}

#[test]
fn a_sign_of_life_for_one_lease_keeps_that_one() {
    let mut world = World::new(policy());
    let (first, second) = (world.arrive(task()), world.arrive(task()));
    let leases = world.ask(ANNA, 2);
    world.advance(secs(20));
    let extend = |token| Input::Extend {
        worker: ANNA,
        offset: first,
        token,
        progress: Some(Bytes::from_static(b"50 %")),
    };
    assert_eq!(world.tell(extend(leases[0].token)), Answer::Done);
    world.advance(secs(20));
    assert_eq!(world.state(first), TaskState::Running);
    assert_eq!(world.state(second), TaskState::Delayed);
    assert_eq!(&world.view(first).progress[..], b"50 %");
    let of_nobody = LeaseToken {
        epoch: Epoch(1),
        attempt: Attempt(7),
    };
    assert_eq!(world.tell(extend(of_nobody)), Answer::Late);
}

#[test]
fn a_task_that_takes_too_long_as_a_whole_expires_and_its_attempt_is_told_to_stop() {
    let mut world = World::new(timeouts(Timeouts {
        total: Some(secs(20)),
        ..Timeouts::default()
    }));
    let (running, waiting) = (world.arrive(task()), world.arrive(task()));
    let lease = world.lease(ANNA);
    world.advance(secs(20));
    assert_eq!(world.state(waiting), TaskState::Expired);
    assert_eq!((world.state(running), world.stops.len()), (TaskState::Running, 1));
    world.report(ANNA, &lease, AttemptOutcome::Stopped);
    assert_eq!(world.state(running), TaskState::Expired);
}

#[test]
fn an_attempt_that_succeeds_after_it_was_told_to_stop_has_succeeded() {
    let mut world = World::new(policy());
    let deadline = Some(world.now + secs(3));
    let task = world.arrive(with(TaskOptions {
        deadline,
        ..TaskOptions::default()
    }));
    let lease = world.lease(ANNA);
    world.advance(secs(3));
    assert_eq!(world.stops.len(), 1);
    world.report(ANNA, &lease, success());
    assert_eq!(world.state(task), TaskState::Succeeded);
}

#[test]
fn a_late_failure_does_not_end_the_attempt_that_replaced_it() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let first = world.lease(ANNA);
    world.advance(secs(30));
    world.advance(secs(1));
    let second = world.lease(BERT);
    assert_eq!(world.report(ANNA, &first, failure()), Answer::Late);
    assert_eq!(world.state(task), TaskState::Running);
    assert_eq!(world.report(BERT, &second, success()), Answer::Done);
}

#[test]
fn a_late_success_ends_the_task_and_stops_the_attempt_that_replaced_it() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let first = world.lease(ANNA);
    world.advance(secs(30));
    world.advance(secs(1));
    let second = world.lease(BERT);
    assert_eq!(world.report(ANNA, &first, success()), Answer::Done);
    assert_eq!(world.state(task), TaskState::Succeeded);
    assert_eq!(world.stops.len(), 1);
    assert_eq!((world.stops[0].0, world.stops[0].1.token), (BERT, second.token));
    assert_eq!(world.report(BERT, &second, success()), Answer::Late);
}

#[test]
fn a_token_that_nobody_granted_is_refused() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let mut lease = world.lease(ANNA);
    for (epoch, attempt) in [(1, 0), (1, 2), (2, 1), (0, 70_000), (0, u32::MAX)] {
        lease.token = LeaseToken {
            epoch: Epoch(epoch),
            attempt: Attempt(attempt),
        };
        assert_eq!(
            world.report(ANNA, &lease, failure()),
            Answer::Late,
            "{epoch} {attempt}"
        );
    }
    assert_eq!(world.state(task), TaskState::Running);
}

#[test]
fn a_waiting_task_is_cancelled_at_once() {
    let mut world = World::new(policy());
    let queued = world.arrive(task());
    let not_before = Some(world.now + secs(60));
    let delayed = world.arrive(with(TaskOptions {
        not_before,
        ..TaskOptions::default()
    }));
    for task in [queued, delayed] {
        assert_eq!(world.tell(Input::Cancel(task)), Answer::Done);
        assert_eq!(world.state(task), TaskState::Cancelled);
        assert_eq!(world.tell(Input::Cancel(task)), Answer::Late);
    }
    assert_eq!(world.tell(Input::Cancel(Offset(99))), Answer::Elsewhere);
    world.save();
    assert_eq!(world.store.results[&queued].ending, Ending::Cancelled);
    assert!(world.is_idle(ANNA));
}

#[test]
fn a_running_task_is_cancelled_when_its_attempt_ends_otherwise_than_well() {
    let outcomes = [
        (AttemptOutcome::Stopped, TaskState::Cancelled),
        (failure(), TaskState::Cancelled),
        (AttemptOutcome::Returned, TaskState::Cancelled),
        (
            AttemptOutcome::Rejected {
                error: "never".into(),
            },
            TaskState::Cancelled,
        ),
        (success(), TaskState::Succeeded),
    ];
    for (outcome, state) in outcomes {
        let mut world = World::new(policy());
        let task = world.arrive(task());
        let lease = world.lease(ANNA);
        assert_eq!(world.tell(Input::Cancel(task)), Answer::Done);
        assert_eq!(world.stops.len(), 1);
        let extend = Input::Extend {
            worker: ANNA,
            offset: task,
            token: lease.token,
            progress: None,
        };
        assert_eq!(world.tell(extend), Answer::Late);
        world.report(ANNA, &lease, outcome.clone());
        assert_eq!(world.state(task), state, "{outcome:?}");
    }
}

#[test]
fn a_cancelled_task_whose_worker_is_lost_is_cancelled() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.lease(ANNA);
    world.tell(Input::Cancel(task));
    world.advance(secs(30));
    assert_eq!(world.state(task), TaskState::Cancelled);
}

#[test]
fn a_delayed_task_that_is_hastened_is_ready_now() {
    let mut world = World::new(policy());
    let not_before = Some(world.now + secs(60));
    let task = world.arrive(with(TaskOptions {
        not_before,
        ..TaskOptions::default()
    }));
    assert!(world.is_idle(ANNA));
    assert_eq!(world.tell(Input::Hasten(task)), Answer::Done);
    assert_eq!(world.tell(Input::Hasten(task)), Answer::Late);
    assert_eq!(world.lease(ANNA).offset, task);
}

#[test]
fn the_more_urgent_task_is_first_and_equals_go_in_their_order() {
    let mut world = World::new(policy());
    let levels = [4, 9, 0, 4, 9];
    let tasks = levels.map(|level| world.arrive(urgent(level)));
    let order: Vec<Offset> = world.ask(ANNA, 5).iter().map(|lease| lease.offset).collect();
    assert_eq!(order, [1, 4, 0, 3, 2].map(|index: usize| tasks[index]));
}

#[test]
fn a_task_that_has_waited_long_counts_as_more_urgent() {
    let mut world = World::new(PipelinePolicy {
        aging: Aging(secs(10)),
        ..policy()
    });
    let old = world.arrive(urgent(0));
    world.advance(secs(49));
    let new = world.arrive(urgent(5));
    assert_eq!(world.lease(ANNA).offset, new);
    world.advance(secs(11));
    let new = world.arrive(urgent(5));
    assert_eq!(world.lease(ANNA).offset, old);
    assert_eq!(world.lease(ANNA).offset, new);
}

#[test]
fn whoever_watches_a_task_hears_of_every_change() {
    let mut world = World::new(policy());
    let (watched, other) = (world.arrive(task()), world.arrive(task()));
    assert_eq!(world.tell(Input::Watch(watched)), Answer::Done);
    for lease in world.ask(ANNA, 2) {
        world.report(ANNA, &lease, success());
    }
    assert_eq!(world.changed, [watched, watched]);
    world.changed.clear();
    world.tell(Input::WatchAll(true));
    let third = world.arrive(task());
    assert_eq!(world.changed, [third]);
    assert_eq!(world.tell(Input::Watch(other)), Answer::Late);
}

#[test]
fn a_shard_that_leaves_leases_nothing_more_and_takes_what_workers_say() {
    let mut world = World::new(policy());
    world.arrive(task());
    let waiting = world.arrive(task());
    let lease = world.lease(ANNA);
    world.save();
    assert_eq!(world.tell(Input::Leave), Answer::Done);
    assert_eq!(world.shard.ready(), 0);
    assert!(world.is_idle(BERT));
    assert_eq!(world.report(ANNA, &lease, success()), Answer::Done);
    world.save();
    assert!(world.store.results.contains_key(&lease.offset));
    // Its next owner has what waited.
    world.activate(false);
    world.forward();
    assert_eq!(world.lease(BERT).offset, waiting);
}

#[test]
fn a_new_policy_counts_for_what_is_leased_already() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.lease(ANNA);
    let mut shorter = policy();
    shorter.timeouts.heartbeat = secs(5);
    world.tell(Input::Policy(Arc::new(shorter)));
    world.advance(secs(4));
    assert_eq!(world.state(task), TaskState::Running);
    world.advance(secs(1));
    assert_eq!(world.state(task), TaskState::Delayed);
}

#[test]
fn reports_that_settle_by_commit_are_saved_within_milliseconds_and_one_checkpoint_at_a_time() {
    let mut world = World::new(PipelinePolicy {
        settle: Settle::Commit,
        ..policy()
    });
    for _ in 0..3 {
        world.arrive(task());
    }
    world.attach(ANNA, &[], &[]);
    let leases = world.ask(ANNA, 3);
    world.save();
    for lease in &leases[..2] {
        world.report(ANNA, lease, success());
    }
    assert!(world.saving.is_none(), "what comes together is saved together");
    world.advance(Duration::from_millis(2));
    let first = world.saving.as_ref().expect("it is saved at once").id;
    world.report(ANNA, &leases[2], success());
    world.advance(Duration::from_millis(10));
    assert_eq!(world.saving.as_ref().map(|saving| saving.id), Some(first));
    world.answer_save();
    assert_eq!(world.settled.last(), Some(&(ANNA, 2)));
    world.answer_save();
    assert_eq!(world.settled.last(), Some(&(ANNA, 3)));
}

#[test]
fn what_was_settled_is_never_repeated_and_what_was_not_is_if_worker_and_shard_die_together() {
    for (settle, wait) in [
        (Settle::Checkpoint, secs(2)),
        (Settle::Commit, Duration::from_millis(2)),
    ] {
        let mut world = World::new(PipelinePolicy { settle, ..policy() });
        let saved = world.arrive(task());
        let unsaved = world.arrive(task());
        world.attach(ANNA, &[], &[]);
        let leases = world.ask(ANNA, 2);
        world.save();
        world.report(ANNA, &leases[0], success());
        world.advance(wait);
        world.answer_save();
        assert_eq!(world.settled.last(), Some(&(ANNA, 1)), "{settle:?}");
        world.report(ANNA, &leases[1], success());
        // Both die: nobody presents the second report.
        world.crash();
        world.advance(secs(30));
        world.advance(secs(1));
        let again: Vec<Offset> = world.ask(BERT, 9).iter().map(|lease| lease.offset).collect();
        assert!(!again.contains(&saved), "{settle:?}");
        assert_eq!(again, [unsaved], "{settle:?}");
    }
}
