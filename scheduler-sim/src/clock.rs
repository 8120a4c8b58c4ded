//! Clocks of processes: each has its own idea of the time, and its own pace.

use std::time::Duration;

use scheduler_core::time::Timestamp;

const MILLION: u64 = 1_000_000;

/// A clock that never goes back, as the runtime's: wall time when the process starts, then the process's own pace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Simulated time when the process started.
    started: u64,
    /// What its wall clock said then.
    wall: u64,
    /// Its milliseconds in a million of simulated ones.
    pace: u64,
}

impl Clock {
    pub(crate) fn new(now: u64, ahead: u64, pace: u64) -> Self {
        Self {
            started: now,
            wall: now + ahead,
            pace,
        }
    }

    pub(crate) fn now(&self, now: u64) -> Timestamp {
        Timestamp::from_millis(self.wall + (now - self.started) * self.pace / MILLION)
    }

    /// Goes ahead at once, as the clock of a machine that was suspended.
    pub(crate) fn leap(&mut self, ahead: u64) {
        self.wall += ahead;
    }

    /// Its time since the process started.
    pub(crate) fn elapsed(&self, now: u64) -> Duration {
        Duration::from_millis((now - self.started) * self.pace / MILLION)
    }

    /// When this clock will say `at` or more.
    pub(crate) fn reaches(&self, at: Timestamp) -> u64 {
        let ahead = at.as_millis().saturating_sub(self.wall).min(1 << 40);
        self.started + (ahead * MILLION).div_ceil(self.pace)
    }

    /// When so much of its time will have passed since the process started.
    pub(crate) fn reaches_elapsed(&self, after: Duration) -> u64 {
        let ahead = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).min(1 << 40);
        self.started + (ahead * MILLION).div_ceil(self.pace)
    }
}
