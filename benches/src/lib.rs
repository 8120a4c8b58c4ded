//! What the benchmarks drive: one shard with a number of live tasks, kept at that number.

use std::sync::Arc;

use bytes::Bytes;
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
}

impl Harness {
    /// A shard with `live` ready tasks.
    ///
    /// # Panics
    ///
    /// If an empty state is not the state of a new shard.
    pub fn new(live: u32) -> Self {
        let policy = PipelinePolicy {
            window: Window {
                max_tasks: live.saturating_add(2 * BATCH),
                max_bytes: usize::MAX / 2,
                max_span: live.saturating_mul(2).max(1 << 20),
                ..Window::default()
            },
            ..PipelinePolicy::default()
        };
        let now = Timestamp::from_millis(1_000_000);
        let config = ShardConfig {
            tenure: Tenure {
                shard: ShardId::new(PipelineId(1), Partition(0)),
                epoch: Epoch(1),
            },
            policy: Arc::new(policy),
            resume: Offset::ZERO,
            state: Bytes::new(),
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            unclean: false,
            grace: std::time::Duration::ZERO,
        };
        let shard = Shard::new(now, config).expect("no bytes are the state of a new shard");
        let mut harness = Self {
            shard,
            now,
            next: 0,
            worker: 0,
            // As a log reader hands them out: slices of one block.
            params: Bytes::from(vec![b'x'; 128]),
            outputs: Vec::new(),
            leases: Vec::new(),
            checkpoints: 0,
        };
        for worker in 0..WORKERS {
            let input = Input::Attach {
                worker: WorkerId(worker),
                held: Vec::new(),
                reported: Vec::new(),
            };
            harness.tell(input);
        }
        harness.arrive(live);
        harness
    }

    fn tell(&mut self, input: Input) {
        self.shard.handle(self.now, input, &mut self.outputs);
        let mut saved = None;
        let mut wanted = None;
        for output in self.outputs.drain(..) {
            match output {
                Output::Lease { lease, .. } => self.leases.push((lease.offset, lease.token)),
                Output::Save(checkpoint) => saved = Some(checkpoint.id),
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
        for _ in 0..tasks {
            let record = Record {
                offset: Offset(self.next),
                appended_at: self.now,
                body: RecordBody::Task(TaskSpec::new(self.params.slice(..))),
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
        let mut leases = std::mem::take(&mut self.leases);
        for (offset, token) in leases.drain(..) {
            self.tell(Input::Report {
                worker: WorkerId(self.worker),
                offset,
                token,
                outcome: AttemptOutcome::Succeeded {
                    output: Bytes::from_static(b"{}"),
                },
            });
        }
        self.leases = leases;
    }

    /// All tasks are done and saved, and nothing else happens for `time`.
    pub fn idle(&mut self, time: std::time::Duration) {
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
        self.now = self.now + std::time::Duration::from_millis(1);
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
