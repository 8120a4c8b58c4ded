//! Histories that never end: a machine that spins does not come back to be judged, so somebody else looks at the clock.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A history takes milliseconds. On the busiest of machines one that takes so long does not end.
const LONGEST: Duration = Duration::from_mins(2);
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_secs(1);

/// Which histories are played by now, and since when.
#[derive(Debug, Default)]
pub(crate) struct Watchdog(Mutex<Vec<(u64, Instant)>>);

impl Watchdog {
    pub(crate) fn begins(&self, seed: u64) {
        self.playing().push((seed, Instant::now()));
    }

    pub(crate) fn ends(&self, seed: u64) {
        self.playing().retain(|(of, _)| *of != seed);
    }

    fn playing(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a history that does not end; `None` once nobody plays any more, when the other end of `over` is gone.
    pub(crate) fn watch(&self, over: &Receiver<()>) -> Option<u64> {
        while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let hung = self
                .playing()
                .iter()
                .find(|(_, since)| since.elapsed() > LONGEST)
                .copied();
            if let Some((seed, _)) = hung {
                return Some(seed);
            }
        }
        None
    }
}
