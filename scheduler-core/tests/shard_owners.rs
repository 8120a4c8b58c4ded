//! What a new owner owes to the workers of the last one, and how one finds out that it is the last one.

mod common;

use common::world::*;
use scheduler_core::id::Attempt;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy};
use scheduler_core::port::gateway::{Lease, TaskState};
use scheduler_core::shard::{Answer, Found, Input};
use scheduler_core::task::{TaskOptions, TaskSpec};

#[test]
fn who_reports_without_a_session_is_to_report_again_until_the_task_is_there() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.activate(true);
    // The word is kept, but no checkpoint has it.
    assert_eq!(world.report(ANNA, &lease, success()), Answer::Elsewhere);
    assert_eq!(world.report(ANNA, &lease, success()), Answer::Elsewhere);
    world.forward();
    assert_eq!(world.state(task), TaskState::Succeeded);
    world.save();
    assert!(world.store.results.contains_key(&task));
}

/// A shard whose last owner vanished after two attempts that it had not saved: Bert's failed, and Anna has the second one.
fn with_an_attempt_after_a_failure() -> (World, [Lease; 2]) {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            initial_backoff: secs(3_600),
            max_backoff: secs(3_600),
            ..policy().retry
        },
        ..policy()
    });
    let task = world.arrive(task());
    let first = world.lease(BERT);
    world.report(BERT, &first, failure());
    world.tell(Input::Hasten(task));
    let second = world.lease(ANNA);
    world.crash();
    world.attach(BERT, &[], &[(&first, failure())]);
    world.save();
    (world, [first, second])
}

#[test]
fn a_success_after_a_failure_that_another_worker_told_first_is_taken_within_the_grace() {
    let (mut world, [_, second]) = with_an_attempt_after_a_failure();
    world.attach(ANNA, &[], &[(&second, success())]);
    assert_eq!(world.state(second.offset), TaskState::Succeeded);
    world.save();
    assert_eq!(world.settled.last(), Some(&(ANNA, 1)));
}

#[test]
fn a_success_of_a_hastened_task_is_taken_within_the_grace_though_nobody_saved_that_it_was_hastened() {
    let mut world = World::new(policy());
    let later = TaskOptions {
        not_before: Some(world.now + secs(3_600)),
        ..TaskOptions::default()
    };
    let task = world.arrive(TaskSpec {
        options: Some(Box::new(later)),
        ..task()
    });
    world.tell(Input::Hasten(task));
    let lease = world.lease(ANNA);
    world.crash();
    world.save();
    world.attach(ANNA, &[], &[(&lease, success())]);
    assert_eq!(world.state(task), TaskState::Succeeded);
    world.save();
    assert!(world.store.results.contains_key(&task));
}

#[test]
fn a_long_delay_is_parked_once_the_grace_is_over() {
    let (mut world, [first, _]) = with_an_attempt_after_a_failure();
    assert_eq!(world.state(first.offset), TaskState::Delayed);
    assert!(world.store.parked.is_empty());
    world.advance(GRACE);
    world.save();
    assert_eq!(world.shard.find(first.offset), Found::Elsewhere);
    assert_eq!(world.store.parked[&first.offset].attempts, Attempt(1));
}

#[test]
fn an_owner_whose_tasks_nobody_comes_for_saves_now_and_then_lest_it_was_replaced() {
    let mut world = World::new(policy());
    world.arrive(task());
    world.save();
    world.advance(secs(29));
    assert!(world.shard.is_saved());
    world.advance(secs(1));
    assert!(!world.shard.is_saved());
    world.save();
    let lease = world.lease(ANNA);
    world.save();
    for _ in 0..4 {
        world.advance(secs(10));
        world.tell(Input::Alive { worker: ANNA });
        assert!(world.shard.is_saved(), "somebody has come");
    }
    world.report(ANNA, &lease, success());
    world.save();
    assert!(
        world.shard.next_deadline() > Some(world.now + secs(30)),
        "it has no tasks"
    );
}

#[test]
fn an_owner_that_has_nothing_to_do_saves_every_five_minutes_lest_the_tasks_are_elsewhere() {
    let mut world = World::new(policy());
    world.save();
    for _ in 0..2 {
        let due = world.shard.next_deadline().expect("it has doubts");
        assert_eq!(
            due.as_millis() % 300_000,
            0,
            "all shards of a node at once, so that one transaction saves them"
        );
        world.now = due;
        world.tell(Input::Tick);
        assert!(!world.shard.is_saved());
        world.save();
        assert!(world.shard.is_saved());
    }
}
