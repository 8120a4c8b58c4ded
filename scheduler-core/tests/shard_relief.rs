//! What waits makes room for what workers hold, if both do not fit into the window.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::world::*;
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::policy::{PipelinePolicy, RetryPolicy, Window};
use scheduler_core::port::gateway::{Lease, TaskState};
use scheduler_core::shard::{Found, Input};
use scheduler_core::task::TaskOptions;

const HOUR: Duration = Duration::from_hours(1);

fn narrow(max_tasks: u32) -> PipelinePolicy {
    PipelinePolicy {
        window: Window {
            max_tasks,
            park_after: secs(60),
            ..Window::default()
        },
        ..policy()
    }
}

/// A shard that has come up anew with room for two tasks, both of which wait. Anna holds two others and takes no more.
fn crowded(spec: impl Fn(&World, u8) -> scheduler_core::task::TaskSpec) -> (World, Vec<Lease>) {
    let mut world = World::new(narrow(20));
    for level in [1, 1, 1, 1, 9, 9] {
        let spec = spec(&world, level);
        world.arrive(spec);
    }
    world.save();
    world.advance(HOUR);
    let held = world.ask(ANNA, 2);
    assert_eq!([held[0].offset, held[1].offset], [Offset(4), Offset(5)]);
    world.policy = Arc::new(narrow(2));
    world.crash();
    assert!(world.room_is_gone());
    (world, held)
}

fn at_once(_: &World, level: u8) -> scheduler_core::task::TaskSpec {
    urgent(level)
}

/// In the store until an hour has passed.
fn in_an_hour(world: &World, level: u8) -> scheduler_core::task::TaskSpec {
    scheduler_core::task::TaskSpec {
        priority: urgent(level).priority,
        ..with(TaskOptions {
            not_before: Some(world.now + HOUR),
            ..TaskOptions::default()
        })
    }
}

trait Patience {
    fn room_is_gone(&self) -> bool;
    fn pass(&mut self, seconds: u64);
}

impl Patience for World {
    fn room_is_gone(&self) -> bool {
        self.shard.room().0 == 0
    }

    /// Time passes, checkpoints are saved, and the log brings what there is room for.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.advance(secs(1));
            while self.saving.is_some() {
                self.answer_save();
            }
            self.forward();
        }
    }
}

/// Runs everything that is left; answers what ran, in order.
fn run_the_rest(world: &mut World) -> Vec<Offset> {
    let mut ran = Vec::new();
    for _ in 0..300 {
        for lease in world.ask(BERT, 5) {
            ran.push(lease.offset);
            world.report(BERT, &lease, success());
        }
        world.pass(1);
    }
    ran.sort_unstable();
    ran
}

fn check_held_tasks_come(mut world: World, held: &[Lease]) {
    world.attach(ANNA, &[&held[0], &held[1]], &[]);
    world.pass(30);
    for lease in held {
        assert_eq!(world.state(lease.offset), TaskState::Running);
    }
    for lease in held {
        world.report(ANNA, lease, success());
    }
    world.save();
    assert_eq!(world.settled.last(), Some(&(ANNA, 2)));
    assert_eq!(
        run_the_rest(&mut world),
        [Offset(0), Offset(1), Offset(2), Offset(3)]
    );
    assert!(world.store.parked.is_empty());
    assert_eq!(world.store.results.len(), 6);
}

#[test]
fn what_a_worker_holds_is_read_from_the_log_though_ready_tasks_fill_the_window() {
    let (world, held) = crowded(at_once);
    check_held_tasks_come(world, &held);
}

#[test]
fn what_a_worker_holds_is_loaded_from_the_store_though_ready_tasks_fill_the_window() {
    let (world, held) = crowded(in_an_hour);
    check_held_tasks_come(world, &held);
}

#[test]
fn what_a_worker_has_reported_is_settled_though_ready_tasks_fill_the_window() {
    for spec in [at_once, in_an_hour] {
        let (mut world, held) = crowded(spec);
        world.attach(ANNA, &[], &[(&held[0], success()), (&held[1], success())]);
        world.pass(30);
        assert_eq!(world.settled.last(), Some(&(ANNA, 2)));
        assert_eq!(run_the_rest(&mut world).len(), 4);
    }
}

#[test]
fn a_held_task_that_did_not_fit_in_is_stopped_when_its_time_is_over() {
    let (mut world, held) = crowded(at_once);
    world.attach(ANNA, &[&held[0], &held[1]], &[]);
    world.stops.clear();
    let run = u32::try_from(world.policy.timeouts.run.as_secs()).expect("a few hours");
    for _ in 0..run / 10 + 10 {
        world.pass(1);
        world.advance(secs(9));
        world.tell(Input::Alive { worker: ANNA });
    }
    let stopped: Vec<Offset> = world.stops.iter().map(|(_, lease)| lease.offset).collect();
    assert!(
        stopped.contains(&Offset(4)) && stopped.contains(&Offset(5)),
        "{stopped:?}"
    );
}

#[test]
fn a_window_that_is_full_gives_nothing_up_while_nobody_waits_for_another_task() {
    let (mut world, _) = crowded(at_once);
    world.attach(BERT, &[], &[]);
    world.pass(30);
    assert_eq!(world.shard.counts().ready, 2);
    assert!(world.store.parked.is_empty());
}

#[test]
fn a_task_that_made_room_comes_back_with_its_attempts() {
    let mut world = World::new(narrow(20));
    for level in [1, 1, 9] {
        world.arrive(urgent(level));
    }
    let held = world.lease(ANNA);
    for lease in world.ask(BERT, 2) {
        world.report(BERT, &lease, failure());
    }
    world.save();
    world.policy = Arc::new(narrow(2));
    world.crash();
    world.attach(ANNA, &[&held], &[]);
    world.pass(30);
    assert_eq!(world.state(held.offset), TaskState::Running);
    let row = world
        .store
        .parked
        .values()
        .next()
        .expect("one has made room")
        .clone();
    assert_eq!(row.attempts, Attempt(1));
    assert_eq!(world.shard.find(row.offset), Found::Elsewhere);
    world.report(ANNA, &held, success());
    world.pass(120);
    let second = world.ask(BERT, 2);
    assert!(second.iter().all(|lease| lease.token.attempt == Attempt(2)));
    assert!(second.iter().any(|lease| lease.offset == row.offset));
}

#[test]
fn a_cancelled_task_whose_lease_was_lost_on_the_way_does_not_run_again() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.lease(ANNA);
    world.tell(Input::Cancel(task));
    world.save();
    world.activate(true);
    world.attach(ANNA, &[], &[]);
    world.forward();
    world.advance(GRACE);
    assert_eq!(world.state(task), TaskState::Cancelled);
}

/// What makes room comes back when it is due, and is no part of what the last owner had.
#[test]
fn what_a_worker_holds_of_a_task_that_is_over_is_stopped_though_many_more_tasks_wait_than_fit_in() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: 1,
            ..policy().retry
        },
        ..narrow(40)
    });
    for level in [9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] {
        let spec = in_an_hour(&world, level);
        world.arrive(spec);
    }
    world.save();
    world.advance(HOUR);
    let held = world.lease(ANNA);
    assert_eq!(held.offset, Offset(0));
    world.save();
    world.policy = Arc::new(PipelinePolicy {
        window: Window {
            max_tasks: 3,
            park_after: secs(2),
            ..Window::default()
        },
        ..(*world.policy).clone()
    });
    world.crash();
    // Its attempt is given up, and there is no other.
    let run = world.policy.timeouts.run.as_secs();
    world.pass(run + 120);
    assert!(world.store.dead.contains_key(&held.offset), "it is over");
    world.stops.clear();
    world.attach(ANNA, &[&held], &[]);
    // So slow is the store that what makes room is due again before the rest is loaded.
    for _ in 0..120 {
        world.advance(secs(1));
        if world.saving.is_some() {
            world.answer_save();
        }
    }
    let stopped: Vec<Offset> = world.stops.iter().map(|(_, lease)| lease.offset).collect();
    assert_eq!(stopped, [held.offset]);
}
