//! The driver's clock: wall time at the start, then monotonic, so that it never goes back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use scheduler_core::time::Timestamp;

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

    /// When `at` will be, as the timer of the runtime wants it.
    pub(crate) fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        // A millisecond more than the difference, because the clock truncates.
        let ahead = at.since(self.wall).min(std::time::Duration::from_hours(24 * 365));
        tokio::time::Instant::from_std(self.start + ahead)
    }
}
