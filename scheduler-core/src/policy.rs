//! What a pipeline's owner chooses: retry, timeouts, windows.

use std::time::Duration;

/// Everything about a pipeline that its shards go by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelinePolicy {
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
    /// How long each part of a task's life may take.
    pub timeouts: Timeouts,
    /// What urgency is worth.
    pub aging: Aging,
    /// How often a shard's change is saved.
    pub checkpoint: CheckpointPolicy,
    /// How much a shard holds in memory.
    pub window: Window,
    /// How long results and dead letters are kept.
    pub retention: Retention,
    /// When a worker may forget a report.
    pub settle: Settle,
}

/// When a failed attempt is followed by another, and how much later.
///
/// The delay before attempt *n + 1* is `initial_backoff * factor^(n - 1)`, at most `max_backoff`, less a share of up to
/// `jitter` of it that is drawn from `seed`, the task's offset and *n*: the same inputs give the same delay.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// How often a task is tried in all; at least 1. Default 5.
    pub max_attempts: u32,
    /// The delay before the second attempt. Default 1 s.
    pub initial_backoff: Duration,
    /// What the delay is multiplied by for each further attempt; at least 1. Default 2.
    pub factor: f64,
    /// The longest delay. Default 5 min.
    pub max_backoff: Duration,
    /// The share of the delay that is left to chance, 0 to 1. Default 0.2.
    pub jitter: f64,
    /// Where the chance comes from. Default 0.
    pub seed: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_backoff: Duration::from_secs(1),
            factor: 2.0,
            max_backoff: Duration::from_mins(5),
            jitter: 0.2,
            seed: 0,
        }
    }
}

impl RetryPolicy {
    /// The delay after attempt `attempt` (from 1) of the task at `offset` failed.
    pub fn backoff(&self, offset: u64, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.initial_backoff.as_secs_f64() * self.factor.max(1.0).powi(exponent))
            .min(self.max_backoff.as_secs_f64());
        // 53 bits of the mix make a fraction in [0, 1) that a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let chance = (mix(self.seed ^ mix(offset) ^ u64::from(attempt)) >> 11) as f64 / (1u64 << 53) as f64;
        Duration::try_from_secs_f64(full * (1.0 - self.jitter.clamp(0.0, 1.0) * chance))
            .unwrap_or(self.max_backoff)
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014): every input bit moves every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How long each part of a task's life may take.
///
/// | timeout | from | to | when it is over |
/// | --- | --- | --- | --- |
/// | `start` | the log took the task, or its not-before | its first lease | the task expires |
/// | `run` | a lease | its report | the attempt failed, the worker is told to stop |
/// | `heartbeat` | the last sign of life for a lease | the next | the attempt is lost |
/// | `total` | the log took the task, or its not-before | its end | the task expires, a running attempt is stopped |
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// Longest wait for a first attempt. Default none.
    pub start: Option<Duration>,
    /// Longest attempt. Default 1 h.
    pub run: Duration,
    /// Longest silence of a worker before its leases are given to others. Default 30 s.
    pub heartbeat: Duration,
    /// Longest life of a task over all attempts. Default none.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: None,
            run: Duration::from_hours(1),
            heartbeat: Duration::from_secs(30),
            total: None,
        }
    }
}

/// What urgency is worth: how long a task must wait to count as one priority higher, so that nothing starves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Aging(pub Duration);

impl Default for Aging {
    /// 30 s.
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// How often a shard's change is saved.
///
/// A worker keeps each report until it is saved, so the interval bounds what a worker and its shard both dying repeats.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckpointPolicy {
    /// The longest time between a change and the checkpoint that covers it. Default 2 s.
    pub interval: Duration,
    /// A checkpoint is made at once when so many tasks have ended. Default 32,768.
    pub max_ended: u32,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            max_ended: 32_768,
        }
    }
}

/// When a worker may forget a report: what is lost if it and its task's shard die together.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Settle {
    /// When the next checkpoint is saved: within [`CheckpointPolicy::interval`]. The default; costs nothing a task.
    #[default]
    Checkpoint,
    /// As soon as it can be saved: reports of a few milliseconds make a checkpoint together, one at a time a shard. For work that must not
    /// be repeated even when worker and shard die together; costs a transaction every few milliseconds while there are reports.
    Commit,
}

/// How much a shard holds in memory. What is beyond it stays in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Most live tasks. Default 16,384.
    pub max_tasks: u32,
    /// Most bytes of their params, and of results that are not saved yet. Default 16 MiB.
    pub max_bytes: usize,
    /// Most offsets between the oldest unfinished task and the newest: an older one is carried over into the store.
    /// Default 262,144.
    pub max_span: u32,
    /// A task that waits longer than this is parked in the store. Default 2 min.
    pub park_after: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            max_tasks: 16_384,
            max_bytes: 16 << 20,
            max_span: 262_144,
            park_after: Duration::from_mins(2),
        }
    }
}

/// How long what has ended is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// Results of tasks that succeeded, were cancelled or expired. Default 24 h.
    pub results: Duration,
    /// Dead letters. Default 30 days.
    pub dead: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            results: Duration::from_hours(24),
            dead: Duration::from_hours(30 * 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_backoff_doubles_up_to_its_cap() {
        let policy = RetryPolicy {
            jitter: 0.0,
            max_backoff: Duration::from_secs(5),
            ..RetryPolicy::default()
        };
        let seconds: Vec<u64> = (1..=5)
            .map(|attempt| policy.backoff(7, attempt).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 5, 5]);
    }

    proptest! {
        #[test]
        fn the_jitter_takes_at_most_its_share(seed: u64, offset: u64, attempt in 1..u32::MAX, jitter in 0.0..=1.0) {
            let policy = RetryPolicy { jitter, seed, ..RetryPolicy::default() };
            let full = RetryPolicy { jitter: 0.0, ..policy.clone() }.backoff(offset, attempt);
            let drawn = policy.backoff(offset, attempt);
            prop_assert!(drawn <= full);
            prop_assert!(drawn.as_secs_f64() >= full.as_secs_f64() * (1.0 - jitter) - 1e-6);
            prop_assert_eq!(drawn, policy.backoff(offset, attempt));
        }
    }
}
