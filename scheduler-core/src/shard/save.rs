//! How tasks end, and how what has changed is saved.

#![expect(
    clippy::cast_possible_truncation,
    reason = "workers are bounded by leases and sessions"
)]

use std::time::Duration;

use super::ring::Entry;
use super::slab::{Flags, State};
use super::workers::Covered;
use super::{
    Answer, Arc, BTreeMap, Bytes, Checkpoint, CheckpointId, DeadTask, Offset, Output, Shard, Slot, Snapshot,
    Timestamp, Totals, WorkerId,
};
use crate::id::Attempt;
use crate::key::SeenKey;
use crate::outcome::{DeadReason, Ending, FinishedTask};
use crate::policy::Settle;
use crate::snapshot::{Phase, TaskState};
use crate::task::TaskSpec;
use crate::time::millis;

/// Reports that settle by commit wait so long for others, with which one checkpoint is made.
const COMMIT_WITHIN: Duration = Duration::from_millis(2);

/// So often an owner saves whose ready tasks nobody comes for, though nothing has changed.
const PROVE: Duration = Duration::from_secs(30);
/// So often one saves that has nothing to do.
const PROVE_IDLE: Duration = Duration::from_mins(5);

/// What has ended since the last checkpoint was made.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) finished: Vec<FinishedTask>,
    pub(super) dead: Vec<DeadTask>,
    pub(super) unparked: Vec<Offset>,
    pub(super) keys: Vec<SeenKey>,
    pub(super) revived: Vec<Offset>,
    /// Live tasks outside the ring, with their slots, whose rows are to say that they are in memory.
    pub(super) rows: Vec<(u64, u32)>,
    /// Bytes of all of it.
    pub(super) bytes: usize,
    /// What has ended since the log's beginning, all of that included.
    pub(super) totals: Totals,
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
    /// Tasks that it parks, with their slots.
    parked: Vec<(u64, u32)>,
    /// See [`Unsaved::rows`].
    rows: Vec<(u64, u32)>,
    /// Whether ready tasks are among those that it parks.
    pub(super) makes_room: bool,
}

impl Unsaved {
    pub(super) fn new(totals: Totals) -> Self {
        Self {
            totals,
            ..Self::default()
        }
    }

    pub(super) fn die(&mut self, task: DeadTask) {
        self.totals.died += 1;
        self.bytes += weight(&task);
        // A checkpoint says of each task what has become of it in the end.
        self.revived.retain(|offset| *offset != task.offset);
        self.dead.push(task);
    }

    pub(super) fn revive(&mut self, offset: Offset) {
        self.totals.revived += 1;
        self.unparked.retain(|other| *other != offset);
        if let Some(at) = self.dead.iter().position(|task| task.offset == offset) {
            let task = self.dead.remove(at);
            self.bytes -= weight(&task);
        }
        self.revived.push(offset);
    }

    pub(super) fn finish(&mut self, task: FinishedTask) {
        match task.ending {
            Ending::Succeeded => self.totals.succeeded += 1,
            Ending::Cancelled | Ending::Duplicate | Ending::Expired => self.totals.cancelled += 1,
        }
        self.bytes += size_of::<FinishedTask>() + task.output.len();
        self.finished.push(task);
    }

    /// Gives back room; everything is saved.
    pub(super) fn rest(&mut self) {
        self.finished.shrink_to_fit();
        self.dead.shrink_to_fit();
        self.unparked.shrink_to_fit();
        self.keys.shrink_to_fit();
        self.revived.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    fn ended(&self) -> usize {
        self.finished.len() + self.dead.len()
    }
}

fn weight(task: &DeadTask) -> usize {
    size_of::<DeadTask>() + task.spec.weight() + task.error.len()
}

impl Shard {
    /// Ends a task as a result.
    pub(super) fn end(&mut self, id: u32, ending: Ending, output: Bytes, out: &mut Vec<Output>) {
        self.leave_list(id);
        let slot = *self.slot(id);
        // Of what an earlier owner leased and did not save, nobody knows when it began.
        if ending == Ending::Succeeded && slot.started_at > 0 {
            self.counts.timed += 1;
            self.counts.busy_ms += self.now.as_millis().saturating_sub(slot.started_at);
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
        let Slot { offset, flags, .. } = *self.slot(id);
        if flags.has(Flags::CARRIED) {
            self.carried.remove(&offset);
        } else {
            self.ring.set(offset, Entry::Done);
        }
        if flags.has(Flags::ROW) {
            self.unsaved.unparked.push(Offset(offset));
            self.parked.ended(offset);
        }
        if self.watch_all || flags.has(Flags::WATCHED) {
            out.push(Output::Changed(Offset(offset)));
        }
        self.empty(id);
        self.mark_dirty();
    }

    /// Frees the slot of a task that is in no list and has no entry.
    pub(super) fn empty(&mut self, id: u32) {
        self.wheel.disarm(id);
        let priority = self.slot(id).priority;
        let payload = self.slab.remove(id);
        self.live_bytes -= TaskSpec {
            params: payload.params,
            priority,
            options: payload.options,
        }
        .weight();
    }

    pub(super) fn mark_dirty(&mut self) {
        if self.unsaved.due.is_none() {
            self.unsaved.due = Some(self.next_whole(self.policy.checkpoint.interval));
        }
    }

    /// Something has changed that a worker waits for.
    pub(super) fn mark_reported(&mut self) {
        self.mark_dirty();
        if self.policy.settle == Settle::Commit {
            let soon = self.next_whole(COMMIT_WITHIN);
            self.unsaved.due = self.unsaved.due.map(|due| due.min(soon));
        }
    }

    /// The end of the current interval. Shards of a node come due together, so that one transaction saves them all.
    fn next_whole(&self, interval: Duration) -> Timestamp {
        whole_after(self.now, interval)
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

    /// When an owner whose tasks nobody comes for, or who has none, is to find out whether it was replaced. Only the store
    /// knows, and workers go to whoever it names, with reports of tasks that this owner takes for its own: without a save
    /// they would wait for each other.
    pub(super) fn doubt_due(&self) -> Option<Timestamp> {
        if self.counts.running > 0 || !self.is_saved() {
            return None;
        }
        if self.ready.len() > 0 {
            return Some(self.saved_at + PROVE);
        }
        Some(whole_after(self.saved_at, PROVE_IDLE))
    }

    pub(super) fn prove_tenure_if_due(&mut self) {
        if self.doubt_due().is_some_and(|due| due <= self.now) {
            self.mark_dirty();
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
                && (self.ring.first_live() > self.ring.base() || self.is_too_wide());
        if due <= self.now || is_full {
            self.save(out);
        }
    }

    fn save(&mut self, out: &mut Vec<Output>) {
        let id = self.last_checkpoint.next();
        self.last_checkpoint = id;
        let mut checkpoint = Checkpoint::empty(self.tenure, id, self.now, Offset::ZERO);
        let makes_room = !self.yielding.is_empty();
        let parked = self.park(&mut checkpoint.parked);
        self.carry();
        self.unsaved.due = None;
        let mut rows = std::mem::take(&mut self.unsaved.rows);
        rows.sort_unstable();
        rows.dedup();
        // One that makes room has its row already.
        let is_here = |id: u32| !makes_room || self.slot(id).state != State::Parked;
        rows.retain(|(offset, id)| self.carried.get(offset) == Some(id) && is_here(*id));
        for (_, id) in &rows {
            checkpoint.parked.push(self.row(*id, Timestamp::ZERO));
        }
        checkpoint.resume = Offset(self.ring.first_live());
        checkpoint.state = self.snapshot(checkpoint.resume.0).encode();
        checkpoint.finished = std::mem::replace(&mut self.unsaved.finished, std::mem::take(&mut self.spare));
        checkpoint.expire_results = self.now + self.policy.retention.results;
        checkpoint.dead = std::mem::take(&mut self.unsaved.dead);
        checkpoint.expire_dead = self.now + self.policy.retention.dead;
        checkpoint.revived = std::mem::take(&mut self.unsaved.revived);
        checkpoint.keys = std::mem::take(&mut self.unsaved.keys);
        checkpoint.unparked = std::mem::take(&mut self.unsaved.unparked);
        let bytes = std::mem::take(&mut self.unsaved.bytes);
        let checkpoint = Arc::new(checkpoint);
        out.push(Output::Save(checkpoint.clone()));
        self.saving = Some(Saving {
            checkpoint,
            bytes,
            covered: self.workers.cover(),
            parked,
            rows,
            makes_room,
        });
    }

    /// What a replay from `resume` would not know.
    fn snapshot(&self, resume: u64) -> Snapshot {
        let mut snapshot = Snapshot {
            totals: self.totals(),
            unsure_below: self.recovery.unsure_below(self.now),
            ended: self.ring.ended_runs(resume).collect(),
            ..Snapshot::default()
        };
        let mut workers = BTreeMap::new();
        let mut index_of = |worker: WorkerId, all: &mut Vec<WorkerId>| {
            *workers.entry(worker).or_insert_with(|| {
                all.push(worker);
                (all.len() - 1) as u32
            })
        };
        let carried = self.carried.iter().filter(|(_, id)| {
            let slot = self.slot(**id);
            let is_as_its_row_says = slot.attempts == 0
                && slot.forgiven == 0
                && slot.state != State::Delayed
                && !slot.flags.has(Flags::OPTIONS);
            slot.state != State::Parked && !is_as_its_row_says
        });
        for (offset, id) in carried
            .map(|(offset, id)| (*offset, *id))
            .chain(self.ring.touched(resume))
        {
            let slot = self.slot(id);
            let phase = match slot.state {
                State::Delayed | State::Parked => Phase::Delayed { until: slot.mark },
                State::Leased => Phase::Leased {
                    worker: index_of(self.workers.id(slot.worker), &mut snapshot.workers),
                    epoch: slot.epoch,
                    started_at: slot.started_at,
                },
                State::Ready | State::Unsure | State::Free => Phase::Ready,
            };
            snapshot.tasks.push(TaskState {
                offset,
                attempts: slot.attempts,
                forgiven: slot.forgiven,
                cancel: slot.flags.has(Flags::CANCEL),
                phase,
            });
        }
        // While the log is replayed and the rows are loaded, what is still to come is as the last checkpoint said.
        let tail = self.ring.tail();
        let ahead = self.recovery.ended.iter().filter(|(_, end)| *end > tail);
        snapshot
            .ended
            .extend(ahead.map(|(first, end)| (tail.max(*first), *end)));
        let ahead = self.recovery.tasks.iter().filter(|task| task.offset >= tail);
        for task in ahead.chain(self.recovery.rows.values()) {
            let mut task = *task;
            if let Phase::Leased { worker, .. } = &mut task.phase {
                *worker = index_of(self.recovery.workers[*worker as usize], &mut snapshot.workers);
            }
            snapshot.tasks.push(task);
        }
        snapshot.tasks.sort_unstable_by_key(|task| task.offset);
        snapshot
    }

    pub(super) fn saved(&mut self, id: CheckpointId, out: &mut Vec<Output>) -> Answer {
        let Some(saving) = self.saving.take_if(|saving| saving.checkpoint.id == id) else {
            return Answer::Late;
        };
        self.saved_at = self.now;
        for covered in &saving.covered {
            if let Some((worker, count)) = self.workers.settled(*covered) {
                let more = covered.more;
                out.push(Output::Settled { worker, count, more });
            }
        }
        self.release_parked(&saving.parked);
        self.release_wanted(&saving.rows, out);
        let resume = saving.checkpoint.resume.0;
        if resume > self.ring.base() {
            self.ring.release(resume);
        }
        if resume > self.truncated {
            self.truncated = resume;
            out.push(Output::Truncate(Offset(resume)));
        }
        // The buffer of endings is used again, if the driver has let go of the checkpoint.
        if let Ok(mut checkpoint) = Arc::try_unwrap(saving.checkpoint) {
            checkpoint.finished.clear();
            self.spare = checkpoint.finished;
        }
        Answer::Done
    }
}

/// The end of the interval that `at` is in.
fn whole_after(at: Timestamp, interval: Duration) -> Timestamp {
    let interval = millis(interval).max(1);
    let end = (at.as_millis() / interval)
        .saturating_add(1)
        .saturating_mul(interval);
    Timestamp::from_millis(end)
}
