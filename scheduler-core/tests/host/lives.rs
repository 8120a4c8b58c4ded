//! How shards come up, are left alone, and go.

use bytes::Bytes;
use scheduler_core::host::{Effect, Trouble, Word};
use scheduler_core::id::{Epoch, Offset, WorkerId};
use scheduler_core::port::gateway::WorkerEvent;
use scheduler_core::port::store::{Claimed, PreviousOwner};
use scheduler_core::session::SessionId;

use crate::world::{P, World, answered, asker};

#[test]
fn what_was_said_to_an_earlier_stay_is_not_heard() {
    let (mut world, stay) = World::with_one_shard();
    world.host.lose(world.now, &[P], &mut world.effects);
    assert!(!world.records(stay, 10, 1));
    let effects = world.done();
    assert!(
        matches!(effects.as_slice(), [Effect::Over(of), Effect::Left { ran: Some(_), .. }] if *of == stay),
        "{effects:?}"
    );
    let next = world.up(0);
    assert_ne!(next, stay);
    assert!(!world.hear(stay, Word::Broken("it was the other one".into())));
    assert!(world.hear(next, Word::NoParked("they are torn".into())));
}

#[test]
fn a_revoked_shard_is_released_when_it_is_saved_and_then_everybody_is_answered() {
    let mut world = World::new();
    let stay = world.up(5);
    world.reads();
    world.records(stay, 10, 5);
    world.revoke("placement");
    world.revoke("shutdown");
    let effects = world.done();
    assert!(
        matches!(effects.as_slice(), [Effect::StopReading(_)]),
        "{effects:?}"
    );
    world.saved(stay);
    // The first checkpoint may have been made before leasing stopped.
    while world.host.is_hosted(P) {
        world.saved(stay);
    }
    let effects = world.done();
    assert!(
        matches!(effects.last(), Some(Effect::Release { .. })),
        "{effects:?}"
    );
    assert_eq!(answered(&effects).1, ["placement", "shutdown"]);
}

#[test]
fn who_revokes_what_is_not_here_is_answered_at_once() {
    let mut world = World::new();
    world.revoke("placement");
    assert_eq!(answered(&world.done()).1, ["placement"]);
}

#[test]
fn a_shard_that_another_owner_has_taken_is_claimed_again_later_unless_it_is_revoked() {
    let (mut world, stay) = World::with_one_shard();
    world.hear(stay, Word::Fenced(Epoch(9)));
    assert_eq!(world.host.trouble(P), Some(&Trouble::Taken(Epoch(9))));
    let effects = world.done();
    let [
        Effect::Over(_),
        Effect::Left { .. },
        Effect::Wake(next, until),
        Effect::Troubled(_),
    ] = effects.as_slice()
    else {
        panic!("{effects:?}");
    };
    assert_ne!(*next, stay);
    assert!(
        world.host.stay_of(P).is_none(),
        "nothing is done for it meanwhile"
    );
    world.now = *until;
    world.hear(*next, Word::Due);
    let next = world.claims();
    world.claimed(next);
    world.measured(next, 0, 10);
    assert!(world.host.trouble(P).is_none());
    world.done();
    world.hear(next, Word::Fenced(Epoch(11)));
    world.done();
    world.revoke("placement");
    assert_eq!(answered(&world.done()).1, ["placement"]);
    assert!(!world.host.is_hosted(P) && world.host.trouble(P).is_none());
}

#[test]
fn a_shard_that_was_left_alone_comes_up_when_the_pipeline_is_resumed_and_not_on_a_node_that_goes_down() {
    let mut world = World::new();
    (world.previous, world.barren) = (PreviousOwner::Vanished, 3);
    let stay = world.assign();
    world.claimed(stay);
    let effects = world.done();
    assert!(
        matches!(effects.as_slice(), [Effect::Over(_), Effect::Troubled(P)]),
        "{effects:?}"
    );
    let trouble = world.host.trouble(P).unwrap();
    assert_eq!(trouble, &Trouble::Quarantined { owners: 3 });
    assert!(trouble.is_left_alone());
    world.host.pause(world.now, false, &mut world.effects);
    assert!(world.done().is_empty(), "it was not paused");
    world.host.pause(world.now, true, &mut world.effects);
    world.host.pause(world.now, false, &mut world.effects);
    let stay = world.claims();
    world.claimed(stay);
    assert!(matches!(world.done().as_slice(), [Effect::Measure(_)]));
    world.hear(stay, Word::Broken("its log is gone".into()));
    assert!(world.host.trouble(P).unwrap().is_left_alone());
    world.host.drain(world.now, &mut world.effects);
    world.done();
    world.host.try_again(world.now, &mut world.effects);
    assert!(world.done().is_empty());
}

#[test]
fn a_shard_whose_state_cannot_be_read_is_left_alone_and_not_released() {
    let mut world = World::new();
    let stay = world.assign();
    let claimed = Claimed {
        epoch: Epoch(1),
        previous: PreviousOwner::Released,
        resume: Offset(10),
        state: Bytes::from_static(b"\xffnot a state"),
        barren_epochs: 0,
    };
    world.hear(stay, Word::Claimed(claimed));
    world.measured(stay, 0, 10);
    assert!(matches!(world.host.trouble(P), Some(Trouble::Damaged(_))));
    let effects = world.done();
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Release { .. }))
    );
    world.hello(1);
    world.effects.pipeline.clear();
    // Workers that have come for it hear that it goes, when it goes.
    world.revoke("placement");
    assert_eq!(world.told(&WorkerEvent::Moved(P)), 1);
    assert_eq!(answered(&world.done()).1, ["placement"]);
    assert!(world.host.trouble(P).is_none());
}

#[test]
fn what_breaks_as_it_leaves_is_the_next_owners_trouble() {
    let mut world = World::new();
    let stay = world.up(1);
    world.reads();
    world.records(stay, 10, 1);
    world.revoke("placement");
    world.done();
    world.hear(stay, Word::Broken("its checkpoints cannot be saved".into()));
    assert_eq!(answered(&world.done()).1, ["placement"]);
    assert!(world.host.trouble(P).is_none() && !world.host.is_hosted(P));
}

#[test]
fn a_shard_that_is_lost_answers_nobody() {
    let mut world = World::new();
    let stay = world.up(1);
    world.reads();
    world.records(stay, 10, 1);
    world.host.when_saved(world.now, P, asker(1), &mut world.effects);
    world.revoke("placement");
    world.host.lose(world.now, &[P], &mut world.effects);
    assert_eq!(answered(&world.done()), (Vec::new(), Vec::new()));
}

#[test]
fn a_session_for_a_node_whose_last_shard_has_left_is_refused() {
    let mut world = World::new();
    assert!(world.hello(1), "placement may give it something yet");
    let stay = world.up(0);
    world.saved(stay);
    world.revoke("placement");
    assert!(!world.host.is_hosted(P));
    assert!(!world.hello(2));
    world.host.assign(world.now, &[P], &mut world.effects);
    assert!(world.hello(3));
}

#[test]
fn a_node_that_goes_down_sends_workers_away_and_is_done_when_nothing_runs() {
    let (mut world, _) = World::with_one_shard();
    assert!(!world.host.is_drained());
    world.host.drain(world.now, &mut world.effects);
    assert!(matches!(world.done().as_slice(), [Effect::GoAway]));
    assert!(world.host.is_draining() && world.host.is_drained());
    world.effects.pipeline.clear();
    assert!(world.hello(1));
    assert_eq!(world.told(&WorkerEvent::GoAway), 1);
    let poll = world
        .host
        .poll(world.now, SessionId(2), WorkerId(2), 1, &mut world.effects);
    assert!(!poll);
    // A pipeline that is resumed meanwhile leases nothing either.
    world.host.pause(world.now, true, &mut world.effects);
    world.host.pause(world.now, false, &mut world.effects);
    let again = world.host.afresh();
    assert!(again.is_draining());
}

#[test]
fn a_host_after_a_panic_knows_what_placement_gave_and_hears_nothing_old() {
    let (mut world, stay) = World::with_one_shard();
    world.host = world.host.afresh();
    assert!(world.host.has_assigned() && !world.host.is_hosted(P));
    world.host.come_up(world.now, &mut world.effects);
    let next = world.claims();
    assert_ne!(next, stay);
    assert!(!world.records(stay, 10, 1));
}

#[test]
fn a_shard_is_recorded_from_its_next_stay_on() {
    let (mut world, stay) = World::with_one_shard();
    let record = |world: &mut World| {
        world
            .host
            .record(world.now, P, 1 << 20, "recorder", &mut world.effects)
    };
    assert!(record(&mut world));
    assert!(world.host.is_to_record(P));
    world.saved(stay);
    assert_eq!(answered(&world.done()).1, ["recorder"]);
    assert!(!record(&mut world), "it does not run");
    world.host.come_back(world.now, P, &mut world.effects);
    let stay = world.claims();
    assert!(!world.host.is_to_record(P));
    world.claimed(stay);
    world.measured(stay, 0, 10);
    assert!(world.host.take_recorded(P).is_some());
    // What placement has taken away since does not come back.
    world.saved(stay);
    world.revoke("placement");
    world.done();
    world.host.come_back(world.now, P, &mut world.effects);
    assert!(world.done().is_empty());
}
