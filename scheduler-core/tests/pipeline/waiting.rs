//! Why a task does not run.

use std::time::Duration;

use scheduler_core::id::{Offset, Partition};
use scheduler_core::pipeline::Event;
use scheduler_core::port::gateway::{MOST_AHEAD, Waiting};
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};

use crate::world::{ANNA, World};

fn waiting(world: &World, offset: u64) -> Option<Waiting> {
    world.node.waiting(Partition(0), Offset(offset))
}

#[test]
fn what_a_task_waits_for_is_what_keeps_it_from_running() {
    let mut world = World::new(1);
    world.tasks(0, 1);
    assert_eq!(waiting(&world, 0), Some(Waiting::NoWorker));
    world.open(1, ANNA);
    assert_eq!(waiting(&world, 0), Some(Waiting::Behind { ahead: 0 }));
    world.event(Event::Pause(true));
    assert_eq!(waiting(&world, 0), Some(Waiting::Paused));
    world.event(Event::Pause(false));

    let urgent = TaskSpec {
        priority: Priority::MAX,
        ..TaskSpec::new("{}")
    };
    world.arrive(0, [urgent]);
    assert_eq!(waiting(&world, 0), Some(Waiting::Behind { ahead: 1 }));
    assert_eq!(waiting(&world, 1), Some(Waiting::Behind { ahead: 0 }));
    world.credit(1, 1);
    assert_eq!(waiting(&world, 1), None, "it runs");
    assert_eq!(waiting(&world, 0), Some(Waiting::Behind { ahead: 0 }));

    assert_eq!(waiting(&world, 7), Some(Waiting::InLog { ahead: 5 }));
    assert_eq!(
        world.node.waiting(Partition(3), Offset(0)),
        Some(Waiting::ShardIsAway)
    );
}

#[test]
fn a_task_whose_time_has_not_come_waits_for_nothing_else() {
    let mut world = World::new(1);
    let later = TaskSpec {
        options: Some(Box::new(TaskOptions {
            not_before: Some(world.now + Duration::from_secs(9)),
            ..TaskOptions::default()
        })),
        ..TaskSpec::new("{}")
    };
    world.arrive(0, [later]);
    world.event(Event::Pause(true));
    assert_eq!(waiting(&world, 0), Some(Waiting::NotDue));
}

#[test]
fn a_long_queue_is_not_walked_to_its_end() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.tasks(0, 3_000);
    assert_eq!(waiting(&world, 999), Some(Waiting::Behind { ahead: 999 }));
    assert_eq!(
        waiting(&world, 2_999),
        Some(Waiting::Behind { ahead: MOST_AHEAD })
    );
}
