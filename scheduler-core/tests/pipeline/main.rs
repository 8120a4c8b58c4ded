//! A pipeline's node: shards, sessions and polls, without a driver.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod settled;
mod shared;
mod waiting;
mod world;

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::pipeline::{Effect, Event, MAX_PROGRESS};
use scheduler_core::policy::{PipelinePolicy, Timeouts};
use scheduler_core::port::gateway::{WorkerCommand, WorkerEvent};
use scheduler_core::session::{MAX_DEFERRED, SessionId};
use scheduler_core::shard::Found;
use scheduler_core::task::{Priority, TaskSpec};

use world::{ANNA, BERT, World, held, success, words};

#[test]
fn tasks_meet_credits_whichever_comes_first() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 2);
    world.tasks(0, 3);
    assert_eq!(world.leases(1).len(), 2);
    world.credit(1, 5);
    assert_eq!(world.leases(1).len(), 1);
    world.tasks(0, 9);
    assert_eq!(world.leases(1).len(), 4);
}

#[test]
fn several_workers_share_what_is_there() {
    let mut world = World::new(1);
    for worker in 1..=4 {
        world.open(worker, WorkerId(worker.into()));
        world.credit(worker, 100);
    }
    world.tasks(0, 8);
    let mut counts = [0; 4];
    for effect in world.effects() {
        if let Effect::Tell(id, WorkerEvent::Leases(leases)) = effect {
            counts[usize::try_from(id.0).unwrap() - 1] += leases.len();
        }
    }
    assert_eq!(counts, [2; 4]);
}

#[test]
fn the_most_urgent_task_is_first_whatever_its_partition() {
    let mut world = World::new(3);
    world.tasks(0, 1);
    world.arrive(
        2,
        [TaskSpec {
            priority: Priority::MAX,
            ..TaskSpec::new("{}")
        }],
    );
    world.open(1, ANNA);
    world.credit(1, 1);
    assert_eq!(world.leases(1)[0].partition, Partition(2));
}

#[test]
fn a_poll_is_over_with_its_answer_and_one_that_is_closed_gets_none() {
    let mut world = World::new(1);
    let poll = |session, limit| Event::Poll {
        session: SessionId(session),
        worker: ANNA,
        limit,
    };
    world.event(poll(1, 3));
    world.event(poll(2, 3));
    world.event(Event::Close(SessionId(1)));
    world.tasks(0, 1);
    assert_eq!(world.leases(2).len(), 1);
    world.tasks(0, 1);
    assert!(world.leases(2).is_empty());
}

#[test]
fn a_worker_with_a_session_may_poll_as_well() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 1);
    world.event(Event::Poll {
        session: SessionId(2),
        worker: ANNA,
        limit: 1,
    });
    world.tasks(0, 2);
    let effects = world.effects();
    let is_told = |effect: &Effect| matches!(effect, Effect::Tell(SessionId(1), WorkerEvent::Leases(l)) if l.len() == 1);
    let is_answered = |effect: &Effect| matches!(effect, Effect::Answer(SessionId(2), l) if l.len() == 1);
    assert!(effects.iter().any(is_told), "{effects:?}");
    assert!(effects.iter().any(is_answered), "{effects:?}");
}

#[test]
fn a_worker_that_comes_back_again_and_again_does_not_queue_up() {
    let mut world = World::new(1);
    world.open(1, BERT);
    world.credit(1, 1);
    for session in 2..1_000 {
        world.open(session, ANNA);
        world.credit(session, 8);
    }
    assert_eq!(world.ended().len(), 997);
    // If the old sessions stood in line, each of the two would get but one at a time of so few.
    world.tasks(0, 9);
    let leases = world
        .effects()
        .into_iter()
        .filter(|effect| matches!(effect, Effect::Tell(_, WorkerEvent::Leases(_))));
    assert!(leases.count() <= 4);
}

#[test]
fn a_hello_that_was_overtaken_on_its_way_takes_nothing_from_its_worker() {
    let mut world = World::new(1);
    world.open_as(2, ANNA, 2);
    world.credit(2, 1);
    world.tasks(0, 2);
    assert_eq!(world.leases(2).len(), 1);
    // It was sent before the lease was granted, and does not hold it.
    world.open_as(1, ANNA, 1);
    assert_eq!(world.ended(), [1]);
    world.open(3, BERT);
    world.credit(3, 5);
    assert_eq!(world.leases(3).len(), 1, "the other task alone");
    // Nor does one that comes when the session is over.
    world.event(Event::Close(SessionId(2)));
    world.open_as(4, ANNA, 1);
    assert_eq!(world.ended(), [4]);
    // A new one counts: what it does not hold is lost.
    world.open_as(5, ANNA, 3);
    assert_eq!(world.leases(3).len(), 1);
}

#[test]
fn a_session_that_was_there_when_its_shard_left_begins_anew_when_the_shard_comes_back() {
    let mut world = World::new(2);
    world.open(1, ANNA);
    world.event(Event::Deactivate(Partition(1)));
    let effects = world.effects();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Tell(_, WorkerEvent::Moved(Partition(1)))))
    );
    world.activate(1);
    // What the worker holds of it, only its next hello says.
    assert_eq!(world.ended(), [1]);
    world.open(2, ANNA);
    assert!(world.ended().is_empty());
}

#[test]
fn a_session_looks_for_a_partition_that_its_pipeline_has_got_and_begins_anew_if_it_is_here() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.effects();
    world.event(Event::Grow(Partition(1)));
    assert!(matches!(
        world.effects()[..],
        [Effect::Tell(_, WorkerEvent::Moved(Partition(1)))]
    ));
    world.activate(1);
    assert_eq!(world.ended(), [1]);
    // Where it is already there is nothing to look for.
    world.open(2, ANNA);
    world.effects();
    world.event(Event::Grow(Partition(1)));
    assert!(world.effects().is_empty());
}

#[test]
fn reports_for_a_shard_that_is_not_here_wait_for_it_up_to_a_bound() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 1);
    world.tasks(0, 1);
    let mut lease = world.leases(1).remove(0);
    lease.partition = Partition(1);
    let piece = MAX_DEFERRED / 4;
    for _ in 0..3 {
        world.report(1, &lease, success(piece));
    }
    assert!(world.ended().is_empty());
    world.report(1, &lease, success(piece));
    assert_eq!(world.ended(), [1]);
}

#[test]
fn a_silent_worker_is_let_go_after_its_timeout_and_one_that_speaks_is_not() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.open(2, BERT);
    for _ in 0..5 {
        world.pass(Duration::from_secs(7));
        world.say(2, vec![WorkerCommand::Alive]);
    }
    assert_eq!(world.ended(), [1]);
    assert!(world.node.next_deadline().unwrap() <= world.now + Timeouts::default().heartbeat);
}

#[test]
fn a_shard_that_comes_up_goes_by_the_policy_of_now() {
    let mut world = World::new(1);
    let policy = PipelinePolicy {
        timeouts: Timeouts {
            run: Duration::from_secs(10),
            ..Timeouts::default()
        },
        ..PipelinePolicy::default()
    };
    world.event(Event::Policy(Arc::new(policy)));
    // Its activation began before the change.
    world.activate(1);
    world.tasks(1, 1);
    world.open(1, ANNA);
    world.credit(1, 1);
    assert_eq!(world.leases(1)[0].run_until, world.now + Duration::from_secs(10));
}

#[test]
fn workers_learn_of_a_shorter_heartbeat_in_a_new_session() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    let heartbeat = |heartbeat| {
        let policy = PipelinePolicy {
            timeouts: Timeouts {
                heartbeat,
                ..Timeouts::default()
            },
            ..PipelinePolicy::default()
        };
        Event::Policy(Arc::new(policy))
    };
    world.event(heartbeat(Duration::from_mins(1)));
    assert!(world.ended().is_empty());
    world.event(heartbeat(Duration::from_secs(2)));
    assert_eq!(world.ended(), [1]);
}

#[test]
fn progress_beyond_its_bound_is_a_sign_of_life_and_nothing_else() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 1);
    world.tasks(0, 1);
    let lease = world.leases(1).remove(0);
    for bytes in [MAX_PROGRESS, MAX_PROGRESS + 1] {
        let progress = WorkerCommand::Progress {
            lease: held(&lease),
            progress: vec![1; bytes].into(),
        };
        world.say(1, vec![progress]);
    }
    let Found::Live(view) = world.node.shard(Partition(0)).unwrap().find(lease.offset) else {
        panic!("it runs");
    };
    assert_eq!(view.progress.len(), MAX_PROGRESS);
}

#[test]
fn a_draining_worker_gets_nothing_more_and_a_paused_pipeline_gives_nothing() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 5);
    world.say(1, vec![WorkerCommand::Drain]);
    world.tasks(0, 1);
    world.credit(1, 5);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Recalled(5)]);
    world.event(Event::Pause(true));
    world.open(2, BERT);
    world.credit(2, 1);
    assert!(world.leases(2).is_empty());
    world.event(Event::Pause(false));
    assert_eq!(world.leases(2).len(), 1);
}

#[test]
fn a_shard_that_leaves_before_it_has_come_up_is_told_of_to_those_who_wait_for_it() {
    let mut world = World::new(0);
    world.open(1, ANNA);
    world.event(Event::Deactivate(Partition(3)));
    let told = |effect: &Effect| {
        matches!(
            effect,
            Effect::Tell(SessionId(1), WorkerEvent::Moved(Partition(3)))
        )
    };
    assert!(world.effects.iter().any(told), "{:?}", world.effects);
}
