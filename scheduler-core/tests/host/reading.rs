//! From the log into a shard.

use scheduler_core::host::{Effect, MOST_RECORDS, Trouble, Word};
use scheduler_core::id::Offset;
use scheduler_core::policy::PipelinePolicy;
use std::time::Duration;

use crate::world::{P, World};

#[test]
fn a_shard_reads_on_where_it_was_as_far_as_it_has_room() {
    let (mut world, stay) = World::with_one_shard();
    assert_eq!(world.reads(), (Offset(10), MOST_RECORDS, Duration::ZERO));
    world.host.read_on(&mut world.effects);
    assert!(world.done().is_empty(), "one read at a time");
    world.records(stay, 10, 3);
    assert_eq!(world.reads().0, Offset(13));
    // A window that is full by then is not read for.
    let window = u64::from(PipelinePolicy::default().window.max_tasks);
    world.records(stay, 13, window);
    world.host.read_on(&mut world.effects);
    assert!(world.done().is_empty());
}

#[test]
fn the_store_hears_of_an_owner_that_has_survived_its_first_records() {
    let mut world = World::new();
    let stay = world.up(20);
    assert!(world.save().is_none(), "it may die of what it is to replay");
    world.reads();
    world.records(stay, 10, 20);
    assert!(world.save().is_some());
    let mut idle = World::new();
    idle.up(0);
    assert!(idle.save().is_some(), "there is nothing to die of");
}

#[test]
fn reading_goes_on_where_the_log_begins_when_it_has_lost_records() {
    let (mut world, stay) = World::with_one_shard();
    world.reads();
    world.hear(stay, Word::Truncated(Offset(15)));
    let effects = world.done();
    assert!(
        matches!(
            effects.as_slice(),
            [
                Effect::Read {
                    from: Offset(15),
                    pause: Duration::ZERO,
                    ..
                },
                Effect::Troubled(P)
            ]
        ),
        "{effects:?}"
    );
    assert_eq!(world.host.trouble(P), Some(&Trouble::LostRecords(5)));
    world.records(stay, 15, 1);
    assert_eq!(world.host.pipeline().shard(P).unwrap().tail(), Offset(16));
    assert_eq!(world.host.pipeline().shard(P).unwrap().account().lost, 5);
    assert_eq!(world.reads().0, Offset(16));
    // A log that contradicts itself is not asked for ever.
    world.hear(stay, Word::Truncated(Offset(16)));
    assert!(matches!(
        world.done().as_slice(),
        [Effect::StopReading(_), Effect::Troubled(_)]
    ));
}

#[test]
fn a_log_that_is_away_is_asked_again_for_the_same_after_a_pause() {
    let (mut world, stay) = World::with_one_shard();
    let (from, records, _) = world.reads();
    world.hear(stay, Word::ReadLater);
    let effects = world.done();
    assert!(
        matches!(effects.as_slice(), [Effect::Read { from: again, limit, pause, .. }]
            if *again == from && limit.records == records && *pause > Duration::ZERO),
        "{effects:?}"
    );
}

#[test]
fn a_shard_whose_log_cannot_be_read_runs_without_new_tasks_and_says_so() {
    let (mut world, stay) = World::with_one_shard();
    world.reads();
    world.hear(stay, Word::ReadFailed("it is torn".into()));
    assert_eq!(
        world.host.trouble(P),
        Some(&Trouble::ReadFailed("it is torn".into()))
    );
    world.done();
    world.host.read_on(&mut world.effects);
    assert!(world.done().is_empty());
    assert!(world.host.pipeline().shard(P).is_some());
}
