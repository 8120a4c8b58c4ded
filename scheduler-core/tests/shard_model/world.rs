//! The world around the shard, and the ghost: what a naive observer remembers of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{LeaseToken, Offset, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::shard::{Answer, Found, Input, Output, Shard};
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;

use crate::common::store::{Load, Store, check_recording};
use crate::op::{GRACE, WORKERS};

/// What a worker itself knows; it survives the shard.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) is_attached: bool,
    pub(crate) held: BTreeMap<Offset, (LeaseToken, Timestamp)>,
    /// Reports that are not settled, in their order.
    pub(crate) unsettled: Vec<(Offset, LeaseToken, AttemptOutcome)>,
    /// How many reports of this session are settled.
    pub(crate) settled: u64,
    pub(crate) seen: Timestamp,
}

/// A lease that nobody else may have meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ghost {
    pub(crate) worker: usize,
    pub(crate) token: LeaseToken,
    pub(crate) started: Timestamp,
    pub(crate) mark: Timestamp,
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) policy: Arc<PipelinePolicy>,
    pub(crate) shard: Shard,
    pub(crate) store: Store,
    pub(crate) log: BTreeMap<Offset, Record>,
    pub(crate) log_end: Offset,
    pub(crate) workers: Vec<Worker>,
    /// The checkpoint that is on its way, and whether the store has it.
    pub(crate) saving: Option<Arc<Checkpoint>>,
    pub(crate) load: Option<Load>,
    /// The last page that was answered in this activation.
    pub(crate) answered: Option<Input>,
    /// A page that was read and not heard yet.
    pub(crate) page: Option<Input>,
    pub(crate) ghosts: BTreeMap<Offset, Ghost>,
    /// Tasks that this activation has leased.
    pub(crate) granted: BTreeSet<Offset>,
    /// Since when tasks run that no worker has, as far as it says.
    pub(crate) adrift: BTreeMap<Offset, Timestamp>,
    pub(crate) tokens: BTreeSet<(Offset, LeaseToken)>,
    pub(crate) redriven: BTreeSet<Offset>,
    /// Successes that came when their tasks were the store's alone: nobody has to remember them.
    pub(crate) void: BTreeSet<(Offset, LeaseToken)>,
    pub(crate) activated_at: Timestamp,
    /// Until when, and below which offset, tasks wait for workers.
    pub(crate) unsure: Vec<(Timestamp, Offset)>,
    pub(crate) truncated: Offset,
    pub(crate) has_gaps: bool,
    pub(crate) outputs: Vec<Output>,
    pub(crate) trace: String,
}

impl Drop for World {
    #[expect(clippy::print_stdout, reason = "the trace of a failure, when it is asked for")]
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("TRACE").is_some() {
            println!("{}", self.trace);
        }
    }
}

impl World {
    pub(crate) fn new(policy: &PipelinePolicy) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let policy = Arc::new(policy.clone());
        let mut store = Store::default();
        let shard = store.activate(now, policy.clone(), Offset::ZERO, false, GRACE);
        Self {
            now,
            policy,
            shard,
            store,
            log: BTreeMap::new(),
            log_end: Offset::ZERO,
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            saving: None,
            load: None,
            page: None,
            answered: None,
            ghosts: BTreeMap::new(),
            granted: BTreeSet::new(),
            adrift: BTreeMap::new(),
            tokens: BTreeSet::new(),
            redriven: BTreeSet::new(),
            void: BTreeSet::new(),
            activated_at: now,
            unsure: Vec::new(),
            truncated: Offset::ZERO,
            has_gaps: false,
            outputs: Vec::new(),
            trace: String::new(),
        }
    }

    pub(crate) fn id(worker: usize) -> WorkerId {
        WorkerId(worker as u128 + 1)
    }

    pub(crate) fn tell(&mut self, input: Input) -> Answer {
        let mut outputs = std::mem::take(&mut self.outputs);
        let _ = write!(self.trace, "{:?} {input:?}: ", self.now);
        let answer = self.shard.handle(self.now, input, &mut outputs);
        let _ = writeln!(self.trace, "{answer:?} {outputs:?}");
        for output in outputs.drain(..) {
            self.take(output);
        }
        self.outputs = outputs;
        answer
    }

    pub(crate) fn take(&mut self, output: Output) {
        match output {
            Output::Lease { worker, lease } => {
                let worker = worker.0 as usize - 1;
                self.check_lease(lease.offset, lease.token);
                let ghost = Ghost {
                    worker,
                    token: lease.token,
                    started: self.now,
                    mark: self.now,
                };
                self.ghosts.insert(lease.offset, ghost);
                self.granted.insert(lease.offset);
                self.workers[worker]
                    .held
                    .insert(lease.offset, (lease.token, self.now));
            }
            Output::Stop { worker, lease } => {
                let worker = worker.0 as usize - 1;
                // Whatever the reason, the task is not this worker's alone any more, or ends with it.
                self.end_ghost(lease.offset, worker, lease.token);
            }
            Output::Settled { worker, count, .. } => self.settle(worker.0 as usize - 1, count),
            Output::Changed(_) => {}
            Output::Save(checkpoint) => {
                assert!(self.saving.is_none(), "a checkpoint was made while one was saved");
                self.saving = Some(checkpoint);
            }
            Output::Truncate(offset) => {
                assert!(offset <= self.store.resume && offset > self.truncated);
                self.truncated = offset;
            }
            Output::LoadParked {
                page,
                after,
                until,
                limit,
            } => {
                assert!(self.load.is_none(), "two loads at once");
                assert!(limit > 0);
                self.load = Some((page, after, until, limit));
            }
        }
    }

    /// Notes which reports of a worker are about tasks that were not in memory when this activation began, nor since.
    pub(crate) fn void_if_parked(&mut self, index: usize) {
        for (offset, token, _) in &self.workers[index].unsettled {
            let is_parked = self
                .store
                .parked
                .get(offset)
                .is_some_and(|row| row.wake_at > self.activated_at);
            if is_parked && !matches!(self.shard.find(*offset), Found::Live(_)) {
                self.void.insert((*offset, *token));
            }
        }
    }

    pub(crate) fn end_ghost(&mut self, offset: Offset, worker: usize, token: LeaseToken) {
        let ghost = self.ghosts.get(&offset);
        if ghost.is_some_and(|ghost| (ghost.worker, ghost.token) == (worker, token)) {
            self.ghosts.remove(&offset);
        }
    }

    pub(crate) fn activate(&mut self, unclean: bool) {
        check_recording(&mut self.shard);
        self.shard = self
            .store
            .activate(self.now, self.policy.clone(), self.log_end, unclean, GRACE);
        if unclean {
            self.unsure.push((self.now + GRACE, self.log_end));
        }
        self.activated_at = self.now;
        self.truncated = self.store.resume;
        self.saving = None;
        self.load = None;
        self.page = None;
        self.answered = None;
        self.ghosts.clear();
        self.granted.clear();
        self.adrift.clear();
        for worker in &mut self.workers {
            worker.is_attached = false;
        }
        let keys = self.store.keys.clone();
        self.tell(Input::Keys(keys));
    }

    pub(crate) fn tick(&mut self) {
        let timeouts = &self.policy.timeouts;
        self.ghosts.retain(|_, ghost| {
            let seen = ghost.mark.max(self.workers[ghost.worker].seen);
            self.now < ghost.started + timeouts.run && self.now < seen + timeouts.heartbeat
        });
        for _ in 0..100 {
            self.tell(Input::Tick);
            if self.shard.next_deadline().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!(
            "at {:?} the next deadline stays {:?}",
            self.now,
            self.shard.next_deadline()
        );
    }
}
