//! Code of this project that threads share, under a scheduler that tries many interleavings (the crate `shuttle`).
//!
//! `build.rs` copies the files that are looked at and puts shuttle's locks into the copies; nothing in production knows of it. `models/` has,
//! for each of them, what must hold. `tests/interleavings.rs` runs every model against the file as it is, where it must hold, and against
//! copies with a deliberate bug each, where one of the models must fail: a model that sees nothing would be found out.
//!
//! ```
//! use scheduler_concurrency::{Model, hold};
//! use shuttle::sync::{Arc, Mutex};
//!
//! let model: Model = || {
//!     let sum = Arc::new(Mutex::new(0));
//!     let other = sum.clone();
//!     let adding = shuttle::thread::spawn(move || *other.lock().unwrap() += 1);
//!     *sum.lock().unwrap() += 1;
//!     adding.join().unwrap();
//!     assert_eq!(*sum.lock().unwrap(), 2);
//! };
//! assert_eq!(hold(model), Ok(()));
//! ```

mod notify;

use std::panic::catch_unwind;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

pub use self::notify::{Notified, Notify};

/// Threads that do something together, and panic if it does not come out as it must.
pub type Model = fn();

/// Interleavings that each way of choosing them tries.
const INTERLEAVINGS: usize = 1_000;
/// The same interleavings each time: what fails, fails again.
const SEED: u64 = 0x5eed;
/// Most steps of one interleaving; more means that nothing comes of it.
const STEPS: usize = 20_000;
/// Changes of priority in an interleaving that prefers one thread to another: most bugs need no more.
const DEPTH: usize = 3;

/// Tries a model in many interleavings: at random, and with one thread preferred to another.
///
/// # Errors
///
/// What the model panicked with, or that its threads wait for each other, in the first interleaving in which it did.
pub fn hold(model: Model) -> Result<(), String> {
    tried(model, RandomScheduler::new_from_seed(SEED, INTERLEAVINGS))?;
    tried(model, PctScheduler::new_from_seed(SEED, DEPTH, INTERLEAVINGS))
}

fn tried(model: Model, scheduler: impl Scheduler + std::panic::UnwindSafe + 'static) -> Result<(), String> {
    let mut config = Config::new();
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS);
    let run = move || Runner::new(scheduler, config).run(model);
    catch_unwind(run).map(drop).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "a panic without a text".to_owned())
    })
}
