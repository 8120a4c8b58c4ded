//! Dead letters that are redriven: when they run again, and with how many attempts.

mod common;

use common::world::*;
use scheduler_core::id::Attempt;
use scheduler_core::outcome::{AttemptOutcome, DeadReason};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::{Answer, Found, Input};

#[test]
fn a_dead_letter_that_is_revived_runs_once_the_store_knows() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, AttemptOutcome::Rejected { error: "no".into() });
    world.save();
    let dead = world.store.dead[&task].clone();
    assert_eq!(world.tell(Input::Revive(dead.clone())), Answer::Done);
    assert_eq!(world.tell(Input::Revive(dead)), Answer::Late);
    assert_eq!(world.tell(Input::Hasten(task)), Answer::Done);
    assert!(world.is_idle(ANNA));
    world.save();
    assert!(world.store.dead.is_empty());
    let lease = world.lease(ANNA);
    assert_eq!((lease.offset, lease.token.attempt), (task, Attempt(2)));
    world.crash();
    world.attach(ANNA, &[], &[(&lease, success())]);
    assert_eq!(world.state(task), TaskState::Succeeded);
    world.save();
    assert!(world.store.parked.is_empty());
}

#[test]
fn what_a_worker_says_late_of_a_revived_task_does_not_make_it_run_before_the_store_knows() {
    for outcome in [failure(), AttemptOutcome::Returned] {
        let mut world = World::new(policy());
        let task = world.arrive(task());
        let first = world.lease(ANNA);
        world.save();
        world.report(ANNA, &first, failure());
        world.advance(secs(60));
        let second = world.lease(ANNA);
        world.crash();
        world.report(ANNA, &first, AttemptOutcome::Rejected { error: "no".into() });
        world.save();
        let dead = world.store.dead[&task].clone();
        assert_eq!(world.tell(Input::Revive(dead)), Answer::Done);
        assert_eq!(world.report(ANNA, &second, outcome), Answer::Done);
        world.advance(secs(60));
        assert!(world.is_idle(ANNA), "its death is what the store knows");
        world.save();
        assert!(world.store.dead.is_empty());
        assert_eq!(world.lease(ANNA).token.attempt, Attempt(3));
    }
}

#[test]
fn a_revived_task_has_fresh_attempts_and_can_die_and_live_again() {
    let mut world = World::new(policy());
    let task = world.arrive(task());
    let lease = world.lease(ANNA);
    world.report(ANNA, &lease, AttemptOutcome::Rejected { error: "no".into() });
    for life in 1..4 {
        // It is revived before its death is saved, too.
        let Found::Dead(dead) = world.shard.find(task) else {
            panic!("it is not dead");
        };
        assert_eq!(
            dead.reason,
            if life == 1 {
                DeadReason::Rejected
            } else {
                DeadReason::AttemptsExhausted
            }
        );
        assert_eq!(world.tell(Input::Revive(dead)), Answer::Done);
        world.save();
        assert!(world.store.parked.contains_key(&task) && world.store.dead.is_empty());
        for _ in 0..5 {
            let lease = world.lease(ANNA);
            world.report(ANNA, &lease, failure());
            world.advance(secs(60));
            if world.saving.is_some() && world.shard.counts().delayed == 1 {
                world.answer_save();
            }
        }
    }
    world.saving.is_some().then(|| world.answer_save());
    world.save();
    assert_eq!(world.store.dead[&task].attempts, Attempt(16));
    assert!(world.store.parked.is_empty());
}
