//! What a worker hears from one node about what its session with another has, and what it asks when it hears nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_proto::worker::{Lease, LeaseRef, Leases, Stop, Welcome};
use scheduler_sdk::session::{Fleet, Input, Located, Output, SessionConfig, Site};

const HELD: LeaseRef = LeaseRef {
    partition: 0,
    offset: 7,
    epoch: 1,
    attempt: 1,
};

fn at(address: &str) -> Site {
    Site::Node(address.into())
}

/// A worker with sessions at `a`, which owns partition 0, and `b`, which owns partition 1.
struct World {
    fleet: Fleet,
    out: Vec<(Site, Output)>,
}

impl World {
    /// One that is connected to nothing yet.
    fn fresh() -> Self {
        let config = SessionConfig {
            application: "app".into(),
            pipeline: "ocr".into(),
            worker_id: [7; 16],
            name: "w".into(),
            concurrency: 4,
            max_unsettled: 10,
            max_unsettled_bytes: 1 << 20,
        };
        Self {
            fleet: Fleet::new(config),
            out: Vec::new(),
        }
    }

    fn new() -> Self {
        let mut world = Self::fresh();
        world.settle();
        for site in [at("a"), at("b")] {
            world.handle(&site, Input::Connected);
            world.handle(&site, Input::Received(Told::Welcome(welcome())));
        }
        world.settle();
        world.flush(0);
        assert!(!world.fleet.wants_owners());
        world
    }

    /// The question who owns what is asked and answered.
    fn settle(&mut self) {
        let owners = BTreeMap::from([(0, "a".to_owned()), (1, "b".to_owned())]);
        self.fleet.asked();
        self.fleet.located(Located::Owners(owners), &mut self.out);
    }

    fn handle(&mut self, site: &Site, input: Input) {
        self.fleet.handle(site, input, &mut self.out);
    }

    fn flush(&mut self, seconds: u64) {
        self.fleet.flush(Duration::from_secs(seconds), &mut self.out);
    }
}

fn welcome() -> Welcome {
    Welcome {
        definition: Bytes::new(),
        heartbeat_ms: 10_000,
    }
}

#[test]
fn a_new_owner_stops_what_another_session_holds_however_far_its_stream_is() {
    for reconnects in [false, true] {
        let mut world = World::new();
        let lease = Lease {
            r#ref: Some(HELD),
            ..Lease::default()
        };
        let leases = Leases { leases: vec![lease] };
        world.handle(&at("a"), Input::Received(Told::Leases(leases)));
        world.handle(&at("a"), Input::Disconnected);
        if reconnects {
            world.handle(&at("a"), Input::Connected);
        }
        world.out.clear();
        let stop = Stop { refs: vec![HELD] };
        world.handle(&at("b"), Input::Received(Told::Stop(stop)));
        assert_eq!(world.out, [(at("a"), Output::Stop(HELD.into()))]);
    }
}

#[test]
fn the_owners_are_asked_for_now_and_then_though_nothing_was_heard_of_a_change() {
    let mut world = World::new();
    world.flush(30);
    assert!(!world.fleet.wants_owners());
    assert_eq!(world.fleet.look_again_after(), Some(1));
    world.fleet.asked();
    world.fleet.located(Located::Unknown, &mut world.out);
    assert_eq!(world.fleet.look_again_after(), None);
}

#[test]
fn owners_that_could_not_be_reached_are_tried_again_after_a_while() {
    let mut world = World::fresh();
    world.settle();
    for site in [at("a"), at("b")] {
        for _ in 0..3 {
            world.handle(&site, Input::Disconnected);
        }
    }
    world.settle();
    let sites = |world: &World| world.fleet.sites().cloned().collect::<Vec<_>>();
    assert_eq!(sites(&world), [Site::Home]);
    assert!(!world.fleet.wants_owners());
    assert_eq!(world.fleet.look_again_after(), Some(2));
    world.settle();
    assert!(sites(&world).contains(&at("a")) && sites(&world).contains(&at("b")));
}
