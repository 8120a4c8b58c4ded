//! A worker's session, as the node sees it: how much room the worker has, and what it said about partitions that are not active yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{LeaseToken, Offset, Partition, WorkerId};
use crate::outcome::AttemptOutcome;
use crate::pipeline::settle::Unsaid;
use crate::port::gateway::{Report, WorkerHello};
use crate::time::Timestamp;

/// Numbers the sessions of a node, so that a late word for an old session does not reach a new one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId(pub u64);

/// Most tasks that a session can have room for: a larger credit counts as this.
pub const MAX_CREDIT: u32 = 100_000;

/// Most bytes of reports that a session keeps for partitions whose shards are not active, besides those of its hello.
pub const MAX_DEFERRED: usize = 16 << 20;

/// What a worker holds and has reported of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presented {
    pub(crate) held: Vec<(Offset, LeaseToken)>,
    pub(crate) reported: Vec<(Offset, LeaseToken, AttemptOutcome)>,
}

/// How long a hello may be on its way.
const LATEST: Duration = Duration::from_mins(1);

/// The last hello of each worker that counts them, so that one which was overtaken is told from a new one.
#[derive(Debug, Default)]
pub(crate) struct Hellos(BTreeMap<WorkerId, (u64, Timestamp)>);

impl Hellos {
    /// Whether a later one has come already.
    pub(crate) fn have_overtaken(&self, hello: &WorkerHello) -> bool {
        let last = self.0.get(&hello.worker);
        hello.number > 0 && last.is_some_and(|(number, _)| hello.number < *number)
    }

    pub(crate) fn came(&mut self, now: Timestamp, hello: &WorkerHello) {
        if hello.number > 0 {
            self.0.insert(hello.worker, (hello.number, now));
        }
    }

    /// The worker's session is over; it may have another one.
    pub(crate) fn ended(&mut self, now: Timestamp, worker: WorkerId) {
        if let Some((_, seen)) = self.0.get_mut(&worker) {
            *seen = now;
        }
    }

    /// Forgets workers that left long ago.
    pub(crate) fn forget(&mut self, now: Timestamp, is_here: impl Fn(WorkerId) -> bool) {
        self.0
            .retain(|worker, (_, seen)| now < *seen + LATEST || is_here(*worker));
    }
}

/// A worker's session.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Session {
    pub(crate) worker: WorkerId,
    credit: u32,
    /// Whether leases are wanted for one answer only.
    pub(crate) is_poll: bool,
    pub(crate) draining: bool,
    /// See [`WorkerHello::shares`].
    pub(crate) shares: bool,
    /// Whether the worker was told that tasks wait, and not told otherwise since.
    pub(crate) waits: bool,
    pub(crate) seen: Timestamp,
    /// What was said of partitions whose shards are not active here: told to each as it comes up. Bounded by the size of a hello and
    /// [`MAX_DEFERRED`].
    presented: BTreeMap<Partition, Presented>,
    /// Bytes of reports that were deferred.
    deferred: usize,
    /// Partitions whose shards have left since the session began.
    pub(crate) moved: BTreeSet<Partition>,
    pub(crate) unsaid: Unsaid,
}

impl Session {
    pub(crate) fn new(now: Timestamp, hello: WorkerHello) -> Self {
        let mut presented: BTreeMap<Partition, Presented> = BTreeMap::new();
        for lease in hello.held {
            presented
                .entry(lease.partition)
                .or_default()
                .held
                .push((lease.offset, lease.token));
        }
        for Report { lease, outcome } in hello.reported {
            presented
                .entry(lease.partition)
                .or_default()
                .reported
                .push((lease.offset, lease.token, outcome));
        }
        Self {
            worker: hello.worker,
            credit: 0,
            is_poll: false,
            draining: false,
            shares: hello.shares,
            waits: false,
            seen: now,
            presented,
            deferred: 0,
            moved: BTreeSet::new(),
            unsaid: Unsaid::default(),
        }
    }

    pub(crate) fn poll(now: Timestamp, worker: WorkerId, limit: u32) -> Self {
        Self {
            worker,
            credit: limit,
            is_poll: true,
            draining: false,
            shares: false,
            waits: false,
            seen: now,
            presented: BTreeMap::new(),
            deferred: 0,
            moved: BTreeSet::new(),
            unsaid: Unsaid::default(),
        }
    }

    /// What the worker said of `partition` before its shard was active.
    pub(crate) fn present(&mut self, partition: Partition) -> Presented {
        self.presented.remove(&partition).unwrap_or_default()
    }

    /// Keeps a report for a partition whose shard is not active here; answers whether there was room for it.
    pub(crate) fn defer(&mut self, report: Report) -> bool {
        let Report { lease, outcome } = report;
        self.deferred += size_of::<Report>()
            + match &outcome {
                AttemptOutcome::Succeeded { output } => output.len(),
                AttemptOutcome::Failed { error } | AttemptOutcome::Rejected { error } => error.len(),
                AttemptOutcome::Returned | AttemptOutcome::Stopped => 0,
            };
        if self.deferred > MAX_DEFERRED {
            return false;
        }
        self.presented.entry(lease.partition).or_default().reported.push((
            lease.offset,
            lease.token,
            outcome,
        ));
        true
    }

    /// Room for tasks.
    pub(crate) fn credit(&self) -> u32 {
        if self.draining { 0 } else { self.credit }
    }

    pub(crate) fn add_credit(&mut self, more: u32) {
        self.credit = self.credit.saturating_add(more).min(MAX_CREDIT);
    }

    /// Makes credit that is not used void, and answers how much there was.
    pub(crate) fn recall(&mut self) -> u32 {
        let unused = self.credit();
        self.credit = 0;
        unused
    }

    pub(crate) fn spend(&mut self, tasks: u32) {
        self.credit = self.credit.saturating_sub(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(worker: u128, number: u64) -> WorkerHello {
        WorkerHello {
            worker: WorkerId(worker),
            name: String::new(),
            held: Vec::new(),
            reported: Vec::new(),
            shares: false,
            number,
        }
    }

    #[test]
    fn the_last_hello_of_a_worker_is_remembered_a_while_after_it_has_left() {
        let mut hellos = Hellos::default();
        let begin = Timestamp::from_millis(1_000);
        hellos.came(begin, &hello(1, 7));
        assert!(hellos.have_overtaken(&hello(1, 6)));
        assert!(!hellos.have_overtaken(&hello(1, 8)) && !hellos.have_overtaken(&hello(2, 1)));
        assert!(
            !hellos.have_overtaken(&hello(1, 0)),
            "who does not count is believed"
        );
        let left = begin + LATEST * 2;
        hellos.forget(left, |_| true);
        hellos.ended(left, WorkerId(1));
        hellos.forget(left + LATEST / 2, |_| false);
        assert!(hellos.have_overtaken(&hello(1, 6)));
        hellos.forget(left + LATEST, |_| false);
        assert!(!hellos.have_overtaken(&hello(1, 6)));
    }
}
