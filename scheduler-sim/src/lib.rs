//! The deterministic simulator: a whole cluster in one process, without a runtime, a socket or a clock of its own.
//!
//! One seed is one history. What decides is real: the core's [`scheduler_core::host::Host`] with its shards and sessions,
//! [`scheduler_core::saver::Saver`], and the SDK's session ([`scheduler_sdk::session`]). What only moves bytes and time is modelled, with everything that can go wrong with it: log, store, placement, network, processes, clocks.
//!
//! | file | idea |
//! | --- | --- |
//! | `plan.rs` | what a seed draws: sizes, policies, which faults and how often |
//! | `world.rs`, `queue.rs` | the loop over simulated time |
//! | `node.rs`, `node/` | the driver of the core's host, of the shape of scheduler-runtime |
//! | `worker.rs`, `worker/`, `poller.rs`, `client.rs` | those who work, with sessions and without, and those who submit |
//! | `net.rs`, `wire.rs` | connections, and what travels over them |
//! | `log.rs`, `store.rs`, `calls.rs` | what is durable, and how calls of it fail |
//! | `placement.rs`, `fault.rs`, `clock.rs` | who owns what, what goes wrong, what time it is |
//! | `oracle.rs`, `oracle/` | what must hold, one promise a file |
//! | `shrink.rs`, `plan/knobs.rs`, `regressions.rs` | smaller histories that break the same promise, and those that are kept |
//! | `coverage.rs`, `trace.rs` | what a run has exercised, and what has happened |
//!
//! ```
//! let history = scheduler_sim::run(7, false);
//! assert!(history.violation.is_none());
//! // The same seed is the same history.
//! assert_eq!(history.hash, scheduler_sim::run(7, false).hash);
//! ```

mod calls;
mod client;
mod clock;
mod coverage;
mod fault;
mod log;
mod net;
mod node;
mod oracle;
mod placement;
mod plan;
mod poller;
mod queue;
mod regressions;
mod rng;
mod shrink;
mod store;
mod trace;
mod wire;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::coverage::Coverage;
pub use self::oracle::Violation;
pub use self::regressions::{kept, regressions};
pub use self::shrink::{Changes, shrink};
use self::world::World;

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct History {
    /// Which.
    pub seed: u64,
    /// What was broken, if anything was.
    pub violation: Option<Violation>,
    /// Of everything that happened, in order.
    pub hash: u64,
    /// Everything that happened, if it was asked for.
    pub trace: Option<String>,
    /// What it exercised.
    pub coverage: Coverage,
    /// How much time passed in it, in milliseconds.
    pub simulated_ms: u64,
    /// How many things happened.
    pub steps: u64,
}

/// Plays the history of a seed, to its end or the first broken promise.
pub fn run(seed: u64, with_trace: bool) -> History {
    play(seed, &Changes::default(), with_trace)
}

/// Plays the history of a seed with some of its conditions changed.
pub fn play(seed: u64, changes: &Changes, with_trace: bool) -> History {
    let mut world = World::new(seed, changes, with_trace);
    let panic = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    if let Some(panic) = panic {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world
            .oracle
            .fail("panic", text.unwrap_or_else(|| "without a word".into()));
    }
    let violation = world.oracle.violation(world.now);
    let (simulated_ms, steps) = (world.now, world.steps());
    let (hash, trace) = world.trace.finish();
    History {
        seed,
        violation,
        hash,
        trace,
        coverage: world.coverage,
        simulated_ms,
        steps,
    }
}
