//! What survives the shard, and how the next activation takes it up.

mod common;

use common::world::*;
use scheduler_core::id::{Attempt, Epoch, Offset};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy, Timeouts};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::{Answer, Found, Input};

#[test]
fn a_report_is_settled_when_its_checkpoint_is_saved_and_not_before() {
    let mut world = World::new(policy());
    world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.tell(Input::Flush);
    assert!(world.saving.is_some());
    assert!(world.settled.is_empty());
    world.answer_save();
    assert_eq!(world.settled, [(ANNA, 1)]);
}

#[test]
fn a_report_that_comes_while_a_checkpoint_is_saved_waits_for_the_next() {
    let mut world = World::new(policy());
    world.arrive(task());
    world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let leases = world.ask(ANNA, 2);
    world.report(ANNA, &leases[0], success());
    world.tell(Input::Flush);
    world.report(ANNA, &leases[1], success());
    world.answer_save();
    assert_eq!(world.settled, [(ANNA, 1)]);
    world.save();
    assert_eq!(world.settled, [(ANNA, 1), (ANNA, 2)]);
}

#[test]
fn a_report_that_changes_nothing_is_settled_too() {
    let mut world = World::new(policy());
    world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    world.report(ANNA, &lease, success());
    world.save();
    assert_eq!(world.settled, [(ANNA, 1), (ANNA, 2)]);
}

#[test]
fn what_was_settled_for_one_session_is_not_said_to_the_next() {
    let mut world = World::new(policy());
    world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.tell(Input::Flush);
    world.tell(Input::Detach { worker: ANNA });
    world.attach(ANNA, &[], &[(&lease, success())]);
    world.answer_save();
    assert!(world.settled.is_empty());
    world.save();
    assert_eq!(world.settled, [(ANNA, 1)]);
}

#[test]
fn a_checkpoint_under_way_settles_nothing_for_the_worker_that_came_in_anothers_place() {
    let mut world = World::new(policy());
    world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.tell(Input::Flush);
    world.tell(Input::Detach { worker: ANNA });
    world.attach(BERT, &[], &[]);
    world.answer_save();
    assert!(world.settled.is_empty());
}

#[test]
fn what_a_checkpoint_has_as_ended_never_runs_again() {
    let mut world = World::new(policy());
    let tasks: Vec<Offset> = (0..4).map(|_| world.arrive(task())).collect();
    let leases = world.ask(ANNA, 3);
    world.report(ANNA, &leases[1], success());
    world.report(ANNA, &leases[2], AttemptOutcome::Rejected { error: "no".into() });
    world.save();
    assert_eq!(world.store.resume, tasks[0]);
    world.crash();
    world.advance(secs(30));
    world.advance(secs(1));
    let offsets: Vec<Offset> = world.ask(BERT, 9).iter().map(|lease| lease.offset).collect();
    assert_eq!(offsets, [tasks[3], tasks[0]]);
}

#[test]
fn a_checkpoint_made_in_mid_replay_keeps_what_is_still_ahead() {
    let mut world = World::new(policy());
    let tasks: Vec<Offset> = (0..4).map(|_| world.arrive(task())).collect();
    let leases = world.ask(ANNA, 4);
    world.report(ANNA, &leases[2], success());
    world.report(ANNA, &leases[3], failure());
    world.save();

    world.activate(true);
    world.forward_one();
    world.save();
    world.crash();

    assert_eq!(world.shard.find(tasks[2]), Found::Elsewhere);
    assert_eq!(world.view(tasks[3]).attempts, Attempt(1));
    assert_eq!(world.state(tasks[1]), TaskState::Running);
}

#[test]
fn attempts_and_their_backoff_survive_a_crash() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: 2,
            initial_backoff: secs(40),
            ..policy().retry
        },
        ..policy()
    });
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, failure());
    world.save();
    world.crash();
    assert_eq!(world.state(task), TaskState::Delayed);
    world.advance(secs(40));
    let lease = world.lease(ANNA);
    assert_eq!((lease.token.epoch, lease.token.attempt), (Epoch(2), Attempt(2)));
    world.report(ANNA, &lease, failure());
    assert_eq!(world.state(task), TaskState::Dead);
}

#[test]
fn nothing_that_a_lost_owner_may_have_leased_is_leased_within_the_grace() {
    let mut world = World::new(policy());
    let old = world.arrive(task());
    world.crash();
    let new = world.arrive(task());
    assert_eq!(world.lease(ANNA).offset, new);
    assert!(world.is_idle(ANNA));
    world.advance(GRACE);
    assert_eq!(world.lease(ANNA).offset, old);
}

#[test]
fn after_a_clean_release_there_is_no_grace() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.move_away();
    assert_eq!(world.lease(ANNA).offset, task);
}

#[test]
fn a_clean_release_within_the_grace_does_not_end_the_grace() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.crash();
    world.move_away();
    assert!(world.is_idle(BERT));
    world.attach(ANNA, &[&lease], &[]);
    assert_eq!(world.state(task), TaskState::Running);
}

#[test]
fn attempts_that_nobody_knows_of_do_not_use_up_a_task() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: 2,
            ..policy().retry
        },
        ..policy()
    });
    let task = world.arrive(task());
    world.save();
    for _ in 0..5 {
        let lease = world.lease(ANNA);
        world.report(ANNA, &lease, AttemptOutcome::Returned);
    }
    let lease = world.lease(ANNA);
    world.crash();
    world.attach(ANNA, &[], &[(&lease, failure())]);
    assert_eq!(world.state(task), TaskState::Delayed);
}

#[test]
fn a_cancellation_survives_a_crash() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.tell(Input::Cancel(task));
    world.save();
    world.crash();
    world.stops.clear();
    world.attach(ANNA, &[&lease], &[]);
    assert_eq!(world.stops.len(), 1);
    world.report(ANNA, &lease, AttemptOutcome::Stopped);
    assert_eq!(world.state(task), TaskState::Cancelled);
}

#[test]
fn a_start_timeout_that_is_over_waits_for_the_grace() {
    let mut world = World::new(PipelinePolicy {
        timeouts: Timeouts {
            start: Some(secs(5)),
            ..Timeouts::default()
        },
        ..policy()
    });
    let (done, waiting) = (world.arrive(task()), world.arrive(task()));
    let lease = world.lease(ANNA);
    world.advance(secs(4));
    world.crash();
    world.advance(secs(4));
    world.attach(ANNA, &[], &[(&lease, success())]);
    assert_eq!(world.state(done), TaskState::Succeeded);
    assert_eq!(world.state(waiting), TaskState::Queued);
    world.advance(GRACE);
    assert_eq!(world.state(waiting), TaskState::Expired);
}

#[test]
fn a_saved_checkpoint_whose_answer_was_lost_is_saved_again() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.tell(Input::Flush);
    let checkpoint = world.saving.clone().expect("it was flushed");
    world.store.apply(&checkpoint);
    world.advance(secs(10));
    assert!(!world.shard.is_saved());
    world.answer_save();
    assert!(world.shard.is_saved());
    assert_eq!(world.tell(Input::Saved(checkpoint.id)), Answer::Late);
    assert_eq!(world.store.results.len(), 1);
    assert_eq!(world.shard.find(task), Found::Elsewhere);
}

#[test]
fn truncation_follows_the_saved_resume_offset() {
    let mut world = World::new(policy());
    for _ in 0..3 {
        world.arrive(task());
    }
    let leases = world.ask(ANNA, 3);
    world.report(ANNA, &leases[1], success());
    world.save();
    assert!(world.truncated.is_empty());
    world.report(ANNA, &leases[0], success());
    world.save();
    assert_eq!(world.truncated, [Offset(2)]);
}
