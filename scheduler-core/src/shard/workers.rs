//! Who holds which leases, and how many of each worker's reports are saved.

#![expect(
    clippy::cast_possible_truncation,
    reason = "workers are bounded by leases and sessions"
)]

use super::slab::{Flags, List};
use super::{
    Answer, AttemptOutcome, BTreeMap, HeldLease, LeaseToken, Offset, Output, Shard, Timestamp, WorkerId, slab,
};

/// What a shard knows of a worker. Entries of workers that are gone and hold nothing are used again.
#[derive(Debug)]
struct Entry {
    id: WorkerId,
    /// When it last gave a sign of life.
    seen: Timestamp,
    leases: List,
    attached: bool,
    /// Counts its sessions, so that what was settled for one is not said to the next.
    session: u32,
    /// Reports in this session.
    reports: u64,
    /// How many of them are in a checkpoint that was made.
    covered: u64,
    /// Reports about tasks that have not arrived: no checkpoint covers them yet.
    early: u32,
    /// Whether it is in `reporters`.
    reporting: bool,
    free: bool,
}

/// A worker's reports that a checkpoint covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    worker: u32,
    session: u32,
    count: u64,
    /// How many of them no earlier one covers.
    pub(super) more: u64,
}

#[derive(Debug, Default)]
pub(super) struct Workers {
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: BTreeMap<WorkerId, u32>,
    /// Those with reports that no checkpoint covers.
    reporters: Vec<u32>,
    /// The last one that was asked for: batches come worker by worker.
    last: Option<(WorkerId, u32)>,
}

impl Workers {
    /// The index of a worker, seen at `now`.
    pub(super) fn enter(&mut self, id: WorkerId, now: Timestamp) -> u32 {
        if let Some(index) = self.find(id) {
            self.entries[index as usize].seen = now;
            return index;
        }
        let entry = Entry {
            id,
            seen: now,
            leases: List::EMPTY,
            attached: false,
            session: 0,
            reports: 0,
            covered: 0,
            early: 0,
            reporting: false,
            free: false,
        };
        let index = if let Some(index) = self.free.pop() {
            // Sessions count on, so that a checkpoint under way settles nothing for the entry's new worker.
            let session = self.entries[index as usize].session + 1;
            self.entries[index as usize] = Entry { session, ..entry };
            index
        } else {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        };
        self.index.insert(id, index);
        self.last = Some((id, index));
        index
    }

    fn find(&mut self, id: WorkerId) -> Option<u32> {
        if let Some((last, index)) = self.last
            && last == id
        {
            return Some(index);
        }
        let index = *self.index.get(&id)?;
        self.last = Some((id, index));
        Some(index)
    }

    /// Forgets a worker that is gone, holds nothing and waits for nothing.
    pub(super) fn leave_if_idle(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.attached || entry.free || !entry.leases.is_empty() || entry.reporting || entry.early > 0 {
            return;
        }
        entry.free = true;
        self.index.remove(&entry.id);
        self.free.push(index);
        self.last = None;
    }

    pub(super) fn id(&self, index: u32) -> WorkerId {
        self.entries[index as usize].id
    }

    pub(super) fn is_attached(&mut self, id: WorkerId) -> bool {
        self.find(id)
            .is_some_and(|index| self.entries[index as usize].attached)
    }

    pub(super) fn seen(&self, index: u32) -> Timestamp {
        self.entries[index as usize].seen
    }

    pub(super) fn leases(&mut self, index: u32) -> &mut List {
        &mut self.entries[index as usize].leases
    }

    /// Those that hold leases, and how many.
    pub(super) fn holders(&self) -> impl Iterator<Item = (WorkerId, u32)> {
        let busy = self.entries.iter().filter(|entry| !entry.leases.is_empty());
        busy.map(|entry| (entry.id, entry.leases.len()))
    }

    pub(super) fn alive(&mut self, id: WorkerId, now: Timestamp) -> Answer {
        match self.find(id) {
            Some(index) => {
                self.entries[index as usize].seen = now;
                Answer::Done
            }
            None => Answer::Late,
        }
    }

    pub(super) fn count_report(&mut self, id: WorkerId, now: Timestamp) {
        let index = self.enter(id, now);
        let entry = &mut self.entries[index as usize];
        entry.reports += 1;
        if !entry.reporting {
            entry.reporting = true;
            self.reporters.push(index);
        }
    }

    pub(super) fn add_early(&mut self, id: WorkerId) {
        if let Some(index) = self.find(id) {
            self.entries[index as usize].early += 1;
        }
    }

    pub(super) fn remove_early(&mut self, id: WorkerId) {
        if let Some(index) = self.find(id) {
            self.entries[index as usize].early -= 1;
        }
    }

    /// The reports that a checkpoint made now covers.
    pub(super) fn cover(&mut self) -> Vec<Covered> {
        let mut covered = Vec::new();
        let mut waiting = Vec::new();
        for index in std::mem::take(&mut self.reporters) {
            let entry = &mut self.entries[index as usize];
            if entry.early > 0 {
                waiting.push(index);
                continue;
            }
            entry.reporting = false;
            if entry.reports > entry.covered {
                let more = entry.reports - entry.covered;
                entry.covered = entry.reports;
                covered.push(Covered {
                    worker: index,
                    session: entry.session,
                    count: entry.reports,
                    more,
                });
            }
            self.leave_if_idle(index);
        }
        self.reporters = waiting;
        covered
    }

    /// Who is to be told that a checkpoint is saved: the session that reported, if it is still there.
    pub(super) fn settled(&self, covered: Covered) -> Option<(WorkerId, u64)> {
        let entry = &self.entries[covered.worker as usize];
        (entry.attached && entry.session == covered.session).then_some((entry.id, covered.count))
    }
}

impl Shard {
    pub(super) fn attach(
        &mut self,
        worker: WorkerId,
        held: &[(Offset, LeaseToken)],
        reported: Vec<(Offset, LeaseToken, AttemptOutcome)>,
        out: &mut Vec<Output>,
    ) -> Answer {
        let index = self.workers.enter(worker, self.now);
        let entry = &mut self.workers.entries[index as usize];
        entry.attached = true;
        entry.session += 1;
        entry.reports = 0;
        entry.covered = 0;
        self.recovery.forget_held(worker);
        for (offset, token, outcome) in reported {
            self.report(worker, offset.0, token, outcome, out);
        }
        for (offset, token) in held {
            if self.hold(worker, offset.0, *token, out) {
                if let Some(id) = self.slot_of(offset.0) {
                    self.slot_mut(id).flags.set(Flags::SEEN);
                }
            } else {
                self.stop_stranger(worker, *offset, *token, out);
            }
        }
        self.miss_unseen(index, out);
        Answer::Done
    }

    pub(super) fn detach(&mut self, worker: WorkerId) -> Answer {
        if let Some(index) = self.workers.find(worker) {
            self.workers.entries[index as usize].attached = false;
            self.workers.leave_if_idle(index);
        }
        Answer::Done
    }

    /// Tells a worker that what it holds is not its own.
    pub(super) fn stop_stranger(
        &self,
        worker: WorkerId,
        offset: Offset,
        token: LeaseToken,
        out: &mut Vec<Output>,
    ) {
        let lease = HeldLease {
            partition: self.tenure.shard.partition,
            offset,
            token,
        };
        out.push(Output::Stop { worker, lease });
    }

    /// A lease of this worker that it neither holds nor reported has not reached it.
    fn miss_unseen(&mut self, index: u32, out: &mut Vec<Output>) {
        let mut next = self.workers.leases(index).head;
        while next != slab::NIL {
            let id = next;
            let slot = self.slot_mut(id);
            next = slot.next;
            if slot.flags.has(Flags::SEEN) {
                slot.flags.clear(Flags::SEEN);
            } else {
                self.miss(id, out);
            }
        }
    }
}
