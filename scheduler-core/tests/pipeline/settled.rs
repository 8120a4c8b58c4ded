//! When workers are told that their reports are saved.

use std::time::Duration;

use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::pipeline::{Effect, Event};
use scheduler_core::port::gateway::{Lease, WorkerCommand, WorkerEvent};
use scheduler_core::shard::Input;

use crate::world::{ANNA, World, success};

#[test]
fn what_a_draining_worker_reports_is_saved_at_once() {
    let mut world = World::new(1);
    world.tasks(0, 2);
    world.open(1, ANNA);
    world.credit(1, 2);
    let leases = world.leases(1);
    world.event(Event::Shard(Partition(0), Input::Flush));
    assert!(world.saves());
    world.report(1, &leases[0], success(1));
    assert!(!world.saves());
    world.say(1, vec![WorkerCommand::Drain]);
    assert!(world.saves());
    world.report(1, &leases[1], success(1));
    assert!(world.saves());
}

#[test]
fn what_is_given_back_by_nobody_does_not_count_as_a_workers_report() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 2);
    world.tasks(0, 2);
    let leases = world.leases(1);
    let Lease { offset, token, .. } = leases[0];
    world.node.give_back(
        world.now,
        Partition(0),
        WorkerId(0),
        offset,
        token,
        &mut world.effects,
    );
    world.report(1, &leases[1], success(1));
    world.event(Event::Shard(Partition(0), Input::Flush));
    let id = world
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Save(checkpoint) => Some(checkpoint.id),
            _ => None,
        })
        .next_back()
        .unwrap();
    world.event(Event::Shard(Partition(0), Input::Saved(id)));
    world.event(Event::Shard(Partition(0), Input::Flush));
    let settled = world.effects().into_iter().filter_map(|effect| match effect {
        Effect::Tell(_, WorkerEvent::Settled { count, .. }) => Some(count),
        _ => None,
    });
    assert!(settled.max().unwrap_or_default() <= 1);
}

fn settled(world: &mut World) -> Vec<u64> {
    let of = |effect| match effect {
        Effect::Tell(_, WorkerEvent::Settled { count, .. }) => Some(count),
        _ => None,
    };
    world.effects().into_iter().filter_map(of).collect()
}

/// Has everything saved that a worker with room for one task has reported of so many.
fn report_and_save(world: &mut World, tasks: u32) {
    for _ in 0..tasks {
        world.tasks(0, 1);
        world.credit(1, 1);
        let leases = world.leases(1);
        world.report(1, &leases[0], success(1));
    }
    world.event(Event::Shard(Partition(0), Input::Flush));
    let id = world.node.covering(Partition(0)).unwrap();
    world.event(Event::Shard(Partition(0), Input::Saved(id)));
}

#[test]
fn what_is_settled_is_said_with_the_next_lease_or_a_little_later() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    report_and_save(&mut world, 1);
    assert_eq!(settled(&mut world), []);
    world.tasks(0, 1);
    world.credit(1, 1);
    let said = world.effects();
    let told: Vec<_> = said
        .iter()
        .filter(|effect| matches!(effect, Effect::Tell(..)))
        .collect();
    assert!(
        matches!(
            told[..],
            [
                Effect::Tell(_, WorkerEvent::Settled { count: 1, .. }),
                Effect::Tell(_, WorkerEvent::Leases(_))
            ]
        ),
        "{told:?}"
    );

    let mut idle = World::new(1);
    idle.open(1, ANNA);
    report_and_save(&mut idle, 2);
    assert_eq!(settled(&mut idle), []);
    idle.now = idle
        .node
        .next_deadline()
        .unwrap()
        .min(idle.now + Duration::from_secs(1));
    idle.event(Event::Tick);
    assert_eq!(settled(&mut idle), [2]);
}

#[test]
fn what_is_settled_is_said_at_once_if_it_is_much_or_somebody_waits_for_it() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    report_and_save(&mut world, 32);
    assert_eq!(settled(&mut world), [32]);
    report_and_save(&mut world, 1);
    world.event(Event::Pause(true));
    assert_eq!(settled(&mut world), [33], "a node that goes down has paused");
    world.event(Event::Pause(false));
    report_and_save(&mut world, 1);
    world.say(1, vec![WorkerCommand::Drain]);
    assert_eq!(settled(&mut world), [34]);

    let mut moved = World::new(1);
    moved.open(1, ANNA);
    report_and_save(&mut moved, 1);
    moved.event(Event::Deactivate(Partition(0)));
    assert_eq!(settled(&mut moved), [1]);
}
