//! What is held in memory, and what leaves it for the store.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::world::*;
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::policy::{CheckpointPolicy, PipelinePolicy, RetryPolicy, Window};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::{Answer, Found, Input};
use scheduler_core::task::{RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

const HOUR: Duration = Duration::from_hours(1);

fn window(window: Window) -> PipelinePolicy {
    PipelinePolicy { window, ..policy() }
}

fn later(world: &World, by: Duration) -> TaskSpec {
    with(TaskOptions {
        not_before: Some(world.now + by),
        ..TaskOptions::default()
    })
}

/// A world with one task that is in the store alone, wanted in an hour.
fn with_parked() -> (World, Offset) {
    let mut world = World::new(policy());
    let task = world.arrive(later(&world, HOUR));
    world.save();
    assert_eq!(world.shard.find(task), Found::Elsewhere);
    (world, task)
}

#[test]
fn a_task_that_waits_long_is_the_stores_alone_until_its_time_comes() {
    let (mut world, task) = with_parked();
    assert_eq!(world.store.resume, task.next());
    assert_eq!(world.shard.counts().delayed, 0);
    world.advance(secs(3_600 - 61));
    world.save();
    assert_eq!(world.shard.find(task), Found::Elsewhere);
    assert_eq!(
        world.shard.next_deadline(),
        Some(world.now + secs(1)),
        "it is to be loaded"
    );
    world.advance(secs(1));
    assert_eq!(world.state(task), TaskState::Delayed);
    assert!(world.is_idle(ANNA));
    world.advance(secs(60));
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    assert!(world.store.parked.is_empty());
    assert!(world.store.results.contains_key(&task));
}

#[test]
fn a_task_that_waits_less_stays_in_memory() {
    let mut world = World::new(policy());
    let task = world.arrive(later(&world, secs(120)));
    assert_eq!(world.state(task), TaskState::Delayed);
    world.save();
    assert!(world.store.parked.is_empty());
    world.crash();
    world.advance(secs(119));
    assert!(world.is_idle(ANNA));
    world.advance(secs(1));
    assert_eq!(world.lease(ANNA).offset, task);
}

#[test]
fn a_long_backoff_is_parked_with_its_attempts() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            initial_backoff: HOUR,
            max_backoff: HOUR,
            ..policy().retry
        },
        ..policy()
    });
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, failure());
    world.save();
    assert_eq!(world.store.parked[&task].attempts, Attempt(1));
    world.crash();
    world.advance(HOUR);
    assert_eq!(world.lease(ANNA).token.attempt, Attempt(2));
}

#[test]
fn a_parked_task_is_cancelled_by_fetching_it() {
    let (mut world, task) = with_parked();
    assert_eq!(world.tell(Input::Cancel(task)), Answer::Elsewhere);
    let row = world.store.parked[&task].clone();
    assert_eq!(world.tell(Input::Fetch(row.clone())), Answer::Done);
    assert_eq!(world.tell(Input::Cancel(task)), Answer::Done);
    assert_eq!(world.tell(Input::Fetch(row)), Answer::Late);
    world.save();
    assert!(world.store.parked.is_empty());
    assert_eq!(world.store.results.len(), 1);
}

#[test]
fn a_parked_task_that_is_hastened_is_leased_once_its_row_says_so() {
    let (mut world, task) = with_parked();
    let row = world.store.parked[&task].clone();
    world.tell(Input::Fetch(row));
    assert_eq!(world.tell(Input::Hasten(task)), Answer::Done);
    assert!(world.is_idle(ANNA));
    world.answer_save();
    let lease = world.lease(ANNA);

    world.crash();
    world.attach(ANNA, &[], &[(&lease, success())]);
    assert_eq!(world.state(task), TaskState::Succeeded);
    world.save();
    assert_eq!(world.settled, [(ANNA, 1)]);
    world.advance(HOUR);
    assert!(world.is_idle(ANNA));
}

#[test]
fn a_task_that_is_hastened_while_it_is_being_parked_is_leased() {
    let mut world = World::new(policy());
    let task = world.arrive(later(&world, HOUR));
    world.tell(Input::Flush);
    assert_eq!(world.tell(Input::Hasten(task)), Answer::Done);
    world.save();
    assert_eq!(world.store.parked[&task].wake_at, Timestamp::ZERO);
    assert_eq!(world.lease(ANNA).offset, task);
}

#[test]
fn a_parked_task_expires_at_its_deadline() {
    let mut world = World::new(policy());
    let task = world.arrive(with(TaskOptions {
        not_before: Some(world.now + HOUR),
        deadline: Some(world.now + HOUR / 2),
        ..TaskOptions::default()
    }));
    world.save();
    assert_eq!(world.shard.find(task), Found::Elsewhere);
    world.advance(secs(1_799));
    world.advance(secs(1));
    assert_eq!(world.state(task), TaskState::Expired);
}

#[test]
fn a_row_that_is_saved_while_a_page_is_read_is_not_overlooked() {
    let mut world = World::new(policy());
    world.loads = false;
    let first = world.arrive(later(&world, HOUR));
    world.save();
    world.now = world.now + HOUR - secs(60);
    world.tell(Input::Tick);
    let load = world.load.take().expect("the first is due");
    let page = world.store.page(load);
    let second = world.arrive(later(&world, HOUR));
    world.save();
    world.tell(page);
    world.loads = true;
    world.advance(HOUR);
    let leases = world.ask(ANNA, 2);
    let offsets: Vec<Offset> = leases.iter().map(|lease| lease.offset).collect();
    assert_eq!(offsets, [first, second]);
}

#[test]
fn a_row_whose_place_was_passed_while_it_was_saved_stays_in_memory() {
    let mut world = World::new(policy());
    let first = world.arrive(later(&world, HOUR));
    world.save();
    world.now = world.now + HOUR - secs(130);
    let second = world.arrive(later(&world, secs(125)));
    world.tell(Input::Flush);
    // The store takes so long that the first, which is wanted later, is loaded meanwhile.
    world.advance(secs(100));
    assert_eq!(world.state(first), TaskState::Delayed);
    world.answer_save();
    assert_eq!(world.state(second), TaskState::Delayed);
    world.advance(secs(25));
    assert_eq!(world.lease(ANNA).offset, second);
}

#[test]
fn a_page_that_is_older_than_a_cancellation_brings_nothing_back() {
    let mut world = World::new(policy());
    world.loads = false;
    let task = world.arrive(later(&world, HOUR));
    world.save();
    world.now = world.now + HOUR - secs(60);
    let row = world.store.parked[&task].clone();
    world.tell(Input::Fetch(row));
    world.tell(Input::Cancel(task));
    let load = world.load.take().expect("it is due");
    let page = world.store.page(load);
    world.save();
    world.tell(page);
    assert_eq!(world.shard.find(task), Found::Elsewhere);
    assert!(world.store.results.contains_key(&task));
}

#[test]
fn a_page_that_comes_a_second_time_brings_nothing_back() {
    let mut world = World::new(policy());
    world.loads = false;
    let task = world.arrive(later(&world, HOUR));
    world.save();
    world.now = world.now + HOUR - secs(60);
    world.tell(Input::Tick);
    let load = world.load.take().expect("it is due");
    let page = world.store.page(load);
    world.tell(page.clone());
    world.tell(Input::Cancel(task));
    world.save();
    assert_eq!(world.tell(page), Answer::Late);
    assert_eq!(world.shard.find(task), Found::Elsewhere);
}

#[test]
fn what_is_known_of_a_row_that_is_not_due_by_the_next_owners_clock_is_kept_until_it_is() {
    let (mut world, task) = with_parked();
    world.advance(HOUR);
    let lease = world.lease(ANNA);
    world.tell(Input::Cancel(task));
    world.save();
    world.stops.clear();
    // The next owner's clock is so far behind that it does not load the row yet.
    world.now = world.now - secs(600);
    world.activate(false);
    assert_eq!(world.shard.find(task), Found::Elsewhere);
    world.attach(ANNA, &[&lease], &[]);
    assert!(world.stops.is_empty(), "the lease is still the worker's own");
    world.save();
    world.activate(false);
    world.attach(ANNA, &[&lease], &[]);
    world.advance(secs(600));
    assert_eq!(world.state(task), TaskState::Running);
    assert_eq!(world.stops.len(), 1, "and the task is still to be cancelled");
    world.report(ANNA, &lease, failure());
    assert_eq!(world.state(task), TaskState::Cancelled);
}

#[test]
fn one_old_task_does_not_hold_the_log() {
    let mut world = World::new(window(Window {
        max_span: 16,
        ..Window::default()
    }));
    world.attach(ANNA, &[], &[]);
    let old = world.arrive(task());
    let held = world.lease(ANNA);
    for _ in 0..100 {
        world.arrive(task());
        assert!(world.shard.tail().0 <= world.store.resume.0 + 16);
        for lease in world.ask(ANNA, 9) {
            world.report(ANNA, &lease, success());
        }
        while world.saving.is_some() {
            world.answer_save();
        }
        world.forward();
    }
    assert_eq!(world.state(old), TaskState::Running);
    assert!(world.store.resume > Offset(80));

    world.crash();
    world.attach(ANNA, &[&held], &[]);
    assert!(world.stops.is_empty());
    assert_eq!(world.report(ANNA, &held, success()), Answer::Done);
    world.save();
    assert!(world.store.parked.is_empty());
    assert_eq!(world.store.results[&old].attempts, Attempt(1));
}

#[test]
fn an_old_task_is_carried_over_by_the_window_of_the_checkpoint_that_is_made() {
    let span = |max_span| {
        window(Window {
            max_span,
            ..Window::default()
        })
    };
    let mut world = World::new(span(32));
    let old = world.arrive(task());
    world.lease(ANNA);
    for _ in 0..10 {
        world.arrive(task());
        let lease = world.lease(BERT);
        world.report(BERT, &lease, success());
    }
    world.save();
    assert_eq!(world.store.resume, old);
    assert!(world.store.parked.is_empty());

    // It is made by the old window, and saved while the new one is in force.
    world.arrive(task());
    let lease = world.lease(BERT);
    world.report(BERT, &lease, success());
    world.tell(Input::Flush);
    world.policy = Arc::new(span(8));
    let policy = world.policy.clone();
    world.tell(Input::Policy(policy));
    world.answer_save();
    assert_eq!(world.store.resume, old);

    world.save();
    assert_eq!(world.store.resume, world.shard.tail());
    assert_eq!(world.store.parked.keys().collect::<Vec<_>>(), [&old]);
    assert_eq!(world.state(old), TaskState::Running);
}

#[test]
fn a_carried_task_does_not_start_before_its_time() {
    let mut world = World::new(window(Window {
        max_span: 16,
        ..Window::default()
    }));
    let old = world.arrive(later(&world, secs(90)));
    for _ in 0..30 {
        world.arrive(task());
        for lease in world.ask(ANNA, 9) {
            world.report(ANNA, &lease, success());
        }
        world.save();
    }
    assert!(world.store.parked.contains_key(&old));
    world.crash();
    world.advance(secs(20));
    assert!(world.is_idle(ANNA));
    world.advance(secs(70));
    assert_eq!(world.lease(ANNA).offset, old);
}

#[test]
fn a_window_that_is_full_of_tasks_or_bytes_takes_no_more() {
    let mut world = World::new(window(Window {
        max_tasks: 3,
        ..Window::default()
    }));
    for _ in 0..5 {
        world.arrive(task());
    }
    assert_eq!(world.shard.counts().ready, 3);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.forward();
    assert_eq!(world.shard.counts().ready, 3);

    let mut world = World::new(window(Window {
        max_bytes: 1_000,
        ..Window::default()
    }));
    for _ in 0..5 {
        world.arrive(TaskSpec::new(vec![b'x'; 400]));
    }
    assert_eq!(world.shard.counts().ready, 3);
    for lease in world.ask(ANNA, 3) {
        world.report(ANNA, &lease, success());
    }
    world.save();
    world.forward();
    assert_eq!(world.shard.counts().ready, 2);
}

#[test]
fn a_full_window_refuses_what_is_fetched_or_revived() {
    let mut world = World::new(window(Window {
        max_tasks: 2,
        ..Window::default()
    }));
    let parked = world.arrive(later(&world, HOUR));
    world.save();
    world.arrive(task());
    world.arrive(task());
    let row = world.store.parked[&parked].clone();
    assert_eq!(world.tell(Input::Fetch(row.clone())), Answer::Full);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    assert_eq!(world.tell(Input::Fetch(row)), Answer::Done);
}

#[test]
fn while_the_store_is_away_work_goes_on_up_to_a_bound_and_then_waits() {
    let mut world = World::new(PipelinePolicy {
        checkpoint: CheckpointPolicy {
            max_ended: 4,
            ..CheckpointPolicy::default()
        },
        ..policy()
    });
    for _ in 0..20 {
        world.arrive(task());
    }
    for _ in 0..8 {
        let lease = world.lease(ANNA);
        world.report(ANNA, &lease, success());
    }
    assert_eq!(world.shard.ready(), 0);
    assert!(world.is_idle(ANNA));
    world.answer_save();
    assert!(world.shard.ready() > 0);
    world.lease(ANNA);
}

#[test]
fn a_gap_in_the_log_costs_no_memory_and_loses_nothing() {
    let mut world = World::new(policy());
    let before = world.arrive(task());
    let delayed = world.arrive(later(&world, HOUR));
    let after = Offset(u64::MAX / 2);
    world.submit_at(after, RecordBody::Task(task()));
    world.forward();
    assert_eq!(world.shard.tail(), after.next());
    world.save();
    assert_eq!(world.store.resume, after);
    world.crash();
    world.advance(GRACE);
    let leases = world.ask(ANNA, 9);
    let offsets: Vec<Offset> = leases.iter().map(|lease| lease.offset).collect();
    assert_eq!(offsets.len(), 2);
    assert!(offsets.contains(&before) && offsets.contains(&after));
    world.advance(HOUR);
    assert_eq!(world.lease(ANNA).offset, delayed);
}

#[test]
fn a_log_that_begins_far_behind_the_resume_offset_is_read_from_there() {
    let mut world = World::new(policy());
    world.submit_at(Offset(1 << 40), RecordBody::Task(task()));
    world.forward();
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    assert_eq!(world.truncated, [Offset((1 << 40) + 1)]);
}
