//! Sessions that share the room of their worker: they are told of waiting tasks, and credit is recalled from them.

use scheduler_core::id::WorkerId;
use scheduler_core::pipeline::Event;
use scheduler_core::port::gateway::{WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_core::session::SessionId;

use crate::world::{ANNA, World, words};

fn open_shared(world: &mut World, session: u64, worker: WorkerId) {
    let hello = WorkerHello {
        worker,
        name: String::new(),
        held: Vec::new(),
        reported: Vec::new(),
        shares: true,
        number: 0,
    };
    world.event(Event::Open(SessionId(session), hello));
}

#[test]
fn a_session_that_shares_its_room_is_told_of_waiting_tasks_on_change_alone() {
    let mut world = World::new(1);
    open_shared(&mut world, 1, ANNA);
    assert_eq!(words(&mut world, 1), []);
    world.tasks(0, 3);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(true)]);
    world.tasks(0, 1);
    // Credit that is used as it comes changes nothing.
    world.credit(1, 1);
    world.credit(1, 2);
    assert_eq!(words(&mut world, 1), []);
    world.credit(1, 2);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(false)]);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), []);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(true)]);
    world.say(1, vec![WorkerCommand::Drain]);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Recalled(0)]);
}

#[test]
fn who_does_not_share_is_not_told() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.tasks(0, 3);
    world.credit(1, 5);
    assert_eq!(words(&mut world, 1), []);
    world.say(1, vec![WorkerCommand::Recall]);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Recalled(2)]);
}

#[test]
fn recalled_credit_is_void_and_counted() {
    let mut world = World::new(1);
    open_shared(&mut world, 1, ANNA);
    world.credit(1, 3);
    world.tasks(0, 1);
    assert_eq!(world.leases(1).len(), 1);
    world.say(1, vec![WorkerCommand::Recall, WorkerCommand::Recall]);
    assert_eq!(
        words(&mut world, 1),
        [WorkerEvent::Recalled(2), WorkerEvent::Recalled(0)]
    );
    world.tasks(0, 2);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(true)]);
    world.credit(1, 1);
    assert_eq!(world.leases(1).len(), 1);
}

#[test]
fn a_shard_that_comes_has_sessions_that_share_introduced_anew() {
    let mut world = World::new(1);
    open_shared(&mut world, 1, ANNA);
    assert_eq!(world.ended(), Vec::<u64>::new());
    world.activate(1);
    assert_eq!(world.ended(), [1]);
}
