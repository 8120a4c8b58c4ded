//! The session machine, one behaviour at a time, and against a model of the server in every order.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "small worlds, where surprises end the test"
)]

mod any_order;
mod world;

use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_proto::worker::{LeaseRef, Stop, Unit};
use scheduler_sdk::session::{Input, Output};

use world::{World, credits, done, key, lease, leases, report, sent_reports, settled};

#[test]
fn a_session_begins_with_hello_and_gives_credits_after_the_welcome() {
    let mut world = World::new(3);
    let hello = world.greet();
    assert_eq!(
        (
            hello.application.as_str(),
            hello.pipeline.as_str(),
            hello.held.len()
        ),
        ("app", "ocr", 0)
    );
    assert_eq!(
        world.welcome(),
        [
            Output::Define(Bytes::from_static(b"{}")),
            Output::Send(Request::Credit(3)),
            Output::Send(Request::Alive(Unit {})),
        ]
    );
}

#[test]
fn every_ended_task_is_reported_and_makes_room() {
    let mut world = World::open(2);
    let tasks = [key(0, 1, 1), key(1, 1, 1)];
    assert_eq!(
        world.hear(leases(&tasks)),
        [Output::Start(tasks.map(lease).to_vec())]
    );
    let out = world.end(tasks[0], done());
    assert_eq!(sent_reports(&out), [report(tasks[0], done())]);
    assert_eq!(credits(&out), 1);
}

#[test]
fn a_duplicate_of_a_lease_is_not_started_again() {
    let mut world = World::open(2);
    let task = key(0, 1, 1);
    world.hear(leases(&[task]));
    assert_eq!(world.hear(leases(&[task])), [Output::Send(Request::Credit(1))]);
    world.end(task, done());
    let out = world.hear(leases(&[task]));
    assert!(
        !out.iter().any(|output| matches!(output, Output::Start(_))),
        "{out:?}"
    );
}

#[test]
fn a_newer_attempt_stops_the_older() {
    let mut world = World::open(2);
    let (older, newer) = (key(0, 1, 1), key(0, 1, 2));
    world.hear(leases(&[older]));
    assert_eq!(
        world.hear(leases(&[newer])),
        [Output::Stop(older), Output::Start(vec![lease(newer)])]
    );
}

#[test]
fn a_lease_that_was_not_asked_for_goes_back() {
    let mut world = World::open(1);
    let out = world.hear(leases(&[key(0, 1, 1), key(0, 2, 1)]));
    assert_eq!(
        sent_reports(&out),
        [report(key(0, 2, 1), Outcome::Returned(Unit {}))]
    );
}

#[test]
fn after_a_loss_held_leases_and_unsettled_reports_are_presented_until_settled() {
    let mut world = World::open(4);
    let tasks = [key(0, 1, 1), key(0, 2, 1), key(0, 3, 1)];
    world.hear(leases(&tasks));
    world.end(tasks[0], done());
    world.end(tasks[1], done());
    assert_eq!(world.hear(settled(0, 1, 1)), []);
    world.input([Input::Disconnected]);

    let hello = world.greet();
    assert_eq!(hello.held, [LeaseRef::from(tasks[2])]);
    assert_eq!(hello.reported, [report(tasks[1], done())]);
    // An end before the welcome is told after it, not lost and not twice.
    assert_eq!(world.end(tasks[2], done()), []);
    assert_eq!(sent_reports(&world.welcome()), [report(tasks[2], done())]);
    // Counts begin with the session and include the hello's.
    world.hear(settled(0, 2, 2));
    assert_eq!(world.session.unsettled(), 0);
}

#[test]
fn a_report_made_without_a_connection_is_presented_once() {
    let mut world = World::open(1);
    world.hear(leases(&[key(0, 1, 1)]));
    world.input([Input::Disconnected]);
    assert_eq!(world.end(key(0, 1, 1), done()), []);
    assert_eq!(world.greet().reported, [report(key(0, 1, 1), done())]);
    assert_eq!(sent_reports(&world.welcome()), []);
}

#[test]
fn stale_and_wrong_settled_marks_do_no_harm() {
    let mut world = World::open(2);
    let tasks = [key(0, 1, 1), key(0, 2, 1)];
    world.hear(leases(&tasks));
    world.end(tasks[0], done());
    world.hear(settled(0, 5, 1));
    world.end(tasks[1], done());
    assert_eq!(world.hear(settled(0, 4, 2)), []);
    assert_eq!(world.hear(settled(0, 5, 1)), []);
    assert_eq!(world.session.unsettled(), 1);
    assert!(matches!(world.hear(settled(0, 5, 3))[..], [Output::Warn(_)]));
    assert!(matches!(world.hear(settled(9, 1, 3))[..], [Output::Warn(_)]));
}

#[test]
fn no_credit_is_given_while_too_many_reports_are_unsettled() {
    let mut world = World::open(4);
    for offset in 0..6 {
        world.hear(leases(&[key(0, offset, 1)]));
        world.end(key(0, offset, 1), done());
    }
    // The last report left three credits out; the room of the sixth task is not promised again.
    let given = credits(&world.hear(settled(0, 1, 6)));
    assert_eq!(given, 1);
}

#[test]
fn a_stopped_task_is_reported_stopped_unless_it_was_done() {
    let mut world = World::open(2);
    let tasks = [key(0, 1, 1), key(0, 2, 1)];
    world.hear(leases(&tasks));
    let stop = || {
        Response::Stop(Stop {
            refs: tasks.iter().map(|&key| key.into()).collect(),
        })
    };
    assert_eq!(world.hear(stop()), tasks.map(Output::Stop));
    assert_eq!(world.hear(stop()), []);
    let failed = world.end(tasks[0], Outcome::Failed("stopped".into()));
    assert_eq!(
        sent_reports(&failed),
        [report(tasks[0], Outcome::Stopped(Unit {}))]
    );
    assert_eq!(
        sent_reports(&world.end(tasks[1], done())),
        [report(tasks[1], done())]
    );
}

#[test]
fn signs_of_life_come_before_the_server_wonders() {
    let mut world = World::open(1);
    let deadline = world.session.next_deadline().unwrap();
    assert_eq!(deadline, world.now + Duration::from_secs(2));
    world.now = deadline;
    assert_eq!(world.input([]), [Output::Send(Request::Alive(Unit {}))]);
}

#[test]
fn progress_is_gathered() {
    let mut world = World::open(1);
    let task = key(0, 1, 1);
    world.hear(leases(&[task]));
    let progress = |text: &'static str| Input::Progressed {
        lease: task,
        progress: Bytes::from_static(text.as_bytes()),
    };
    let is_progress = |out: Vec<Output>, text: &str| matches!(&out[..], [Output::Send(Request::Progress(p))] if p.progress == text);
    assert!(is_progress(world.input([progress("1"), progress("2")]), "2"));
    assert_eq!(world.input([progress("3")]), []);
    world.now = world.session.next_deadline().unwrap();
    assert!(is_progress(world.input([progress("4")]), "4"));
    // The end overtakes what was not sent yet.
    let out = world.input([
        progress("5"),
        Input::Ended {
            lease: task,
            outcome: done(),
        },
    ]);
    assert!(
        !out.iter()
            .any(|output| matches!(output, Output::Send(Request::Progress(_))))
    );
}

#[test]
fn draining_gives_back_what_comes_late_and_ends_when_all_is_settled() {
    let mut world = World::open(2);
    let (task, late) = (key(0, 1, 1), key(0, 2, 1));
    world.hear(leases(&[task]));
    assert_eq!(
        world.input([Input::Drain]),
        [Output::Send(Request::Drain(Unit {}))]
    );
    assert_eq!(
        sent_reports(&world.hear(leases(&[late]))),
        [report(late, Outcome::Returned(Unit {}))]
    );
    let out = world.end(task, done());
    assert_eq!((credits(&out), sent_reports(&out).len()), (0, 1));
    assert_eq!(world.hear(Response::Recalled(0)), []);
    assert_eq!(world.hear(settled(0, 1, 2)), [Output::Drained]);
    assert_eq!(World::new(1).input([Input::Drain]), [Output::Drained]);
}

#[test]
fn a_drained_worker_waits_until_no_lease_is_on_its_way() {
    let mut world = World::open(3);
    let late = key(0, 1, 1);
    assert_eq!(
        world.input([Input::Drain]),
        [Output::Send(Request::Drain(Unit {}))]
    );
    assert_eq!(world.hear(Response::Recalled(2)), [], "one of three was used");
    assert_eq!(
        sent_reports(&world.hear(leases(&[late]))),
        [report(late, Outcome::Returned(Unit {}))]
    );
    assert_eq!(world.hear(settled(0, 1, 1)), [Output::Drained]);

    let mut idle = World::open(3);
    idle.input([Input::Drain]);
    assert_eq!(idle.hear(Response::Recalled(3)), [Output::Drained]);

    let mut lost = World::open(3);
    lost.input([Input::Drain]);
    assert_eq!(
        lost.input([Input::Disconnected]),
        [Output::Drained],
        "nothing comes on a stream that has ended"
    );
}

#[test]
fn a_node_that_goes_down_is_left_when_tasks_have_ended_and_reports_are_settled() {
    let mut world = World::open(2);
    let tasks = [key(0, 1, 1), key(1, 1, 1)];
    world.hear(leases(&tasks));
    assert_eq!(world.hear(Response::GoAway(Unit {})), []);
    for task in tasks {
        assert_eq!(sent_reports(&world.end(task, done())).len(), 1);
    }
    assert_eq!(world.hear(settled(0, 1, 1)), []);
    assert_eq!(world.hear(Response::Moved(0)), [], "the other is not settled yet");
    let out = world.hear(settled(1, 1, 1));
    assert!(matches!(out[..], [Output::Reconnect(_)]), "{out:?}");
    assert_eq!(world.greet().reported.len(), 0);
}

#[test]
fn what_a_node_that_went_down_has_not_settled_is_presented_to_the_next() {
    let mut world = World::open(1);
    let task = key(0, 1, 1);
    world.hear(leases(&[task]));
    world.hear(Response::GoAway(Unit {}));
    world.end(task, done());
    world.input([Input::Disconnected]);
    assert_eq!(world.greet().reported.len(), 1);
}

#[test]
fn a_moved_partition_makes_the_worker_present_itself_again() {
    let mut world = World::open(1);
    assert!(matches!(
        world.hear(Response::Moved(3))[..],
        [Output::Reconnect(_)]
    ));
    assert_eq!(
        world.hear(leases(&[key(0, 1, 1)])),
        [],
        "words of the stream that was left"
    );
}

#[test]
fn a_long_hello_is_told_in_parts_and_nothing_in_it_is_lost() {
    let mut world = World::open(4);
    let output = Outcome::Succeeded(vec![0; 1 << 20].into());
    for offset in 0..4 {
        world.hear(leases(&[key(0, offset, 1)]));
    }
    world.input([Input::Disconnected]);
    for offset in 0..4 {
        world.end(key(0, offset, 1), output.clone());
    }
    let hello = world.greet();
    assert_eq!((hello.reported.len(), hello.held.len()), (1, 3));
    let out = world.welcome();
    assert_eq!(sent_reports(&out).len(), 3);
    assert_eq!(
        out.iter()
            .filter(|output| matches!(output, Output::Send(Request::Reports(_))))
            .count(),
        3
    );
}
