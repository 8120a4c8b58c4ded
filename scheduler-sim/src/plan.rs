//! What a seed draws before anything happens: how large the cluster is, what goes wrong in it and how often.
//!
//! Swarm testing: each history has only some kinds of faults, at rates of its own, so that none hides what another would show.

mod knobs;

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::policy::{
    Aging, CheckpointPolicy, PipelinePolicy, Retention, RetryPolicy, Settle, Timeouts, Window,
};

pub(crate) use self::knobs::KNOBS;
use crate::rng::Rng;

/// One history's conditions. Times are in milliseconds of simulated time.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    nodes: usize,
    pub(crate) partitions: u32,
    pub(crate) workers: usize,
    pub(crate) concurrency: u32,
    pub(crate) max_unsettled: usize,
    pub(crate) policy: Arc<PipelinePolicy>,
    grace: Duration,
    /// When faults stop.
    pub(crate) heal_at: u64,
    /// When, at the latest, all must have ended.
    pub(crate) end_by: u64,
    pub(crate) batches: u64,
    pub(crate) batch: u64,
    /// Of the tasks, in a thousand.
    pub(crate) tasks: TaskMix,
    /// Mean time between two faults of a kind; 0 for never.
    pub(crate) every: Every,
    pub(crate) store: StoreFaults,
    pub(crate) log: LogFaults,
    pub(crate) net: NetFaults,
    /// How far a process's clock may be ahead of another's when it starts.
    pub(crate) clock_skew: u64,
    /// By how much a process may find itself on an earlier clock than the one before it.
    pub(crate) earlier: u64,
    /// How many milliseconds in a million a clock may be fast or slow.
    pub(crate) clock_drift: u64,
    /// Whether all partitions live together, or each where it falls.
    pub(crate) together: bool,
    /// How long placement takes to notice that a node is gone.
    pub(crate) session_timeout: u64,
    revoke_timeout: u64,
    /// First and longest pause of a worker between tries to connect.
    pub(crate) backoff: (u64, u64),
    /// Only schedulers and what they need fail, and are back soon: nothing may run twice.
    pub(crate) strict: bool,
    /// Whether workers ask who owns what, and have a session with each owner: 1 or 0.
    pub(crate) fleet: u64,
    /// Workers that poll, without a session.
    pub(crate) pollers: u64,
    /// Nodes besides the first in a history where only schedulers fail.
    pub(crate) more_nodes: u64,
    /// Whether workers with one session do not heed it when a shard moves, as those of others may not: 1 or 0.
    pub(crate) stubborn: u64,
    /// Tasks of a batch that comes all at once; 0 if none does.
    pub(crate) burst: u64,
}

/// What tasks are like, each a share in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct TaskMix {
    pub(crate) long: u64,
    pub(crate) flaky: u64,
    pub(crate) failing: u64,
    pub(crate) rejecting: u64,
    pub(crate) poison: u64,
    pub(crate) hanging: u64,
    pub(crate) deaf: u64,
    pub(crate) nonsense: u64,
    pub(crate) delayed: u64,
    pub(crate) deadline: u64,
    pub(crate) keyed: u64,
    /// Of the batches, those that go to one and the same partition.
    pub(crate) hot: u64,
    longest: u64,
    /// What is added to it.
    longer: u64,
    pub(crate) max_params: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Every {
    pub(crate) node_crash: u64,
    pub(crate) node_pause: u64,
    pub(crate) rolling: u64,
    pub(crate) worker_crash: u64,
    pub(crate) worker_pause: u64,
    pub(crate) worker_drain: u64,
    pub(crate) cut: u64,
    pub(crate) partition: u64,
    pub(crate) rebalance: u64,
    /// The same, where only schedulers fail.
    pub(crate) moves: u64,
    pub(crate) store_outage: u64,
    pub(crate) store_slowness: u64,
    pub(crate) log_outage: u64,
    /// A node's clock goes ahead at once.
    pub(crate) leap: u64,
    pub(crate) cancel: u64,
    pub(crate) hasten: u64,
    pub(crate) redrive: u64,
    pub(crate) policy: u64,
    pub(crate) pipeline_pause: u64,
    /// The pipeline gets one more partition.
    pub(crate) growth: u64,
    /// The log loses records that nobody has done with.
    pub(crate) loss: u64,
    /// What drives a node's machines panics, and begins anew.
    pub(crate) panic: u64,
    /// The store cannot save a shard's checkpoints for a while, and says that it never will.
    pub(crate) damage: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct StoreFaults {
    pub(crate) latency: u64,
    /// In a thousand calls.
    pub(crate) unavailable: u64,
    pub(crate) lost_reply: u64,
    /// Done long after the caller has given up, and tried again.
    pub(crate) late: u64,
    pub(crate) slow: u64,
    pub(crate) slowest: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct LogFaults {
    pub(crate) latency: u64,
    pub(crate) unavailable: u64,
    pub(crate) lost_reply: u64,
    /// A record written twice by a producer that tried again.
    pub(crate) twice: u64,
    /// Offsets that are no records.
    pub(crate) gaps: u64,
    pub(crate) largest_gap: u64,
    pub(crate) truncate_lost: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct NetFaults {
    pub(crate) latency: u64,
    /// In a thousand messages.
    pub(crate) slow: u64,
    pub(crate) slowest: u64,
}

/// Within which time workers find any new owner, whatever is away meanwhile.
const FOUND_WITHIN: Duration = Duration::from_secs(45);
/// Within which time a node lets go of a shard, whatever is away meanwhile.
const LET_GO_WITHIN: u64 = 60_000;

impl TaskMix {
    /// How long the longest task takes.
    pub(crate) fn longest(&self) -> u64 {
        self.longest + self.longer
    }
}

impl Plan {
    /// How long workers of an owner that vanished have to come back.
    pub(crate) fn grace(&self) -> Duration {
        if self.more_nodes > 0 && self.fleet > 0 {
            FOUND_WITHIN
        } else {
            self.grace
        }
    }

    /// How long placement waits for a node to let go.
    pub(crate) fn revoke_timeout(&self) -> u64 {
        if self.more_nodes > 0 {
            LET_GO_WITHIN
        } else {
            self.revoke_timeout
        }
    }

    pub(crate) fn all_nodes(&self) -> usize {
        self.nodes + usize::try_from(self.more_nodes).unwrap_or(0)
    }

    #[expect(clippy::too_many_lines, reason = "one line for each number")]
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let strict = rng.chance(200);
        let nodes = if strict { 1 } else { *rng.pick(&[1, 1, 2, 2, 3]) };
        let heal_at = rng.range(3_000, 60_000);
        let policy = policy(rng, strict);
        let longest_run = as_millis(policy.timeouts.run);
        let some = |rng: &mut Rng, low, high| {
            if rng.chance(400) { rng.range(low, high) } else { 0 }
        };
        let mut every = Every {
            node_crash: some(rng, 2_000, 40_000),
            store_outage: some(rng, 5_000, 60_000),
            store_slowness: some(rng, 5_000, 60_000),
            log_outage: some(rng, 5_000, 60_000),
            cut: some(rng, 1_000, 30_000),
            cancel: some(rng, 200, 5_000),
            hasten: some(rng, 200, 5_000),
            rolling: some(rng, 10_000, 60_000),
            pipeline_pause: some(rng, 10_000, 60_000),
            ..Every::default()
        };
        if !strict {
            every.node_pause = some(rng, 3_000, 40_000);
            every.worker_crash = some(rng, 2_000, 40_000);
            every.worker_pause = some(rng, 3_000, 40_000);
            every.worker_drain = some(rng, 3_000, 40_000);
            every.partition = some(rng, 3_000, 40_000);
            every.rebalance = some(rng, 1_000, 30_000);
            every.redrive = some(rng, 500, 10_000);
            every.policy = some(rng, 3_000, 40_000);
            every.leap = if rng.chance(150) {
                rng.range(2_000, 30_000)
            } else {
                0
            };
        }
        let tasks = TaskMix {
            long: some(rng, 0, 300),
            flaky: some(rng, 0, 400),
            failing: some(rng, 0, 100),
            rejecting: some(rng, 0, 100),
            poison: if strict { 0 } else { some(rng, 0, 50) },
            hanging: if strict { 0 } else { some(rng, 0, 50) },
            deaf: if strict { 0 } else { some(rng, 0, 50) },
            nonsense: some(rng, 0, 50),
            delayed: some(rng, 0, 400),
            deadline: some(rng, 0, 200),
            keyed: some(rng, 1, 300),
            hot: if rng.chance(200) { rng.range(300, 1_000) } else { 0 },
            longest: if strict {
                5_000
            } else {
                rng.skewed(50, longest_run * 3 / 2)
            },
            longer: 0,
            max_params: rng.skewed(2, 2_000),
        };
        let every_call = rng.range(1, 40);
        Self {
            nodes,
            partitions: u32::try_from(*rng.pick(&[1, 1, 2, 3])).unwrap_or(1),
            workers: nodes + rng.index(3),
            concurrency: u32::try_from(rng.skewed(1, 16)).unwrap_or(1),
            max_unsettled: if rng.chance(200) {
                rng.index(20) + 1
            } else {
                100_000
            },
            grace: Duration::from_millis(if strict { 10_000 } else { rng.skewed(1, 10_000) }),
            heal_at,
            end_by: heal_at + 3_600_000,
            batches: rng.skewed(1, 60),
            batch: rng.skewed(1, 8),
            tasks,
            every,
            store: StoreFaults {
                latency: rng.skewed(1, 200),
                unavailable: some(rng, 1, 150),
                lost_reply: some(rng, 1, 150),
                late: if rng.chance(200) { rng.range(1, 60) } else { 0 },
                slow: some(rng, 1, 100),
                slowest: rng.skewed(100, 8_000),
            },
            log: LogFaults {
                latency: rng.skewed(1, 100),
                unavailable: some(rng, 1, 100),
                lost_reply: some(rng, 1, 200),
                twice: some(rng, 1, 50),
                gaps: if rng.chance(150) { rng.range(1, 200) } else { 0 },
                largest_gap: rng.skewed(1, 600),
                truncate_lost: some(rng, 1, 500),
            },
            net: NetFaults {
                latency: every_call,
                slow: some(rng, 1, 100),
                slowest: if strict { 500 } else { rng.skewed(50, 5_000) },
            },
            earlier: 0,
            clock_skew: if strict { 0 } else { some(rng, 0, 3_000) },
            clock_drift: if strict { 0 } else { some(rng, 0, 20_000) },
            together: rng.chance(500),
            session_timeout: rng.range(500, 10_000),
            revoke_timeout: rng.range(500, 20_000),
            backoff: (
                rng.range(50, 200),
                if strict { 1_000 } else { rng.skewed(200, 10_000) },
            ),
            policy: Arc::new(policy),
            strict,
            fleet: 0,
            pollers: 0,
            more_nodes: 0,
            stubborn: 0,
            burst: 0,
        }
    }

    /// Draws what came to the simulator later, from a source of its own: without it, older seeds are the histories that they were.
    pub(crate) fn draw_later(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.every.growth = rng.range(3_000, 40_000);
        }
        if rng.chance(120) {
            self.every.loss = rng.range(3_000, 60_000);
        }
        self.fleet = u64::from(rng.chance(650));
        if !self.strict && rng.chance(250) {
            self.pollers = rng.range(1, 3);
        }
        if self.strict && rng.chance(500) {
            // Some outlast the grace.
            self.tasks.longer = rng.range(1_000, 60_000);
        }
        if self.strict && rng.chance(500) {
            self.more_nodes = rng.range(1, 2);
            self.every.moves = rng.range(2_000, 30_000);
            self.stubborn = u64::from(self.fleet == 0 && rng.chance(500));
        }
        if rng.chance(100) {
            self.burst = rng.range(50, 200);
        }
        if rng.chance(100) {
            self.every.panic = rng.range(2_000, 40_000);
        }
        if rng.chance(80) {
            self.every.damage = rng.range(3_000, 40_000);
        }
        if !self.strict && rng.chance(100) {
            self.earlier = rng.range(1_000, 20 * 60_000);
        }
    }

    /// What follows from numbers that may have been changed.
    pub(crate) fn conclude(&mut self) {
        let policy = Arc::make_mut(&mut self.policy);
        if self.burst > 0 {
            // The dictionary is to grow.
            let most = u32::try_from(self.burst).unwrap_or(u32::MAX);
            policy.window.max_tasks = policy.window.max_tasks.max(most);
            policy.window.max_span = policy.window.max_span.max(most * 2);
            policy.window.max_bytes = policy.window.max_bytes.max(1 << 20);
        }
        if self.stubborn > 0 {
            // Some are to run while a shard moves away and comes back.
            self.tasks.long = self.tasks.long.max(300);
            self.tasks.longer = self.tasks.longer.max(40_000);
        }
        if self.burst > 0 || self.tasks.longer > 0 {
            // One worker may have much to do.
            self.end_by += 40 * 3_600_000;
        }
        if self.more_nodes > 0 && self.fleet == 0 {
            // A worker has one session, and does not follow a shard that moves: it must not be missed before the shard comes back, and its time
            // to come back would be over where an owner vanishes.
            policy.timeouts.heartbeat = policy.timeouts.run;
            self.every.node_crash = 0;
            self.every.panic = 0;
            self.every.damage = 0;
            self.store.late = 0;
        }
    }
}

/// A policy with windows so small that tasks are parked, carried over and come early.
pub(crate) fn policy(rng: &mut Rng, strict: bool) -> PipelinePolicy {
    let millis = Duration::from_millis;
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let max_tasks = rng.skewed(2, 200);
    PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: small(rng.range(1, 6)),
            initial_backoff: millis(rng.skewed(1, 5_000)),
            factor: [1.0, 1.5, 2.0, 4.0][rng.index(4)],
            max_backoff: millis(rng.skewed(100, 60_000)),
            jitter: [0.0, 0.2, 1.0][rng.index(3)],
            seed: rng.range(0, u64::MAX - 1),
        },
        timeouts: if strict {
            Timeouts {
                // A lease that nobody gives back is not to be found by its end.
                run: Duration::from_hours(3),
                heartbeat: Duration::from_mins(1),
                ..Timeouts::default()
            }
        } else {
            Timeouts {
                start: rng.chance(100).then(|| millis(rng.range(1_000, 60_000))),
                run: millis(rng.skewed(1_000, 60_000)),
                heartbeat: millis(rng.skewed(400, 30_000)),
                total: rng.chance(100).then(|| millis(rng.range(5_000, 120_000))),
            }
        },
        aging: Aging(millis(rng.skewed(1, 30_000))),
        checkpoint: CheckpointPolicy {
            interval: millis(rng.skewed(20, 3_000)),
            max_ended: small(rng.skewed(1, 200)),
        },
        window: Window {
            max_tasks: small(max_tasks),
            max_bytes: usize::try_from(rng.skewed(10_000, 1 << 20)).unwrap_or(1 << 20),
            max_span: small(rng.skewed(4, 600).max(max_tasks)),
            park_after: millis(rng.skewed(200, 30_000)),
        },
        retention: Retention::default(),
        settle: if rng.chance(250) {
            Settle::Commit
        } else {
            Settle::Checkpoint
        },
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
