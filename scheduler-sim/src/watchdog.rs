//! Histories that never end: a machine that spins does not come back to be judged, so somebody else looks at the clock.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often the watchdog looks.
const LOOK: Duration = Duration::from_secs(1);
/// A history takes milliseconds. On the busiest of machines one that is seen so often does not end. Time would not do: while the process is
/// stopped, nobody looks.
const LOOKS: u32 = 120;

/// Which histories are played by now, and how often each was seen.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Mutex<Vec<(u64, u32)>>);

impl Watchdog {
    pub(crate) fn begins(&self, seed: u64) {
        self.playing().push((seed, 0));
    }

    pub(crate) fn ends(&self, seed: u64) {
        self.playing().retain(|(of, _)| *of != seed);
    }

    fn playing(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a history that does not end; `None` once nobody plays any more, when the other end of `over` is gone.
    pub(crate) fn watch(&self, over: &Receiver<()>) -> Option<u64> {
        while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            for (seed, looks) in self.playing().iter_mut() {
                *looks += 1;
                if *looks > LOOKS {
                    return Some(*seed);
                }
            }
        }
        None
    }
}
