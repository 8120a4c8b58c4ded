//! Idempotency keys: tasks of one key are one task.

mod common;

use common::world::*;
use scheduler_core::id::Offset;
use scheduler_core::key::{KEY_PERIOD, KeyHash};
use scheduler_core::outcome::Ending;
use scheduler_core::task::{TaskOptions, TaskSpec};

fn keyed(key: &'static str) -> TaskSpec {
    with(TaskOptions {
        idempotency_key: Some(key.into()),
        ..TaskOptions::default()
    })
}

#[test]
fn a_second_task_of_a_key_ends_as_a_duplicate_of_the_first() {
    let mut world = World::new(policy());
    let first = world.arrive(keyed("order"));
    let second = world.arrive(keyed("order"));
    let other = world.arrive(keyed("another"));
    assert_eq!(world.shard.task_of_key(KeyHash::of(b"order")), Some(first));
    let leases: Vec<Offset> = world.ask(ANNA, 10).iter().map(|lease| lease.offset).collect();
    assert_eq!(leases, [first, other]);
    world.save();
    let duplicate = &world.store.results[&second];
    assert_eq!(duplicate.ending, Ending::Duplicate);
    assert_eq!(&duplicate.output[..], b"t1-0-0");
}

#[test]
fn a_key_is_known_after_a_crash_also_when_its_task_has_ended() {
    let mut world = World::new(policy());
    let first = world.arrive(keyed("order"));
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    world.crash();
    assert_eq!(world.shard.task_of_key(KeyHash::of(b"order")), Some(first));
    world.arrive(keyed("order"));
    assert!(world.is_idle(ANNA));
}

#[test]
fn a_replay_of_the_first_task_is_not_its_duplicate() {
    let mut world = World::new(policy());
    let first = world.arrive(keyed("order"));
    world.save();
    world.crash();
    world.advance(GRACE);
    assert_eq!(world.lease(ANNA).offset, first);
}

#[test]
fn a_key_that_was_not_saved_is_seen_again_by_the_replay() {
    let mut world = World::new(policy());
    let first = world.arrive(keyed("order"));
    let second = world.arrive(keyed("order"));
    world.crash();
    world.advance(GRACE);
    let leases: Vec<Offset> = world.ask(ANNA, 10).iter().map(|lease| lease.offset).collect();
    assert_eq!(leases, [first]);
    world.save();
    assert_eq!(world.store.results[&second].ending, Ending::Duplicate);
}

#[test]
fn a_key_is_free_again_when_its_period_is_over() {
    let mut world = World::new(policy());
    world.arrive(keyed("order"));
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    world.advance(KEY_PERIOD);
    let again = world.arrive(keyed("order"));
    assert_eq!(world.lease(ANNA).offset, again);
}

#[test]
fn a_replay_of_a_task_whose_key_was_forgotten_and_came_again_is_not_a_duplicate() {
    let mut world = World::new(policy());
    let old = world.arrive(keyed("order"));
    world.advance(KEY_PERIOD);
    let new = world.arrive(keyed("order"));
    world.save();
    world.crash();
    world.advance(GRACE);
    let leases: Vec<Offset> = world.ask(ANNA, 10).iter().map(|lease| lease.offset).collect();
    assert_eq!(leases, [old, new]);
}

#[test]
fn a_duplicate_counts_as_cancelled() {
    let mut world = World::new(policy());
    world.arrive(keyed("order"));
    world.arrive(keyed("order"));
    let counts = world.shard.counts();
    assert_eq!((counts.ready, counts.cancelled), (1, 1));
}
