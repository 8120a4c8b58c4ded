//! How tasks end, and how what has changed is saved.

#![expect(
    clippy::cast_possible_truncation,
    reason = "workers are bounded by leases and sessions"
)]

use super::ring::Entry;
use super::slab::{Flags, State};
use super::workers::Covered;
use super::{
    Answer, Arc, BTreeMap, Bytes, Checkpoint, CheckpointId, DeadTask, Offset, Output, PARKED_PAGE,
    ParkedTask, Shard, Slot, Snapshot, Timestamp,
};
use crate::id::Attempt;
use crate::outcome::{DeadReason, Ending, FinishedTask};
use crate::snapshot::{Phase, TaskState};
use crate::task::TaskSpec;
use crate::time::millis;

/// What has ended since the last checkpoint was made.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) finished: Vec<FinishedTask>,
    pub(super) dead: Vec<DeadTask>,
    pub(super) unparked: Vec<Offset>,
    /// With their slots.
    pub(super) revived: Vec<(Offset, u32)>,
    /// Bytes of all of it.
    pub(super) bytes: usize,
    /// When the oldest change must be saved; `None` if nothing has changed.
    due: Option<Timestamp>,
}

/// A checkpoint on its way to the store.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) checkpoint: Arc<Checkpoint>,
    /// The bytes in it.
    pub(super) bytes: usize,
    covered: Vec<Covered>,
    /// Tasks that it parks.
    parked: Vec<(u32, u64)>,
}

impl Unsaved {
    pub(super) fn die(&mut self, task: DeadTask) {
        self.bytes += size_of::<DeadTask>() + task.spec.weight() + task.error.len();
        self.dead.push(task);
    }

    fn finish(&mut self, task: FinishedTask) {
        self.bytes += size_of::<FinishedTask>() + task.output.len();
        self.finished.push(task);
    }

    fn ended(&self) -> usize {
        self.finished.len() + self.dead.len()
    }
}

impl Shard {
    /// Ends a task as a result.
    pub(super) fn end(&mut self, id: u32, ending: Ending, output: Bytes, out: &mut Vec<Output>) {
        self.leave_list(id);
        let slot = *self.slot(id);
        match ending {
            Ending::Succeeded => self.counts.succeeded += 1,
            Ending::Cancelled | Ending::Expired => self.counts.cancelled += 1,
        }
        self.unsaved.finish(FinishedTask {
            offset: Offset(slot.offset),
            ending,
            attempts: Attempt(slot.attempts),
            submitted_at: Timestamp::from_millis(slot.submitted_at),
            started_at: Timestamp::from_millis(slot.started_at),
            finished_at: self.now,
            output,
        });
        self.free(id, out);
    }

    /// Ends a task that is in no list as a dead letter.
    pub(super) fn die(&mut self, id: u32, reason: DeadReason, error: String, out: &mut Vec<Output>) {
        let slot = *self.slot(id);
        self.counts.dead += 1;
        self.unsaved.die(DeadTask {
            offset: Offset(slot.offset),
            reason,
            error,
            attempts: Attempt(slot.attempts),
            submitted_at: Timestamp::from_millis(slot.submitted_at),
            died_at: self.now,
            spec: self.spec_of(id),
        });
        self.free(id, out);
    }

    fn free(&mut self, id: u32, out: &mut Vec<Output>) {
        let Slot {
            offset,
            flags,
            priority,
            ..
        } = *self.slot(id);
        if flags.has(Flags::CARRIED) {
            self.carried.remove(&offset);
        } else {
            self.ring.set(offset, Entry::Done);
        }
        if flags.has(Flags::ROW) {
            self.unsaved.unparked.push(Offset(offset));
        }
        if flags.has(Flags::WATCHED) {
            out.push(Output::Changed(Offset(offset)));
        }
        self.wheel.disarm(id);
        let payload = self.slab.remove(id);
        self.live_bytes -= TaskSpec {
            params: payload.params,
            priority,
            options: payload.options,
        }
        .weight();
        self.mark_dirty();
    }

    pub(super) fn mark_dirty(&mut self) {
        if self.unsaved.due.is_none() {
            // Shards of a node come due together, at whole intervals, so that one transaction saves them all.
            let interval = millis(self.policy.checkpoint.interval).max(1);
            let due = (self.now.as_millis() / interval)
                .saturating_add(1)
                .saturating_mul(interval);
            self.unsaved.due = Some(Timestamp::from_millis(due));
        }
    }

    pub(super) fn flush(&mut self) -> Answer {
        if self.unsaved.due.is_some() {
            self.unsaved.due = Some(self.now);
        }
        Answer::Done
    }

    /// The first checkpoint that covers everything up to now.
    pub fn covering(&self) -> CheckpointId {
        if self.unsaved.due.is_some() {
            self.last_checkpoint.next()
        } else {
            self.last_checkpoint
        }
    }

    /// Whether a checkpoint is on its way to the store.
    pub fn is_saving(&self) -> bool {
        self.saving.is_some()
    }

    /// Whether everything that has happened is in the store.
    pub fn is_saved(&self) -> bool {
        self.unsaved.due.is_none() && self.saving.is_none()
    }

    /// When the next checkpoint must be made.
    pub(super) fn save_due(&self) -> Option<Timestamp> {
        if self.saving.is_some() {
            None
        } else {
            self.unsaved.due
        }
    }

    pub(super) fn saving_bytes(&self) -> usize {
        self.saving.as_ref().map_or(0, |saving| saving.bytes)
    }

    /// Whether so much waits to be saved that no more work is given out.
    pub(super) fn is_congested(&self) -> bool {
        self.saving.is_some()
            && (self.unsaved.ended() >= self.policy.checkpoint.max_ended.max(1) as usize
                || self.unsaved.bytes >= self.policy.window.max_bytes / 2)
    }

    pub(super) fn save_if_due(&mut self, out: &mut Vec<Output>) {
        let Some(due) = self.save_due() else { return };
        let is_full = self.unsaved.ended() >= self.policy.checkpoint.max_ended.max(1) as usize
            || self.unsaved.bytes >= self.policy.window.max_bytes / 4
            || self.ring.span() >= u64::from(self.policy.window.max_span) / 4 * 3
                && self.ring.first_live() > self.ring.base();
        if due <= self.now || is_full {
            self.save(out);
        }
    }

    fn save(&mut self, out: &mut Vec<Output>) {
        let id = self.last_checkpoint.next();
        self.last_checkpoint = id;
        self.unsaved.due = None;
        let mut checkpoint = Checkpoint::empty(self.tenure, id, self.now, Offset::ZERO);
        let parked = self.park(&mut checkpoint.parked);
        self.carry(&mut checkpoint.parked);
        for (offset, slot) in std::mem::take(&mut self.unsaved.revived) {
            checkpoint.revived.push(offset);
            if self.carried.get(&offset.0) == Some(&slot) {
                checkpoint.parked.push(self.row(slot, Timestamp::ZERO));
            }
        }
        checkpoint.resume = Offset(self.ring.first_live());
        checkpoint.state = self.snapshot(checkpoint.resume.0).encode();
        checkpoint.finished = std::mem::take(&mut self.unsaved.finished);
        checkpoint.expire_results = self.now + self.policy.retention.results;
        checkpoint.dead = std::mem::take(&mut self.unsaved.dead);
        checkpoint.expire_dead = self.now + self.policy.retention.dead;
        checkpoint.unparked = std::mem::take(&mut self.unsaved.unparked);
        // A row that comes and goes within one checkpoint does not come at all.
        checkpoint
            .parked
            .retain(|task| !checkpoint.unparked.contains(&task.offset));
        let bytes = std::mem::take(&mut self.unsaved.bytes);
        let checkpoint = Arc::new(checkpoint);
        out.push(Output::Save(checkpoint.clone()));
        self.saving = Some(Saving {
            checkpoint,
            bytes,
            covered: self.workers.cover(),
            parked,
        });
    }

    /// Moves what waits long out of the ring; its slots are freed once the store has it.
    fn park(&mut self, rows: &mut Vec<ParkedTask>) -> Vec<(u32, u64)> {
        let mut parked = Vec::new();
        for id in std::mem::take(&mut self.parking) {
            let Slot {
                offset,
                mark,
                state,
                flags,
                ..
            } = *self.slot(id);
            if state != State::Parked || flags.has(Flags::CARRIED) {
                continue;
            }
            rows.push(self.row(id, Timestamp::from_millis(mark)));
            self.ring.set(offset, Entry::Done);
            self.carried.insert(offset, id);
            self.slot_mut(id).flags.set(Flags::CARRIED);
            parked.push((id, offset));
        }
        parked
    }

    /// Moves the oldest live tasks out of the ring when it has become too wide: one of them does not hold the log.
    fn carry(&mut self, rows: &mut Vec<ParkedTask>) {
        let widest = u64::from(self.policy.window.max_span) / 2;
        let most = self.policy.window.max_tasks as usize / 2;
        loop {
            let offset = self.ring.first_live();
            if self.ring.tail() - offset <= widest || self.carried.len() >= most {
                return;
            }
            let Some(Entry::Live(id)) = self.ring.get(offset) else {
                return;
            };
            rows.push(self.row(id, Timestamp::ZERO));
            self.ring.set(offset, Entry::Done);
            self.carried.insert(offset, id);
            self.slot_mut(id).flags.set(Flags::CARRIED);
        }
    }

    /// The store's row of a live task, which it has from this checkpoint on.
    fn row(&mut self, id: u32, wake_at: Timestamp) -> ParkedTask {
        self.slot_mut(id).flags.set(Flags::ROW);
        let slot = self.slot(id);
        ParkedTask {
            offset: Offset(slot.offset),
            wake_at,
            attempts: Attempt(slot.attempts),
            forgiven: slot.forgiven,
            submitted_at: Timestamp::from_millis(slot.submitted_at),
            spec: self.spec_of(id),
        }
    }

    /// What a replay from `resume` would not know.
    fn snapshot(&self, resume: u64) -> Snapshot {
        let mut snapshot = Snapshot {
            ended: self.ring.ended_runs(resume).collect(),
            ..Snapshot::default()
        };
        let mut workers = BTreeMap::new();
        let carried = self.carried.iter().filter(|(_, id)| {
            let slot = self.slot(**id);
            slot.attempts > 0 && slot.state != State::Parked
        });
        for (offset, id) in carried
            .map(|(offset, id)| (*offset, *id))
            .chain(self.ring.touched(resume))
        {
            let slot = self.slot(id);
            let phase = match slot.state {
                State::Delayed | State::Parked => Phase::Delayed { until: slot.mark },
                State::Leased => {
                    let worker = *workers.entry(slot.worker).or_insert_with(|| {
                        snapshot.workers.push(self.workers.id(slot.worker));
                        (snapshot.workers.len() - 1) as u32
                    });
                    Phase::Leased {
                        worker,
                        epoch: slot.epoch,
                        started_at: slot.started_at,
                    }
                }
                State::Ready | State::Unsure | State::Free => Phase::Ready,
            };
            let Slot {
                attempts,
                forgiven,
                flags,
                ..
            } = *slot;
            snapshot.tasks.push(TaskState {
                offset,
                attempts,
                forgiven,
                cancel: flags.has(Flags::CANCEL),
                phase,
            });
        }
        // Carried tasks with rows of this checkpoint may lie after `resume`.
        snapshot.tasks.sort_unstable_by_key(|task| task.offset);
        snapshot
    }

    pub(super) fn saved(&mut self, id: CheckpointId, out: &mut Vec<Output>) -> Answer {
        let Some(saving) = self.saving.take_if(|saving| saving.checkpoint.id == id) else {
            return Answer::Late;
        };
        for covered in &saving.covered {
            if let Some((worker, count)) = self.workers.settled(*covered) {
                out.push(Output::Settled { worker, count });
            }
        }
        for (id, offset) in saving.parked {
            // Unless somebody wanted it meanwhile, it is the store's alone now.
            if self.carried.get(&offset) == Some(&id) && self.slot(id).state == State::Parked {
                let wake_at = Timestamp::from_millis(self.slot(id).mark);
                self.parked.next_wake = self.parked.next_wake.min(wake_at);
                self.leave_list(id);
                self.carried.remove(&offset);
                let payload = self.slab.remove(id);
                let priority = self.slot(id).priority;
                self.live_bytes -= TaskSpec {
                    params: payload.params,
                    priority,
                    options: payload.options,
                }
                .weight();
            }
        }
        let resume = saving.checkpoint.resume;
        if resume.0 > self.ring.base() {
            self.ring.release(resume.0);
            out.push(Output::Truncate(resume));
        }
        // The buffer of endings is used again, if the driver has let go of the checkpoint.
        if let Ok(mut checkpoint) = Arc::try_unwrap(saving.checkpoint)
            && self.unsaved.finished.capacity() == 0
        {
            checkpoint.finished.clear();
            self.unsaved.finished = checkpoint.finished;
        }
        Answer::Done
    }

    /// When parked tasks must be loaded.
    pub(super) fn parked_due(&self) -> Option<Timestamp> {
        if self.parked.loading || self.parked.next_wake == Timestamp::MAX || self.room().0 == 0 {
            return None;
        }
        Some(self.parked.next_wake - self.policy.window.park_after / 2)
    }

    pub(super) fn load_parked_if_due(&mut self, out: &mut Vec<Output>) {
        if self.parked_due().is_some_and(|due| due <= self.now) {
            self.parked.loading = true;
            out.push(Output::LoadParked {
                after: self.parked.cursor,
                until: self.now + self.policy.window.park_after / 2,
                limit: PARKED_PAGE.min(self.room().0),
            });
        }
    }
}
