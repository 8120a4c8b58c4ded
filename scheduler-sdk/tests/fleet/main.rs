//! All sessions of a worker against a model of nodes: partitions move, links break, and every task runs once.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "small worlds, where surprises end the test"
)]

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use scheduler_sdk::session::{Input, Located, Site};

use world::{World, address};

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Node(usize),
    Worker(usize),
    Connect(usize),
    Cut(usize),
    Move(usize, usize),
    Locate,
    Finish,
    Calm,
}

const PARTITIONS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..PARTITIONS).prop_map(Step::Arrive),
        4 => (0..4usize).prop_map(Step::Node),
        4 => (0..4usize).prop_map(Step::Worker),
        2 => (0..4usize).prop_map(Step::Connect),
        1 => (0..4usize).prop_map(Step::Cut),
        1 => (0..PARTITIONS, 0..3usize).prop_map(|(partition, to)| Step::Move(partition, to)),
        2 => Just(Step::Locate),
        3 => Just(Step::Finish),
        1 => Just(Step::Calm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_task_runs_once_wherever_its_partition_goes(
        nodes in 1..4usize,
        concurrency in 1..6u32,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new(nodes, PARTITIONS, concurrency);
        let site = |world: &World, index: usize| world.sites().get(index).cloned();
        for step in steps {
            match step {
                Step::Arrive(partition) => world.arrive(partition),
                Step::Node(at) => if let Some(site) = site(&world, at) { world.node_turn(&site); },
                Step::Worker(at) => if let Some(site) = site(&world, at) { world.worker_turn(&site); },
                Step::Connect(at) => if let Some(site) = site(&world, at) { world.connect(&site); },
                Step::Cut(at) => if let Some(site) = site(&world, at) { world.cut(&site); },
                // A node that serves everything through itself has no moves that the worker sees.
                Step::Move(partition, to) => if nodes > 1 { world.migrate(partition, to % nodes) },
                Step::Locate => _ = world.locate(),
                Step::Finish => _ = world.finish(),
                Step::Calm => world.calm(),
            }
        }
        world.calm();
        world.check_nobody_starves();
        while world.finish() {
            world.calm();
            world.check_nobody_starves();
        }
        for (partition, shard) in world.shards.iter().enumerate() {
            prop_assert_eq!(shard.done.len() as u64, shard.next, "partition {} has tasks that are not done", partition);
            prop_assert!(shard.leased.is_empty());
        }
        prop_assert!(world.started.values().all(|times| *times == 1), "{:?}", world.started);
        prop_assert_eq!(world.fleet.unsettled(), 0);
        // Nothing happens: nothing is said.
        let before = world.messages;
        world.calm();
        world.worker(|_, _| ());
        prop_assert_eq!(world.messages, before);
    }
}

#[test]
fn a_worker_for_one_task_at_a_time_does_the_work_of_three_owners() {
    let mut world = World::new(3, 3, 1);
    world.calm();
    assert_eq!(world.sites().len(), 3);
    for partition in (0..3).cycle().take(30) {
        world.arrive(partition);
    }
    world.calm();
    while world.finish() {
        world.calm();
        world.check_nobody_starves();
    }
    assert_eq!(world.started.len(), 30);
    assert!(world.started.values().all(|times| *times == 1));
}

#[test]
fn addresses_out_of_reach_are_reached_through_the_configured_one() {
    let mut world = World::new(2, 2, 1);
    for _ in 0..3 {
        world.learn_owners();
        for site in world.sites() {
            world.worker(|fleet, out| fleet.handle(&site, Input::Disconnected, out));
        }
    }
    world.learn_owners();
    assert_eq!(world.sites(), [Site::Home]);
    assert!(!world.fleet.wants_owners());
    // They may be reached later: they are tried again, less and less often.
    assert_eq!(world.fleet.look_again_after(), Some(2));
    let owners = Located::Owners((0..2).zip((0..2).map(address)).collect());
    world.fleet.asked();
    world.worker(|fleet, out| fleet.located(owners, out));
    assert_eq!(world.sites().len(), 2);
    world.calm();
    assert_eq!(world.fleet.look_again_after(), Some(1));
    for partition in 0..2 {
        world.arrive(partition);
    }
    world.calm();
    while world.finish() {
        world.calm();
    }
    assert_eq!(world.started.len(), 2);
}

#[test]
fn a_worker_that_begins_before_its_shards_are_up_asks_until_it_knows_their_owners() {
    let mut world = World::new(2, 2, 1);
    let nowhere = BTreeMap::from([(0, String::new()), (1, String::new())]);
    world.fleet.asked();
    world.worker(|fleet, out| fleet.located(Located::Owners(nowhere), out));
    assert_eq!(world.sites(), [Site::Home]);
    assert!(world.fleet.wants_owners());
    world.learn_owners();
    assert_eq!(world.sites().len(), 2);
    assert!(!world.sites().contains(&Site::Home));
}

#[test]
fn servers_that_know_no_owners_and_single_ones_have_one_session() {
    for located in [
        Located::Unknown,
        Located::Failed,
        Located::Owners(BTreeMap::new()),
        Located::Owners(BTreeMap::from([(0, String::new())])),
        Located::Owners(BTreeMap::from([(0, address(1)), (1, address(1))])),
    ] {
        let mut world = World::new(1, 1, 1);
        world.worker(|fleet, out| fleet.located(located, out));
        assert_eq!(world.sites(), [Site::Home]);
    }
}

#[test]
fn owners_that_are_not_there_yet_are_asked_for_again_until_they_are() {
    let mut world = World::new(2, 2, 1);
    let nobody = BTreeMap::from([(0, String::new()), (1, String::new())]);
    world.worker(|fleet, out| fleet.located(Located::Owners(nobody), out));
    assert_eq!(world.sites(), [Site::Home]);
    world.connect(&Site::Home);
    world.calm();
    assert_eq!(world.sites().len(), 2, "a session with each of the owners");
}
