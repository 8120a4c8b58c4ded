//! Random histories of one shard, its log, its store and its workers, against what a naive ghost remembers of them.
//!
//! Every promise of the design that one shard can keep is checked at every step; then the faults stop, and all must end.

#[path = "../common/mod.rs"]
mod common;
mod op;
mod play;
mod promise;
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use scheduler_core::policy::PipelinePolicy;

use op::{Op, ops, policies};
use world::World;

/// Plays a history to its end and answers all that was said in it.
fn run(policy: &PipelinePolicy, ops: &[Op]) -> String {
    let mut world = World::new(policy);
    for (index, op) in ops.iter().enumerate() {
        world.step(*op);
        if index % 4 == 0 {
            world.check();
        }
    }
    world.heal();
    std::mem::take(&mut world.trace)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_promises_hold_and_all_ends(policy in policies(), ops in prop::collection::vec(ops(), 1..300)) {
        run(&policy, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_same_inputs_give_the_same_outputs(policy in policies(), ops in prop::collection::vec(ops(), 1..200)) {
        prop_assert_eq!(run(&policy, &ops), run(&policy, &ops));
    }
}
