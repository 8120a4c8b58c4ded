//! A pipeline where it lives: what a host decides, told by hand.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::host::{
    Effect, Effects, Host, HostConfig, MOST_RECORDS, Mark, ReadAt, Stay, Trouble, Waiter, Word,
};
use scheduler_core::id::{Epoch, NodeId, Offset, Partition, PipelineId, WorkerId};
use scheduler_core::pipeline;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{WorkerEvent, WorkerHello};
use scheduler_core::port::log::Bounds;
use scheduler_core::port::store::{Claimed, PreviousOwner};
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Answer, Input};
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

const P: Partition = Partition(0);

/// Somebody who waits for a checkpoint.
#[derive(Debug, PartialEq)]
struct Asker {
    name: u32,
    has_gone: bool,
}

impl Waiter for Asker {
    fn has_gone(&self) -> bool {
        self.has_gone
    }
}

fn asker(name: u32) -> Asker {
    Asker {
        name,
        has_gone: false,
    }
}

struct World {
    now: Timestamp,
    host: Host<Asker, &'static str>,
    effects: Effects<Asker, &'static str>,
    epoch: u32,
    previous: PreviousOwner,
    barren: u32,
}

impl World {
    fn new() -> Self {
        let config = HostConfig {
            pipeline: PipelineId(1),
            node: NodeId(7),
            grace: Duration::from_secs(5),
        };
        Self {
            now: Timestamp::from_millis(1_000_000),
            host: Host::new(config, Arc::new(PipelinePolicy::default()), false),
            effects: Effects::default(),
            epoch: 0,
            previous: PreviousOwner::Released,
            barren: 0,
        }
    }

    fn with_one_shard() -> (Self, Stay) {
        let mut world = Self::new();
        let stay = world.up(0);
        (world, stay)
    }

    /// What the host wants done since the last look.
    fn done(&mut self) -> Vec<Effect<Asker, &'static str>> {
        std::mem::take(&mut self.effects.host)
    }

    fn assign(&mut self) -> Stay {
        self.host.assign(self.now, &[P], &mut self.effects);
        self.claims()
    }

    fn claims(&mut self) -> Stay {
        match self.done().as_slice() {
            [Effect::Claim(stay)] => *stay,
            other => panic!("{other:?} is no claim"),
        }
    }

    fn hear(&mut self, stay: Stay, word: Word) -> bool {
        self.host.hear(self.now, stay, word, &mut self.effects)
    }

    fn claimed(&mut self, stay: Stay) {
        self.epoch += 1;
        let claimed = Claimed {
            epoch: Epoch(self.epoch),
            previous: self.previous,
            resume: Offset(10),
            state: Bytes::new(),
            barren_epochs: self.barren,
        };
        self.hear(stay, Word::Claimed(claimed));
    }

    fn measured(&mut self, stay: Stay, start: u64, end: u64) {
        let bounds = Bounds {
            start: Offset(start),
            end: Offset(end),
        };
        self.hear(stay, Word::Measured(bounds, Vec::new()));
    }

    /// Brings up the shard, with so many records to replay and no rows.
    fn up(&mut self, records: u64) -> Stay {
        let stay = self.come_up(records);
        self.rows(stay, self.epoch);
        stay
    }

    /// The store's answer to the question for parked tasks: there are none, and this was the shard's epoch.
    fn rows(&mut self, stay: Stay, epoch: u32) {
        let wanted = self.effects.pipeline.iter().find_map(|effect| match effect {
            pipeline::Effect::LoadParked { page, .. } => Some(*page),
            _ => None,
        });
        let rows = Word::Unpark {
            page: wanted.unwrap(),
            tasks: Vec::new(),
            next_wake: Timestamp::MAX,
            epoch: Epoch(epoch),
        };
        self.hear(stay, rows);
    }

    fn come_up(&mut self, records: u64) -> Stay {
        let stay = self.assign();
        self.claimed(stay);
        assert!(matches!(self.done().as_slice(), [Effect::Measure(of)] if *of == stay));
        self.measured(stay, 0, 10 + records);
        assert!(matches!(
            self.done().as_slice(),
            [Effect::Active {
                from: Offset(10),
                missing: 0,
                ..
            }]
        ));
        stay
    }

    /// The read that the host wants.
    fn reads(&mut self) -> (Offset, usize, Duration) {
        self.host.read_on(&mut self.effects);
        match self.done().as_slice() {
            [
                Effect::Read {
                    from, limit, pause, ..
                },
            ] => (*from, limit.records, *pause),
            other => panic!("{other:?} is no read"),
        }
    }

    fn records(&mut self, stay: Stay, from: u64, count: u64) -> bool {
        let records = (from..from + count).map(|offset| Record {
            offset: Offset(offset),
            appended_at: self.now,
            body: RecordBody::Task(TaskSpec::new("{}")),
        });
        let records = records.collect();
        self.hear(stay, Word::Records(records))
    }

    /// The checkpoint that the host wants saved, if it wants one.
    fn save(&mut self) -> Option<Arc<Checkpoint>> {
        let effects = std::mem::take(&mut self.effects.pipeline);
        effects.into_iter().find_map(|effect| match effect {
            pipeline::Effect::Save(checkpoint) => Some(checkpoint),
            _ => None,
        })
    }

    /// Saves what is to be saved.
    fn saved(&mut self, stay: Stay) {
        let id = self.save().unwrap().id;
        self.hear(stay, Word::Saved(id));
    }

    fn revoke(&mut self, who: &'static str) {
        self.host.revoke(self.now, &[P], &who, &mut self.effects);
    }

    fn hello(&mut self, session: u64) -> bool {
        let hello = WorkerHello {
            worker: WorkerId(u128::from(session)),
            name: String::new(),
            held: Vec::new(),
            reported: Vec::new(),
            shares: false,
            number: 0,
        };
        self.host
            .open(self.now, SessionId(session), hello, &mut self.effects)
    }

    fn told(&mut self, wanted: &WorkerEvent) -> usize {
        let effects = std::mem::take(&mut self.effects.pipeline);
        let told = effects
            .iter()
            .filter(|effect| matches!(effect, pipeline::Effect::Tell(_, event) if event == wanted));
        told.count()
    }
}

/// Who is told that something is saved, and who that a shard is let go or released.
fn answered(effects: &[Effect<Asker, &'static str>]) -> (Vec<u32>, Vec<&'static str>) {
    let (mut saved, mut gone) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Saved(asker) => saved.push(asker.name),
            Effect::LetGo(_, waiting) | Effect::Release { waiting, .. } => gone.extend(waiting),
            _ => (),
        }
    }
    (saved, gone)
}

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
