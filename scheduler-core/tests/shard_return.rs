//! Workers that come back to a shard's next owner: what they hold, what they have reported, and leases that may still be on their way.

mod common;

use common::world::*;
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::{Answer, Found, Input};
use scheduler_core::task::RecordBody;

#[test]
fn a_worker_that_comes_back_keeps_what_it_holds_and_what_it_has_reported() {
    let mut world = World::new(policy());
    let (held, done, failed) = (world.arrive(task()), world.arrive(task()), world.arrive(task()));
    let leases = world.ask(ANNA, 3);
    world.crash();
    world.attach(
        ANNA,
        &[&leases[0]],
        &[(&leases[1], success()), (&leases[2], failure())],
    );
    assert!(world.stops.is_empty());
    assert_eq!(world.state(held), TaskState::Running);
    assert_eq!(world.state(done), TaskState::Succeeded);
    assert_eq!(world.state(failed), TaskState::Delayed);
    world.save();
    assert_eq!(world.settled, [(ANNA, 2)]);
    world.advance(GRACE);
    assert_eq!(world.lease(BERT).offset, failed);
    assert_eq!(world.report(ANNA, &leases[0], success()), Answer::Done);
}

#[test]
fn what_a_worker_says_before_its_record_is_replayed_counts_when_it_is() {
    let mut world = World::new(policy());
    let (held, done) = (world.arrive(task()), world.arrive(task()));
    let leases = world.ask(ANNA, 2);
    world.activate(true);
    world.attach(ANNA, &[&leases[0]], &[(&leases[1], success())]);
    world.save();
    assert!(world.settled.is_empty(), "the report is in no checkpoint yet");
    world.forward();
    assert_eq!(world.state(held), TaskState::Running);
    assert_eq!(world.state(done), TaskState::Succeeded);
    world.save();
    assert_eq!(world.settled, [(ANNA, 1)]);
    assert!(world.store.results.contains_key(&done));
}

#[test]
fn what_workers_said_of_tasks_that_a_slow_log_had_not_brought_is_waited_for_by_the_next_owner() {
    let mut world = World::new(policy());
    let (held, done) = (world.arrive(task()), world.arrive(task()));
    let leases = world.ask(ANNA, 2);
    world.activate(true);
    world.attach(ANNA, &[&leases[0]], &[(&leases[1], success())]);
    world.advance(GRACE);
    world.tell(Input::Leave);
    world.move_away();
    assert!(world.is_idle(BERT));
    world.attach(ANNA, &[&leases[0]], &[(&leases[1], success())]);
    assert_eq!(world.state(held), TaskState::Running);
    assert_eq!(world.state(done), TaskState::Succeeded);
    world.advance(GRACE);
    assert!(world.is_idle(BERT));
}

#[test]
fn an_early_report_of_what_has_ended_is_settled_without_any_other_change() {
    let mut world = World::new(policy());
    let (_, done) = (world.arrive(task()), world.arrive(task()));
    let leases = world.ask(ANNA, 2);
    world.report(ANNA, &leases[1], success());
    world.save();
    world.activate(true);
    world.attach(ANNA, &[], &[(&leases[1], success())]);
    world.save();
    world.forward();
    assert_eq!(world.shard.find(done), Found::Elsewhere);
    world.save();
    assert_eq!(world.settled, [(ANNA, 1)]);
}

#[test]
fn an_early_word_about_an_offset_that_the_log_does_not_have_holds_nothing_up() {
    let mut world = World::new(policy());
    world.arrive(task());
    let mut lease = world.lease(ANNA);
    world.submit_at(Offset(5), RecordBody::Task(task()));
    world.activate(true);
    lease.offset = Offset(3);
    world.attach(ANNA, &[], &[(&lease, success())]);
    world.forward();
    world.save();
    assert_eq!(world.settled, [(ANNA, 1)]);
}

#[test]
fn a_saved_lease_goes_on_in_the_next_activation() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let lease = world.lease(ANNA);
    world.save();
    world.move_away();
    assert_eq!(world.state(task), TaskState::Running);
    assert!(world.is_idle(BERT));
    world.attach(ANNA, &[&lease], &[]);
    assert_eq!(world.report(ANNA, &lease, success()), Answer::Done);
}

#[test]
fn a_saved_lease_that_its_worker_does_not_hold_goes_back_after_the_grace_even_if_the_record_comes_later() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    world.lease(ANNA);
    world.save();
    world.activate(false);
    world.attach(ANNA, &[], &[]);
    world.forward();
    assert_eq!(world.state(task), TaskState::Running);
    // Coming back once more, and being alive, do not prolong it.
    world.advance(GRACE / 2);
    world.attach(ANNA, &[], &[]);
    world.advance(GRACE / 2);
    assert_eq!(world.state(task), TaskState::Queued);
    assert_eq!(world.lease(BERT).token.attempt, Attempt(2));
}

#[test]
fn a_lease_of_an_earlier_owner_may_reach_its_worker_after_it_has_come_back_without_it() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    // It is on a stream to the owner that granted it, beside which the worker opens one to the next.
    let lease = world.lease(ANNA);
    world.save();
    world.activate(false);
    world.attach(ANNA, &[], &[]);
    world.forward();
    // Then the first one ends, and the worker presents what it brought.
    world.attach(ANNA, &[&lease], &[]);
    world.advance(GRACE * 2);
    assert_eq!(world.state(task), TaskState::Running);
    assert!(world.stops.is_empty());
    world.report(ANNA, &lease, success());
    assert_eq!(world.state(task), TaskState::Succeeded);
}

#[test]
fn a_lease_that_was_lost_on_the_way_goes_back_when_the_worker_attaches_again() {
    let mut world = World::new(policy());
    let (kept, lost) = (world.arrive(task()), world.arrive(task()));
    world.attach(ANNA, &[], &[]);
    let leases = world.ask(ANNA, 2);
    world.attach(ANNA, &[&leases[0]], &[]);
    assert_eq!(world.state(kept), TaskState::Running);
    assert_eq!(world.state(lost), TaskState::Queued);
    world.attach(ANNA, &[&leases[0]], &[]);
    assert_eq!(world.state(kept), TaskState::Running);
    assert!(world.stops.is_empty());
}

#[test]
fn a_saved_lease_gives_way_to_a_later_one_that_was_not_saved() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            initial_backoff: secs(0),
            ..policy().retry
        },
        ..policy()
    });
    let task = world.arrive(task());
    let first = world.lease(ANNA);
    world.save();
    world.report(ANNA, &first, failure());
    world.advance(secs(0));
    let second = world.lease(BERT);
    world.crash();
    world.attach(BERT, &[&second], &[]);
    assert!(!world.stops.iter().any(|(worker, _)| *worker == BERT));
    world.attach(ANNA, &[], &[(&first, failure())]);
    assert_eq!(world.state(task), TaskState::Running);
    assert_eq!(world.report(BERT, &second, success()), Answer::Done);
    assert_eq!(world.state(task), TaskState::Succeeded);
}

#[test]
fn a_success_of_a_lost_owners_lease_is_taken_even_when_the_task_runs_again() {
    let mut world = World::new(PipelinePolicy {
        retry: RetryPolicy {
            initial_backoff: secs(0),
            ..policy().retry
        },
        ..policy()
    });
    let task = world.arrive(task());
    world.save();
    let first = world.lease(ANNA);
    world.report(ANNA, &first, failure());
    world.advance(secs(0));
    let second = world.lease(ANNA);
    world.crash();
    world.advance(GRACE);
    let third = world.lease(BERT);
    assert_eq!(third.token.attempt, Attempt(1));
    world.attach(ANNA, &[], &[(&second, success())]);
    assert_eq!(world.state(task), TaskState::Succeeded);
    assert_eq!(world.stops.last().map(|(worker, _)| *worker), Some(BERT));
}

#[test]
fn what_a_worker_no_longer_holds_is_not_kept_for_it_when_the_record_comes() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.activate(true);
    world.attach(ANNA, &[&lease], &[]);
    world.attach(ANNA, &[], &[]);
    world.forward();
    assert_eq!(world.state(task), TaskState::Queued);
    world.advance(GRACE);
    assert_eq!(world.lease(BERT).offset, task);
}

#[test]
fn an_old_report_does_not_stand_for_a_later_lease_that_was_lost() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    world.attach(ANNA, &[], &[]);
    let first = world.lease(ANNA);
    world.report(ANNA, &first, AttemptOutcome::Returned);
    world.lease(ANNA);
    world.save();
    world.activate(false);
    world.attach(ANNA, &[], &[(&first, AttemptOutcome::Returned)]);
    world.forward();
    world.advance(GRACE);
    assert_eq!(world.state(task), TaskState::Queued);
}

#[test]
fn a_worker_without_a_session_keeps_a_lease_that_was_never_saved_by_its_sign_of_life() {
    for loaded_first in [true, false] {
        let mut world = World::new(policy());
        let task = world.arrive(task());
        world.save();
        let lease = world.lease(ANNA);
        let extend = Input::Extend {
            worker: ANNA,
            offset: lease.offset,
            token: lease.token,
            progress: None,
        };
        // The shard dies before anything says that the task is leased.
        world.activate(true);
        if loaded_first {
            world.forward();
        }
        assert_eq!(world.tell(extend.clone()), Answer::Done);
        world.forward();
        assert_eq!(world.state(task), TaskState::Running);
        // Neither the end of the grace nor another worker takes it away.
        world.advance(secs(20));
        assert_eq!(world.tell(extend.clone()), Answer::Done);
        world.advance(secs(20));
        assert!(world.is_idle(BERT));
        assert_eq!(world.report(ANNA, &lease, success()), Answer::Done);
        assert_eq!(world.state(task), TaskState::Succeeded);
    }
}
