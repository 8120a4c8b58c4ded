//! What is saved, and who waits for it.

use scheduler_core::host::{Mark, ReadAt, Trouble, Word};
use scheduler_core::id::{Epoch, Offset};
use scheduler_core::shard::{Answer, Input};

use crate::world::{Asker, P, World, answered, asker};

#[test]
fn whoever_waits_for_a_checkpoint_is_told_when_the_store_has_what_they_saw() {
    let (mut world, stay) = World::with_one_shard();
    world.saved(stay);
    world.done();
    world.reads();
    let when_saved = |world: &mut World, name| {
        world
            .host
            .when_saved(world.now, P, asker(name), &mut world.effects)
    };
    assert!(when_saved(&mut world, 1));
    assert_eq!(answered(&world.done()).0, [1], "nothing is unsaved");
    let cancel = |world: &mut World, offset| {
        let input = Input::Cancel(Offset(offset));
        world.host.tell(world.now, P, input, &mut world.effects);
    };
    world.records(stay, 10, 2);
    cancel(&mut world, 10);
    assert!(when_saved(&mut world, 2));
    let first = world.save().unwrap();
    cancel(&mut world, 11);
    // The checkpoint that is under way does not have this.
    assert!(when_saved(&mut world, 3));
    assert!(answered(&world.done()).0.is_empty());
    world.hear(stay, Word::Saved(first.id));
    assert_eq!(answered(&world.done()).0, [2]);
    world.saved(stay);
    assert_eq!(answered(&world.done()).0, [3]);
    world.host.lose(world.now, &[P], &mut world.effects);
    assert!(!when_saved(&mut world, 4));
}

#[test]
fn those_who_wait_no_more_are_forgotten_while_nothing_can_be_saved() {
    let mut world = World::new();
    let stay = world.up(1);
    world.reads();
    world.records(stay, 10, 1);
    for name in 0..10_000 {
        let gone = Asker { name, has_gone: true };
        world.host.when_saved(world.now, P, gone, &mut world.effects);
    }
    world
        .host
        .when_saved(world.now, P, asker(10_000), &mut world.effects);
    world.saved(stay);
    let told = answered(&world.done()).0;
    assert!(told.len() < 1_000, "{} were kept", told.len());
    assert!(told.contains(&10_000));
}

#[test]
fn a_change_by_rows_that_were_read_before_a_save_does_nothing() {
    let mut world = World::new();
    let stay = world.up(1);
    world.reads();
    world.records(stay, 10, 1);
    let cancel = |world: &mut World, read_at| {
        let inputs = vec![Input::Cancel(Offset(10))];
        let waiter = |_: &[Answer]| asker(1);
        world
            .host
            .change(world.now, P, inputs, read_at, waiter, &mut world.effects)
    };
    let old = ReadAt {
        mark: world.host.mark_of(P),
        epoch: Epoch(1),
    };
    world.saved(stay);
    world.done();
    let refused = cancel(&mut world, Some(old));
    assert_eq!(refused.answers, None);
    let fresh = ReadAt {
        mark: refused.mark,
        epoch: Epoch(1),
    };
    assert_eq!(cancel(&mut world, Some(fresh)).answers, Some(vec![Answer::Done]));
    assert!(answered(&world.done()).0.is_empty());
    world.saved(stay);
    assert_eq!(answered(&world.done()).0, [1]);
    // What is not here changes nothing, and says so.
    world.host.lose(world.now, &[P], &mut world.effects);
    let elsewhere = cancel(&mut world, None);
    assert_eq!(elsewhere.answers, Some(vec![Answer::Elsewhere]));
    assert_eq!(elsewhere.mark, Mark::default());
}

#[test]
fn rows_that_were_read_after_another_owner_claimed_the_shard_are_not_taken() {
    let mut world = World::new();
    let stay = world.come_up(0);
    world.rows(stay, 2);
    assert!(world.host.pipeline().shard(P).is_none());
    assert_eq!(world.host.trouble(P), Some(&Trouble::Taken(Epoch(2))));

    let (mut world, _) = World::with_one_shard();
    let read_at = ReadAt {
        mark: world.host.mark_of(P),
        epoch: Epoch(2),
    };
    let waiter = |_: &[Answer]| asker(1);
    let changed = world.host.change(
        world.now,
        P,
        vec![Input::Flush],
        Some(read_at),
        waiter,
        &mut world.effects,
    );
    assert_eq!(changed.answers, None);
    assert!(world.host.pipeline().shard(P).is_none());
}
