//! How many workers a pipeline is to have.
//!
//! The measure is *seconds of work waiting*: tasks that wait or run, times the measured time that one takes. So many workers are
//! wanted that it is done in [`ScalingPolicy::target`]. More come at once; fewer only when fewer were enough for the whole of
//! [`ScalingPolicy::cooldown`], and then as many as were needed at most during it.
//!
//! ```
//! use std::time::Duration;
//! use scheduler_core::port::catalog::Replicas;
//! use scheduler_core::time::Timestamp;
//! use scheduler_core::scaling::{Load, Scaler, ScalingPolicy};
//!
//! let mut scaler = Scaler::new(ScalingPolicy::default(), Replicas { min: 0, max: 8 }, 0);
//! let load = Load { waiting: 40, running: 0, service_time: Some(Duration::from_secs(1)) };
//! // 40 tasks of a second each, to be done in ten seconds.
//! assert_eq!(scaler.observe(Timestamp::from_millis(0), load), 4);
//! ```

use std::time::Duration;

use crate::port::catalog::Replicas;
use crate::time::Timestamp;

/// What scaling goes by.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingPolicy {
    /// The time in which the waiting work is to be done. Default 10 s.
    pub target: Duration,
    /// How long fewer workers must have been enough before there are fewer. Default 30 s.
    pub cooldown: Duration,
    /// What a task takes while none has been measured. Default 1 s.
    pub assumed_service_time: Duration,
    /// Tasks that one worker runs at once. Default 1.
    pub slots_per_worker: u32,
}

impl Default for ScalingPolicy {
    fn default() -> Self {
        Self {
            target: Duration::from_secs(10),
            cooldown: Duration::from_secs(30),
            assumed_service_time: Duration::from_secs(1),
            slots_per_worker: 1,
        }
    }
}

impl ScalingPolicy {
    /// How many workers a load needs, whatever there are.
    pub fn needed(&self, load: Load) -> u32 {
        let slots = u64::from(self.slots_per_worker.max(1));
        let each = load.service_time.unwrap_or(self.assumed_service_time);
        // Nanoseconds in 128 bits hold any number of tasks of any length that a Duration can say, save absurd ones: saturate.
        let work = u128::from(load.waiting.saturating_add(load.running)).saturating_mul(each.as_nanos());
        let target = self.target.as_nanos().max(1).saturating_mul(slots.into());
        let for_work = u32::try_from(work.div_ceil(target)).unwrap_or(u32::MAX);
        // However short tasks are, what waits needs somebody; and no worker is taken from under a running task.
        let for_waiting = u32::from(load.waiting > 0);
        let for_running = u32::try_from(load.running.div_ceil(slots)).unwrap_or(u32::MAX);
        for_work.max(for_waiting).max(for_running)
    }
}

/// What a pipeline has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Tasks that could run now if there were workers: ready, and not loaded from the log yet. Not those that wait for their time.
    pub waiting: u64,
    /// Tasks that run.
    pub running: u64,
    /// What a task takes, as measured lately.
    pub service_time: Option<Duration>,
}

/// Measures what a task takes, from how many have ended and how long all of them took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    timed: u64,
    busy_ms: u64,
    known: Option<Duration>,
}

impl Pace {
    /// Takes in how many tasks have ended so far and how many milliseconds they took together; what a task takes, as measured lately.
    ///
    /// Both counts fall back when shards come or go: only what has grown is measured.
    pub fn observe(&mut self, timed: u64, busy_ms: u64) -> Option<Duration> {
        let ended = timed.saturating_sub(self.timed);
        if let Some(latest) = busy_ms.saturating_sub(self.busy_ms).checked_div(ended) {
            let latest = Duration::from_millis(latest);
            // Half of what was known before: a change is seen within a few looks, a single odd task hardly.
            self.known = Some(self.known.map_or(latest, |known| (known + latest) / 2));
        }
        (self.timed, self.busy_ms) = (timed, busy_ms);
        self.known
    }
}

/// Decides for one pipeline. Feed it regularly; how often is only a matter of how soon it notices.
#[derive(Clone, Debug)]
pub struct Scaler {
    policy: ScalingPolicy,
    bounds: Replicas,
    workers: u32,
    /// Since when fewer workers would do, and how many were needed at most since.
    surplus: Option<(Timestamp, u32)>,
}

impl Scaler {
    /// For a pipeline that has `workers` now.
    pub fn new(policy: ScalingPolicy, bounds: Replicas, workers: u32) -> Self {
        let mut scaler = Self {
            policy,
            bounds,
            workers: 0,
            surplus: None,
        };
        scaler.workers = scaler.clamp(workers);
        scaler
    }

    /// How many workers are wanted.
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// New bounds; the number of workers follows at once.
    pub fn set_bounds(&mut self, bounds: Replicas) {
        self.bounds = bounds;
        self.workers = self.clamp(self.workers);
        self.surplus = None;
    }

    /// Takes the load of `now` in; how many workers are wanted.
    pub fn observe(&mut self, now: Timestamp, load: Load) -> u32 {
        let needed = self.needed(load);
        if needed >= self.workers {
            self.workers = needed;
            self.surplus = None;
        } else {
            let (since, most) = self.surplus.get_or_insert((now, needed));
            *most = needed.max(*most);
            if now.since(*since) >= self.policy.cooldown {
                self.workers = *most;
                self.surplus = None;
            }
        }
        self.workers
    }

    fn needed(&self, load: Load) -> u32 {
        self.clamp(self.policy.needed(load))
    }

    fn clamp(&self, workers: u32) -> u32 {
        // Bounds that contradict each other: the maximum is what protects the machine.
        workers.max(self.bounds.min).min(self.bounds.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn load(waiting: u64, running: u64) -> Load {
        Load {
            waiting,
            running,
            service_time: Some(Duration::from_secs(1)),
        }
    }

    fn scaler(min: u32, max: u32) -> Scaler {
        Scaler::new(ScalingPolicy::default(), Replicas { min, max }, min)
    }

    #[test]
    fn what_waits_has_somebody_however_short_it_is() {
        let load = Load {
            waiting: 1,
            running: 0,
            service_time: Some(Duration::ZERO),
        };
        assert_eq!(scaler(0, 10).observe(at(0), load), 1);
    }

    #[test]
    fn more_come_at_once_and_fewer_after_the_cooldown() {
        let mut scaler = scaler(0, 10);
        assert_eq!(scaler.observe(at(0), load(100, 0)), 10);
        assert_eq!(scaler.observe(at(1), load(20, 3)), 10);
        assert_eq!(scaler.observe(at(20), load(50, 0)), 10);
        assert_eq!(scaler.observe(at(30), load(0, 0)), 10);
        // 30 s after the first time that fewer would have done: as many as were needed at most since.
        assert_eq!(scaler.observe(at(31), load(0, 0)), 5);
        assert_eq!(scaler.observe(at(32), load(0, 0)), 5);
        assert_eq!(scaler.observe(at(62), load(0, 0)), 0);
        assert_eq!(scaler.observe(at(63), load(1, 0)), 1);
    }

    #[test]
    fn a_peak_begins_the_cooldown_anew() {
        let mut scaler = scaler(0, 10);
        scaler.observe(at(0), load(100, 0));
        scaler.observe(at(1), load(0, 0));
        scaler.observe(at(29), load(100, 0));
        assert_eq!(scaler.observe(at(31), load(0, 0)), 10);
        assert_eq!(scaler.observe(at(60), load(0, 0)), 10);
        assert_eq!(scaler.observe(at(61), load(0, 0)), 0);
    }

    #[test]
    fn what_was_not_measured_is_assumed() {
        let mut scaler = scaler(1, 10);
        let unknown = Load {
            waiting: 45,
            ..Load::default()
        };
        assert_eq!(scaler.observe(at(0), unknown), 5);
    }

    #[test]
    fn what_a_task_takes_follows_the_latest_ones() {
        let mut pace = Pace::default();
        assert_eq!(pace.observe(0, 0), None);
        assert_eq!(pace.observe(10, 10_000), Some(Duration::from_secs(1)));
        assert_eq!(pace.observe(10, 10_000), Some(Duration::from_secs(1)));
        assert_eq!(pace.observe(12, 16_000), Some(Duration::from_secs(2)));
        // A shard has gone with what it counted.
        assert_eq!(pace.observe(2, 1_000), Some(Duration::from_secs(2)));
        assert_eq!(pace.observe(3, 5_000), Some(Duration::from_secs(3)));
    }

    prop_compose! {
        fn any_load()(waiting: u64, running in 0..1000u64, millis in proptest::option::of(0..100_000_000u64)) -> Load {
            Load { waiting, running, service_time: millis.map(Duration::from_millis) }
        }
    }

    proptest! {
        #[test]
        fn the_number_stays_in_its_bounds(
            min in 0..5u32,
            more in 0..20u32,
            steps in proptest::collection::vec((0..100u64, any_load()), 1..50),
        ) {
            let max = min + more;
            let mut scaler = scaler(min, max);
            let mut now = 0;
            for (later, load) in steps {
                now += later;
                let before = scaler.workers();
                let wanted = scaler.observe(at(now), load);
                prop_assert!((min..=max).contains(&wanted));
                // While something waits there is somebody, where that is allowed.
                if load.waiting > 0 || load.running > 0 {
                    prop_assert!(wanted >= 1.min(max));
                }
                prop_assert!(u64::from(wanted) >= load.running.min(max.into()));
                prop_assert!(wanted >= before || now > 0);
            }
        }

        #[test]
        fn more_work_never_wants_fewer(a in any_load(), more in 0..1_000_000u64) {
            let b = Load { waiting: a.waiting.saturating_add(more), ..a };
            prop_assert!(scaler(0, 1000).observe(at(0), a) <= scaler(0, 1000).observe(at(0), b));
        }

        #[test]
        fn none_is_taken_away_before_the_cooldown(steps in proptest::collection::vec((0..7u64, any_load()), 1..50)) {
            let mut scaler = scaler(0, 100);
            let (mut now, mut last_full) = (0, 0);
            for (later, load) in steps {
                now += later;
                let before = scaler.workers();
                let wanted = scaler.observe(at(now), load);
                if wanted < before {
                    prop_assert!(now - last_full >= 30);
                    last_full = now;
                } else if scaler.needed(load) >= wanted {
                    last_full = now;
                }
            }
        }
    }
}
