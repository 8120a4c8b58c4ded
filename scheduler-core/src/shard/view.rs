//! What can be asked about a shard's tasks.

use super::ring::Entry;
use super::slab::{Flags, State};
use super::{Bytes, DeadTask, Offset, Shard, Timestamp};
use crate::id::{Attempt, WorkerId};
use crate::outcome::FinishedTask;
use crate::port::gateway::{TaskState, TaskView, Waiting};
use crate::task::Priority;

/// What a shard knows of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It is live.
    Live(TaskView),
    /// It has ended, and the store may not have it yet.
    Finished(FinishedTask),
    /// It is a dead letter, and the store may not have it yet.
    Dead(DeadTask),
    /// It is not in memory: it ended and is saved, or is parked.
    Elsewhere,
    /// It has not arrived yet.
    Ahead,
}

enum Ended<'a> {
    Finished(&'a FinishedTask),
    Dead(&'a DeadTask),
}

/// How many tasks a shard holds, and how many have ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Ready to be leased.
    pub ready: u64,
    /// Waiting for their time in memory.
    pub delayed: u64,
    /// Leased.
    pub running: u64,
    /// Ended well, since the log's beginning.
    pub succeeded: u64,
    /// Died, since the log's beginning; one that was redriven and died again counts twice.
    pub died: u64,
    /// Cancelled, expired or duplicates, since the log's beginning.
    pub cancelled: u64,
    /// Ended well since the shard's activation, by an attempt whose beginning is known.
    pub timed: u64,
    /// How long those attempts took, all together, in milliseconds.
    pub busy_ms: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            ready: self.ready + other.ready,
            delayed: self.delayed + other.delayed,
            running: self.running + other.running,
            succeeded: self.succeeded + other.succeeded,
            died: self.died + other.died,
            cancelled: self.cancelled + other.cancelled,
            timed: self.timed + other.timed,
            busy_ms: self.busy_ms + other.busy_ms,
        }
    }
}

impl Shard {
    /// What is known of the task at `offset`.
    pub fn find(&self, offset: Offset) -> Found {
        if let Some(id) = self.slot_of(offset.0) {
            return Found::Live(self.view(id));
        }
        match self.ring.get(offset.0) {
            None if offset.0 >= self.ring.tail() => Found::Ahead,
            _ => self.find_ended(offset),
        }
    }

    fn find_ended(&self, offset: Offset) -> Found {
        let saving = self.saving.as_ref().map(|saving| &*saving.checkpoint);
        let mut finished = self
            .unsaved
            .finished
            .iter()
            .rev()
            .chain(saving.iter().flat_map(|c| c.finished.iter().rev()));
        if let Some(task) = finished.find(|task| task.offset == offset) {
            return Found::Finished(task.clone());
        }
        let mut dead = self
            .unsaved
            .dead
            .iter()
            .rev()
            .chain(saving.iter().flat_map(|c| c.dead.iter().rev()));
        dead.find(|task| task.offset == offset)
            .map_or(Found::Elsewhere, |task| Found::Dead(task.clone()))
    }

    fn view(&self, id: u32) -> TaskView {
        let slot = self.slot(id);
        let (state, next) = match slot.state {
            State::Leased => (TaskState::Running, None),
            State::Delayed | State::Parked => (TaskState::Delayed, Some(Timestamp::from_millis(slot.mark))),
            State::Ready | State::Unsure | State::Free => (TaskState::Queued, None),
        };
        let notes = if slot.flags.has(Flags::NOTES) {
            self.slab.notes.get(&id)
        } else {
            None
        };
        let notes = notes.cloned().unwrap_or_default();
        TaskView {
            id: self.tenure.shard.task(Offset(slot.offset)),
            state,
            attempts: Attempt(slot.attempts),
            priority: Some(slot.priority),
            submitted_at: Timestamp::from_millis(slot.submitted_at),
            started_at: (slot.started_at > 0).then_some(Timestamp::from_millis(slot.started_at)),
            finished_at: None,
            next_attempt_at: next,
            progress: notes.progress,
            output: Bytes::new(),
            error: notes.error,
            dead_reason: None,
            params: Some(self.slab.payloads[id as usize].params.clone()),
            waiting: None,
        }
    }

    /// Why the task at `offset` does not run, as far as this shard knows; `None` if it runs.
    ///
    /// Of one that is not in memory it takes for granted that it has not ended.
    pub fn waiting(&self, offset: Offset) -> Option<Waiting> {
        let tail = self.ring.tail();
        let Some(id) = self.slot_of(offset.0) else {
            return Some(match offset.0.checked_sub(tail) {
                Some(ahead) => Waiting::InLog { ahead },
                None => Waiting::InStore,
            });
        };
        Some(match self.slot(id).state {
            State::Leased => return None,
            State::Delayed | State::Parked => Waiting::NotDue,
            State::Unsure => Waiting::PastOwner,
            State::Ready | State::Free => Waiting::Behind {
                ahead: self.ready.ahead_of(&self.slab.slots, id),
            },
        })
    }

    /// Live and unsaved tasks with offsets below `before` in a `wanted` state, the highest first, at most `limit`.
    pub fn list(&self, before: Offset, limit: usize, wanted: impl Fn(TaskState) -> bool) -> Vec<Found> {
        let saving = self.saving.as_ref().map(|saving| &*saving.checkpoint);
        let finished = self
            .unsaved
            .finished
            .iter()
            .chain(saving.iter().flat_map(|c| &c.finished));
        let finished = finished
            .filter(|task| wanted(task.ending.into()))
            .map(|task| (task.offset.0, Ended::Finished(task)));
        let dead = self
            .unsaved
            .dead
            .iter()
            .chain(saving.iter().flat_map(|c| &c.dead));
        let dead = dead
            .filter(|_| wanted(TaskState::Dead))
            .map(|task| (task.offset.0, Ended::Dead(task)));
        let mut ended: Vec<(u64, Ended)> = finished
            .chain(dead)
            .filter(|(offset, _)| *offset < before.0)
            .collect();
        ended.sort_unstable_by_key(|(offset, _)| *offset);

        let in_ring = self
            .ring
            .iter_back(before.0)
            .filter_map(|(offset, entry)| match entry {
                Entry::Live(id) => Some((offset, id)),
                Entry::Done => None,
            });
        let carried = self
            .carried
            .range(..before.0)
            .rev()
            .map(|(offset, id)| (*offset, *id));
        // Carried tasks are few and nearly always older: a sort of the rest would cost more than this merge.
        let mut in_ring = in_ring.filter(|(_, id)| wanted(self.state_of(*id))).peekable();
        let mut carried = carried.filter(|(_, id)| wanted(self.state_of(*id))).peekable();
        let mut list = Vec::new();
        while list.len() < limit {
            let live = in_ring.peek().max(carried.peek()).copied();
            let last_ended = ended.last().map(|(offset, _)| *offset);
            match live {
                Some((offset, id)) if last_ended.is_none_or(|ended| offset >= ended) => {
                    list.push(Found::Live(self.view(id)));
                    in_ring.next_if(|(o, _)| *o == offset);
                    carried.next_if(|(o, _)| *o == offset);
                }
                _ => match ended.pop() {
                    Some((_, Ended::Finished(task))) => list.push(Found::Finished(task.clone())),
                    Some((_, Ended::Dead(task))) => list.push(Found::Dead(task.clone())),
                    None => break,
                },
            }
        }
        list
    }

    /// Workers that hold leases, and how many each holds.
    pub fn holders(&self) -> impl Iterator<Item = (WorkerId, u32)> {
        self.workers.holders()
    }

    fn state_of(&self, id: u32) -> TaskState {
        match self.slot(id).state {
            State::Leased => TaskState::Running,
            State::Delayed | State::Parked => TaskState::Delayed,
            State::Ready | State::Unsure | State::Free => TaskState::Queued,
        }
    }

    /// How many tasks there are of each kind.
    pub fn counts(&self) -> Counts {
        let totals = &self.unsaved.totals;
        Counts {
            ready: u64::from(self.ready.len() + self.unsure.len()),
            succeeded: totals.succeeded,
            died: totals.died,
            cancelled: totals.cancelled,
            ..self.counts
        }
    }

    /// The priority of the next ready task, and since when it waits.
    pub fn next_ready(&self) -> Option<(Priority, Timestamp)> {
        let id = self.ready.peek(&self.slab.slots, self.now)?;
        Some((self.slot(id).priority, Timestamp::from_millis(self.slot(id).mark)))
    }
}
