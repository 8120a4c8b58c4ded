//! What the benchmarks drive: one shard with a number of live tasks, kept at that number.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, LeaseToken, Offset, Partition, PipelineId, ShardId, Tenure, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{PipelinePolicy, Window};
use scheduler_core::shard::{Input, Output, Shard, ShardConfig};
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

/// How many tasks each worker is leased at once, and how many arrive at once.
pub const BATCH: u32 = 64;

const WORKERS: u128 = 16;

/// A shard with its log and its workers; the store takes every checkpoint at once.
#[derive(Debug)]
pub struct Harness {
    shard: Shard,
    now: Timestamp,
    next: u64,
    worker: u128,
    params: Bytes,
    outputs: Vec<Output>,
    leases: Vec<(Offset, LeaseToken)>,
    /// How many checkpoints were saved.
    pub checkpoints: u64,
    /// The last one, where it is [kept](Self::keep).
    kept: Option<Arc<Checkpoint>>,
    keeps: bool,
}

impl Harness {
    /// A shard with `live` ready tasks.
    pub fn new(live: u32) -> Self {
        let mut harness = Self::empty(live, PipelinePolicy::default());
        harness.arrive(live);
        harness
    }

    /// A shard that has room for `live` tasks and some more, and goes by `policy` in everything else.
    pub fn empty(live: u32, policy: PipelinePolicy) -> Self {
        Self::begun(live, policy, Offset::ZERO, Bytes::new())
    }

    /// A shard that another one has left this checkpoint of.
    ///
    /// # Panics
    ///
    /// If the checkpoint is not one of a shard.
    pub fn restarted(live: u32, from: &Checkpoint) -> Self {
        Self::begun(live, PipelinePolicy::default(), from.resume, from.state.clone())
    }

    fn begun(live: u32, policy: PipelinePolicy, resume: Offset, state: Bytes) -> Self {
        let policy = PipelinePolicy {
            window: Window {
                max_tasks: live.saturating_add(2 * BATCH),
                max_bytes: usize::MAX / 2,
                max_span: live.saturating_mul(2).max(1 << 20),
                ..policy.window.clone()
            },
            ..policy
        };
        let now = Timestamp::from_millis(1_000_000);
        let config = ShardConfig {
            tenure: Tenure {
                shard: ShardId::new(PipelineId(1), Partition(0)),
                epoch: Epoch(1),
            },
            policy: Arc::new(policy),
            resume,
            state,
            log_start: resume,
            log_end: resume,
            unclean: false,
            grace: Duration::ZERO,
        };
        let shard = Shard::new(now, config)
            .expect("no bytes are the state of a new shard, and a checkpoint has that of one");
        let mut harness = Self {
            shard,
            now,
            next: resume.0,
            worker: 0,
            // As a log reader hands them out: slices of one block.
            params: Bytes::from(vec![b'x'; 128]),
            outputs: Vec::new(),
            leases: Vec::new(),
            checkpoints: 0,
            kept: None,
            keeps: false,
        };
        for worker in 0..WORKERS {
            let input = Input::Attach {
                worker: WorkerId(worker),
                held: Vec::new(),
                reported: Vec::new(),
            };
            harness.tell(input);
        }
        harness
    }

    fn tell(&mut self, input: Input) {
        self.shard.handle(self.now, input, &mut self.outputs);
        let mut saved = None;
        let mut wanted = None;
        for output in self.outputs.drain(..) {
            match output {
                Output::Lease { lease, .. } => self.leases.push((lease.offset, lease.token)),
                Output::Save(checkpoint) => {
                    saved = Some(checkpoint.id);
                    if self.keeps {
                        self.kept = Some(checkpoint);
                    }
                }
                Output::LoadParked { page, .. } => wanted = Some(page),
                _ => {}
            }
        }
        if let Some(page) = wanted {
            // The store has no parked tasks.
            self.tell(Input::Unpark {
                page,
                tasks: Vec::new(),
                next_wake: Timestamp::MAX,
            });
        }
        if let Some(id) = saved {
            self.checkpoints += 1;
            self.shard.handle(self.now, Input::Saved(id), &mut self.outputs);
            self.outputs.clear();
        }
    }

    /// `tasks` records arrive.
    pub fn arrive(&mut self, tasks: u32) {
        self.arrive_as(tasks, |_, _, params| TaskSpec::new(params));
    }

    /// `tasks` records arrive; each is what `task` makes of its number, the time and the params.
    pub fn arrive_as(&mut self, tasks: u32, task: impl Fn(u64, Timestamp, Bytes) -> TaskSpec) {
        for _ in 0..tasks {
            let record = Record {
                offset: Offset(self.next),
                appended_at: self.now,
                body: RecordBody::Task(task(self.next, self.now, self.params.slice(..))),
            };
            self.next += 1;
            self.tell(Input::Arrive(record));
        }
    }

    /// The next worker is leased `tasks` tasks.
    ///
    /// # Panics
    ///
    /// If fewer are ready.
    pub fn lease(&mut self, tasks: u32) {
        self.worker = (self.worker + 1) % WORKERS;
        self.tell(Input::Ask {
            worker: WorkerId(self.worker),
            limit: tasks,
        });
        assert!(self.leases.len() >= tasks as usize, "too few tasks were ready");
    }

    /// It reports all of them as done.
    pub fn report(&mut self) {
        self.report_as(|_| AttemptOutcome::Succeeded {
            output: Bytes::from_static(b"{}"),
        });
    }

    /// It reports all of them, as `outcome` says of a lease.
    pub fn report_as(&mut self, outcome: impl Fn(LeaseToken) -> AttemptOutcome) {
        let mut leases = std::mem::take(&mut self.leases);
        for (offset, token) in leases.drain(..) {
            self.tell(Input::Report {
                worker: WorkerId(self.worker),
                offset,
                token,
                outcome: outcome(token),
            });
        }
        self.leases = leases;
    }

    /// How many tasks are ready.
    pub fn ready(&self) -> u32 {
        self.shard.ready()
    }

    /// Nothing happens for `time`, and then the workers say that they are alive.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for worker in 0..WORKERS {
            self.tell(Input::Alive {
                worker: WorkerId(worker),
            });
        }
    }

    /// The checkpoint that is made now, with all that has ended since the last one.
    ///
    /// # Panics
    ///
    /// If nothing has changed.
    pub fn keep(&mut self) -> Arc<Checkpoint> {
        self.keeps = true;
        self.tell(Input::Flush);
        self.keeps = false;
        self.kept
            .take()
            .expect("something has changed since the last one")
    }

    /// All tasks are done and saved, and nothing else happens for `time`.
    pub fn idle(&mut self, time: Duration) {
        while self.shard.ready() > 0 {
            self.lease(BATCH.min(self.shard.ready()));
            self.report();
        }
        self.tell(Input::Flush);
        self.now = self.now + time;
        self.tell(Input::Tick);
    }

    /// The workers say that they are alive, and 1 ms goes by.
    pub fn pass(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        self.tell(Input::Alive {
            worker: WorkerId(self.worker),
        });
    }

    /// One task is given back and leased again, and a checkpoint says so.
    pub fn checkpoint(&mut self) {
        let before = self.checkpoints;
        let Some((offset, token)) = self.leases.pop() else {
            return;
        };
        self.tell(Input::Report {
            worker: WorkerId(self.worker),
            offset,
            token,
            outcome: AttemptOutcome::Returned,
        });
        self.tell(Input::Ask {
            worker: WorkerId(self.worker),
            limit: 1,
        });
        self.tell(Input::Flush);
        debug_assert_eq!(self.checkpoints, before + 1, "it was flushed");
    }

    /// The whole life of [`BATCH`] tasks, with their share of the checkpoints.
    pub fn cycle(&mut self) {
        self.arrive(BATCH);
        self.lease(BATCH);
        self.report();
    }
}

/// A number with nothing in it of the order of those that it is made of.
pub fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// Something that is counted beside what is timed, for the table that `cargo xtask bench` makes.
#[expect(clippy::print_stdout, reason = "a benchmark is run in a terminal")]
pub fn figure(what: &str, value: impl std::fmt::Display, unit: &str) {
    println!("figure: {what} | {value} | {unit}");
}
