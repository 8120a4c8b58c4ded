//! What the log loses before its time: counted, and never waited for.

mod common;

use common::world::*;
use scheduler_core::id::Offset;
use scheduler_core::shard::{Answer, Input};
use scheduler_core::task::RecordBody;

#[test]
fn what_the_log_has_lost_is_told_apart_from_what_was_never_there() {
    let mut world = World::new(policy());
    let first = world.arrive(task());
    // A gap, as an aborted batch leaves it; then a task that stays in the log.
    let second = Offset(first.0 + 4);
    world.submit_at(second, RecordBody::Task(task()));
    world.forward();
    assert_eq!(world.shard.account().absent, 3);
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    let account = world.shard.account();
    assert_eq!(
        (account.finished, account.live, account.parked()),
        (1, 1, Some(0))
    );

    // The log loses the second one, and a third that nobody has read.
    world.log.clear();
    let fourth = Offset(second.0 + 2);
    world.submit_at(fourth, RecordBody::Task(task()));
    world.store.log_start = fourth;
    world.crash();
    let account = world.shard.account();
    assert_eq!(
        (account.absent, account.lost, account.live),
        (3, 2, 1),
        "{account:?}"
    );
    assert_eq!(account.parked(), Some(0));
}

#[test]
fn what_the_log_loses_under_a_shard_is_counted_as_lost_and_does_not_hold_the_log() {
    let mut world = World::new(policy());
    let first = world.arrive(task());
    // Two that nobody has read, and nothing follows.
    let start = Offset(first.0 + 3);
    assert_eq!(world.tell(Input::Lost(start)), Answer::Done);
    assert_eq!(world.tell(Input::Lost(start)), Answer::Late);
    let account = world.shard.account();
    assert_eq!((account.lost, account.absent, account.live), (2, 0, 1));
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, success());
    world.save();
    assert_eq!(world.store.resume, start);
    world.submit_at(start, RecordBody::Task(task()));
    world.forward();
    assert_eq!(world.lease(ANNA).offset, start);
}

#[test]
fn what_was_lost_before_a_shard_came_up_is_counted_though_nothing_follows() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.save();
    world.log.clear();
    world.store.log_start = task.next();
    world.crash();
    let account = world.shard.account();
    assert_eq!((account.lost, account.live, account.parked()), (1, 0, Some(0)));
    world.save();
    assert_eq!(world.store.resume, task.next());
}
