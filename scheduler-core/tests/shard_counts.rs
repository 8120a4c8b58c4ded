//! How many tasks there are of each kind, and how many have ended.

mod common;

use common::world::*;
use scheduler_core::id::Offset;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::shard::Input;
use scheduler_core::task::TaskOptions;

#[test]
fn the_counts_follow_the_tasks() {
    let mut world = World::new(policy());
    let not_before = Some(world.now + secs(60));
    world.arrive(with(TaskOptions {
        not_before,
        ..TaskOptions::default()
    }));
    for _ in 0..4 {
        world.arrive(task());
    }
    let leases = world.ask(ANNA, 3);
    world.report(ANNA, &leases[0], success());
    world.report(ANNA, &leases[1], AttemptOutcome::Rejected { error: "no".into() });
    let counts = world.shard.counts();
    assert_eq!((counts.ready, counts.delayed, counts.running), (1, 1, 1));
    assert_eq!((counts.succeeded, counts.died, counts.cancelled), (1, 1, 0));
    let live = world.shard.list(Offset(99), 10, |state| !state.is_final());
    assert_eq!(live.len(), 3);
}

#[test]
fn what_has_ended_is_counted_once_whoever_owns_the_shard() {
    let mut world = World::new(policy());
    for _ in 0..5 {
        world.arrive(task());
    }
    let leases = world.ask(ANNA, 3);
    world.report(ANNA, &leases[0], success());
    world.report(ANNA, &leases[1], AttemptOutcome::Rejected { error: "no".into() });
    let ended = |world: &World| {
        let counts = world.shard.counts();
        (counts.succeeded, counts.died, counts.cancelled)
    };
    world.save();
    world.tell(Input::Cancel(leases[2].offset.next()));
    assert_eq!(ended(&world), (1, 1, 1));

    world.crash();
    assert_eq!(ended(&world), (1, 1, 0), "the cancellation was not saved");
    world.tell(Input::Cancel(leases[2].offset.next()));
    world.report(ANNA, &leases[2], success());
    assert_eq!(ended(&world), (2, 1, 1));
    world.move_away();
    assert_eq!(ended(&world), (2, 1, 1));
}
