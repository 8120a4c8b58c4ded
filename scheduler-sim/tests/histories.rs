//! A small fixed budget of histories, so that every run of the tests has it; `cargo sim` has the rest.

use scheduler_sim::{Changes, play, regressions, run};

fn check(seed: u64) {
    let history = run(seed, false);
    assert!(
        history.violation.is_none(),
        "{:?}\n  cargo sim --seed {seed} --trace",
        history.violation
    );
}

#[test]
fn no_promise_is_broken_in_the_first_histories() {
    (0..300).for_each(check);
}

#[test]
fn what_was_broken_once_is_not_broken_again() {
    for (seed, changes) in regressions().expect("regressions.txt is well formed") {
        let history = play(seed, &changes, false);
        assert!(
            history.violation.is_none(),
            "{:?}\n  cargo sim --seed {seed} --trace --plan '{changes}'",
            history.violation
        );
    }
}

#[test]
fn the_same_seed_is_the_same_history_byte_for_byte() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true), run(seed, true));
        assert_eq!(first.trace, second.trace);
        assert_eq!((first.hash, first.steps), (second.hash, second.steps));
        // Whether somebody looks makes no difference.
        assert_eq!(run(seed, false).hash, first.hash);
    }
}

#[test]
fn a_plan_that_is_changed_is_written_as_it_is_read_and_makes_another_history() {
    let text = "nodes=1,heal=3000,cut=0,batches=2";
    let changes: Changes = text.parse().expect("all of them are there");
    assert_eq!(changes.to_string(), text);
    let history = play(3, &changes, false);
    assert!(history.violation.is_none(), "{:?}", history.violation);
    assert_ne!(history.hash, run(3, false).hash);
    assert!("nodes=0".parse::<Changes>().is_err());
    assert!("cats=1".parse::<Changes>().is_err());
}
