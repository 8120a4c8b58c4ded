//! The driver's clock: wall time at the start, then monotonic, so that it never goes back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler_core::time::Timestamp;
// Tokio's, so that tests which pause its time have this clock in hand as well.
use tokio::time::Instant;

/// Gives out the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        Self {
            wall,
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.wall + self.start.elapsed()
    }

    /// When `at` will be, as the timer of the runtime wants it; what is more than a year ahead is looked at again in a year.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.start + at.since(self.wall).min(Duration::from_hours(24 * 365))
    }
}
