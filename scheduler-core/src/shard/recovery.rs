//! What the last checkpoint and returning workers say about tasks that are not in memory yet.

use std::collections::BTreeSet;

use super::{
    AttemptOutcome, BTreeMap, LeaseToken, Offset, Output, Shard, Snapshot, Timestamp, VecDeque, WorkerId,
};
use crate::id::Attempt;
use crate::snapshot::TaskState;

/// See the module.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Runs of offsets that have ended or have rows, still ahead of the ring's tail.
    pub(super) ended: VecDeque<(u64, u64)>,
    /// States of tasks that the log brings back, still ahead of the ring's tail.
    pub(super) tasks: VecDeque<TaskState>,
    /// States of tasks that the store brings back, not loaded yet.
    pub(super) rows: BTreeMap<u64, TaskState>,
    /// Those who held leases.
    pub(super) workers: Vec<WorkerId>,
    /// What workers said about tasks that are not there yet.
    pub(super) early: BTreeMap<u64, Vec<Early>>,
    early_len: usize,
    /// Workers that said that they hold some of them.
    holders: BTreeSet<WorkerId>,
    /// The first record of the log as the shard came up.
    pub(super) log_start: u64,
    /// One past the last offset that an earlier owner may have leased.
    log_end: u64,
    /// Below it an earlier owner may have done more than it saved.
    unsure_below: u64,
    /// Until when its workers have time to come back.
    pub(super) grace_until: Timestamp,
}

/// What a worker says about a task that is not there yet.
#[derive(Debug, PartialEq)]
pub(super) enum Early {
    Held {
        worker: WorkerId,
        token: LeaseToken,
    },
    Report {
        worker: WorkerId,
        token: LeaseToken,
        outcome: AttemptOutcome,
    },
}

/// So much of what workers say early is kept however narrow the window is.
const LEAST_EARLY: usize = 4_096;

impl Early {
    fn token(&self) -> LeaseToken {
        match self {
            Self::Held { token, .. } | Self::Report { token, .. } => *token,
        }
    }

    fn worker(&self) -> WorkerId {
        match self {
            Self::Held { worker, .. } | Self::Report { worker, .. } => *worker,
        }
    }
}

impl Recovery {
    /// From the state of the last checkpoint. `unclean`: the last owner has not released the shard; workers have until `grace_until`.
    pub(super) fn new(
        resume: u64,
        snapshot: Snapshot,
        (log_start, log_end): (u64, u64),
        unclean: bool,
        grace_until: Timestamp,
    ) -> Self {
        let mut runs = snapshot.ended.iter().copied().peekable();
        let (rows, tasks): (Vec<_>, Vec<_>) = snapshot.tasks.into_iter().partition(|task| {
            while runs.next_if(|(_, end)| *end <= task.offset).is_some() {}
            task.offset < resume || runs.peek().is_some_and(|(first, _)| *first <= task.offset)
        });
        Self {
            ended: snapshot.ended.into(),
            tasks: tasks.into(),
            rows: rows.into_iter().map(|task| (task.offset, task)).collect(),
            workers: snapshot.workers,
            early: BTreeMap::new(),
            early_len: 0,
            holders: BTreeSet::new(),
            log_start,
            log_end,
            // An owner that released the shard may itself have been waiting for the workers of one that vanished, and they could not come to it if it
            // was about to leave.
            unsure_below: if unclean { log_end } else { snapshot.unsure_below },
            grace_until,
        }
    }

    pub(super) fn is_unsure(&self, offset: u64, now: Timestamp) -> bool {
        offset < self.unsure_below && now < self.grace_until
    }

    /// What [`Snapshot::unsure_below`] is to say at `now`.
    pub(super) fn unsure_below(&self, now: Timestamp) -> u64 {
        let waiting = if now < self.grace_until {
            self.unsure_below
        } else {
            0
        };
        // What workers said of tasks that are not there yet ends with this owner, who may have let go of the shard before the log brought them.
        // The next owner has to hear it again.
        let spoken = self.early.last_key_value().map_or(0, |(offset, _)| offset + 1);
        waiting.max(spoken)
    }

    /// How many offsets of `from..to` have ended or have rows.
    pub(super) fn ended_within(&self, from: u64, to: u64) -> u64 {
        let within = |(first, end): &(u64, u64)| (*end).min(to).saturating_sub((*first).max(from));
        self.ended.iter().map(within).sum()
    }

    pub(super) fn has_ended(&mut self, offset: u64) -> bool {
        while self.ended.front().is_some_and(|(_, end)| *end <= offset) {
            self.ended.pop_front();
        }
        self.ended.front().is_some_and(|(first, _)| *first <= offset)
    }

    pub(super) fn task(&mut self, offset: u64) -> Option<TaskState> {
        while self.tasks.front().is_some_and(|task| task.offset < offset) {
            self.tasks.pop_front();
        }
        self.tasks.pop_front_if(|task| task.offset == offset)
    }

    /// Whether `worker` has said anything of this attempt, or a later one, at the task at `offset`.
    pub(super) fn is_presented(&self, offset: u64, worker: WorkerId, attempt: Attempt) -> bool {
        self.early.get(&offset).is_some_and(|all| {
            all.iter()
                .any(|early| early.worker() == worker && early.token().attempt >= attempt)
        })
    }

    /// Forgets what `worker` said that it holds: it is about to say it anew.
    pub(super) fn forget_held(&mut self, worker: WorkerId) {
        if !self.holders.remove(&worker) {
            return;
        }
        let is_other = |early: &Early| !matches!(early, Early::Held { worker: of, .. } if *of == worker);
        self.early.retain(|_, all| {
            let before = all.len();
            all.retain(is_other);
            self.early_len -= before - all.len();
            !all.is_empty()
        });
    }

    /// Whether the last owner or a worker has said something of a row that is not loaded.
    pub(super) fn awaits_rows(&self, tail: u64) -> bool {
        !self.rows.is_empty() || self.is_row_spoken_of(tail)
    }

    /// Whether workers have said something of a row that is not loaded.
    pub(super) fn is_row_spoken_of(&self, tail: u64) -> bool {
        self.early.range(..tail).next().is_some()
    }

    /// Of how many tasks that are not there workers have said something.
    pub(super) fn spoken_of(&self) -> usize {
        self.early.len()
    }

    /// Whether any of them lies at `tail` or after it.
    pub(super) fn is_spoken_of_from(&self, tail: u64) -> bool {
        self.early.range(tail..).next().is_some()
    }

    fn take_early(&mut self, offset: u64) -> Vec<Early> {
        let early = self.early.remove(&offset).unwrap_or_default();
        self.early_len -= early.len();
        early
    }
}

impl Shard {
    /// Keeps what a worker says about a task that may still come from the log or the store; answers whether it may.
    pub(super) fn remember_early(&mut self, offset: u64, early: Early) -> bool {
        let is_to_come = if offset < self.ring.tail() {
            !self.parked.is_recovered() || self.recovery.rows.contains_key(&offset)
        } else {
            offset < self.recovery.log_end
        };
        let most = (self.policy.window.max_span as usize).max(LEAST_EARLY);
        let is_ours = early.token().epoch >= self.tenure.epoch;
        if !is_to_come || is_ours || self.recovery.early_len >= most {
            return false;
        }
        let known = self.recovery.early.get(&offset);
        if known.is_some_and(|known| known.contains(&early)) {
            return true;
        }
        match &early {
            Early::Held { worker, .. } => {
                self.recovery.holders.insert(*worker);
            }
            Early::Report { worker, .. } => self.workers.add_early(*worker),
        }
        self.recovery.early.entry(offset).or_default().push(early);
        self.recovery.early_len += 1;
        true
    }

    /// Drops what was said of a task that does not come, or has ended.
    pub(super) fn forget_early(&mut self, offset: u64, out: &mut Vec<Output>) {
        for early in self.recovery.take_early(offset) {
            match early {
                // It may run for ever, in vain, unless it is told.
                Early::Held { worker, token } => self.stop_stranger(worker, Offset(offset), token, out),
                Early::Report { worker, .. } => self.early_is_done(worker),
            }
        }
    }

    /// Drops what was said of tasks from `from` up to the ring's tail: none of them is still to come.
    pub(super) fn forget_early_from(&mut self, from: u64, out: &mut Vec<Output>) {
        let void: Vec<u64> = self
            .recovery
            .early
            .range(from..self.ring.tail())
            .map(|(offset, _)| *offset)
            .filter(|offset| !self.recovery.rows.contains_key(offset))
            .collect();
        for offset in void {
            self.forget_early(offset, out);
        }
    }

    /// Does what workers said about a task, now that it is there.
    pub(super) fn apply_early(&mut self, offset: u64, out: &mut Vec<Output>) {
        for early in self.recovery.take_early(offset) {
            match early {
                Early::Held { worker, token } => {
                    if !self.hold(worker, offset, token, out) {
                        self.stop_stranger(worker, Offset(offset), token, out);
                    }
                }
                Early::Report {
                    worker,
                    token,
                    outcome,
                } => {
                    self.early_is_done(worker);
                    self.settle(offset, token, outcome, out);
                }
            }
        }
    }

    fn early_is_done(&mut self, worker: WorkerId) {
        self.workers.remove_early(worker);
        // The worker waits for a checkpoint that covers the report, even if the report changed nothing.
        self.mark_reported();
    }

    /// Lets the unsure go when their time is over.
    pub(super) fn end_grace(&mut self, out: &mut Vec<Output>) {
        if self.unsure.is_empty() || self.now < self.recovery.grace_until {
            return;
        }
        while !self.unsure.is_empty() {
            let id = self.unsure.head;
            self.unsure.unlink(&mut self.slab.slots, id);
            self.make_ready(id, out);
        }
    }
}
