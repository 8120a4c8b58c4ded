//! What happens when a time is over. A live task has at most one timer armed: for the first thing that can happen to it.

use super::slab::{Flags, State};
use super::{Bytes, Output, Shard, Timestamp, Wheel};
use crate::outcome::Ending;

impl Shard {
    /// Does everything that is due.
    pub(super) fn fire_timers(&mut self, out: &mut Vec<Output>) {
        self.end_grace(out);
        while let Some(id) = self.wheel.pop(self.now) {
            match self.slot(id).state {
                State::Leased => self.fire_running(id, out),
                State::Ready | State::Delayed => self.fire_waiting(id, out),
                State::Unsure | State::Parked | State::Free => unreachable!("none of them has a timer"),
            }
        }
    }

    fn fire_running(&mut self, id: u32, out: &mut Vec<Output>) {
        let slot = self.slot(id);
        let seen = Timestamp::from_millis(slot.mark).max(self.workers.seen(slot.worker));
        let started = Timestamp::from_millis(slot.started_at);
        let timeouts = &self.policy.timeouts;
        if slot.flags.has(Flags::ADRIFT) && self.now >= Timestamp::from_millis(slot.mark) + self.grace {
            self.requeue(id, out);
        } else if self.now >= started + timeouts.run {
            self.stop(id, out);
            let error = format!(
                "the attempt took longer than the run timeout of {:?}",
                self.policy.timeouts.run
            );
            self.fail(id, error, out);
        } else if self.now >= seen + timeouts.heartbeat {
            let error = format!(
                "the worker gave no sign of life for {:?}",
                self.policy.timeouts.heartbeat
            );
            self.fail(id, error, out);
        } else {
            if self.now >= self.hard_deadline(id) && !self.slot(id).flags.has(Flags::EXPIRE) {
                // The worker may be just about to finish: it is told to stop, and has until its next timeout to say what came of it.
                self.slot_mut(id).flags.set(Flags::EXPIRE);
                self.stop(id, out);
            }
            self.arm_running(id);
        }
    }

    fn fire_waiting(&mut self, id: u32, out: &mut Vec<Output>) {
        let slot = *self.slot(id);
        let now = self.now.as_millis();
        if self.now >= self.hard_deadline(id) {
            self.end(
                id,
                Ending::Expired,
                Bytes::from_static(b"its time was over before an attempt succeeded"),
                out,
            );
        } else if slot.state == State::Delayed && slot.mark <= now {
            self.leave_list(id);
            self.make_ready(id, out);
        } else if slot.state == State::Ready && self.now >= self.start_deadline(id) {
            self.end(
                id,
                Ending::Expired,
                Bytes::from_static(b"it waited longer than the start timeout"),
                out,
            );
        } else if slot.state == State::Delayed {
            // It was kept here for the grace.
            self.counts.delayed -= 1;
            self.delay(id, slot.mark, out);
        } else {
            self.arm_waiting(id);
        }
    }

    /// Arms every timer anew: the times by which they were armed have changed.
    pub(super) fn arm_all(&mut self) {
        let slots = u32::try_from(self.slab.slots.len()).unwrap_or(u32::MAX);
        for id in 0..slots {
            match self.slot(id).state {
                State::Leased => self.arm_running(id),
                // One that is to be ready once its row is written waits for that, and for the end of its time.
                State::Delayed
                    if self.slot(id).flags.has(Flags::WANTED)
                        && self.slot(id).mark <= self.now.as_millis() =>
                {
                    self.arm_hard_deadline(id);
                }
                State::Ready | State::Unsure | State::Delayed => self.arm_waiting(id),
                State::Parked | State::Free => (),
            }
        }
    }

    /// Arms the timer of a leased task.
    pub(super) fn arm_running(&mut self, id: u32) {
        let slot = self.slot(id);
        let timeouts = &self.policy.timeouts;
        let seen = Timestamp::from_millis(slot.mark).max(self.workers.seen(slot.worker));
        let mut at = (seen + timeouts.heartbeat).min(Timestamp::from_millis(slot.started_at) + timeouts.run);
        if !slot.flags.has(Flags::EXPIRE) {
            at = at.min(self.hard_deadline(id));
        }
        if slot.flags.has(Flags::ADRIFT) {
            at = at.min(Timestamp::from_millis(slot.mark) + self.grace);
        }
        self.wheel.arm(id, at);
    }

    /// Arms or disarms the timer of a task that waits in memory.
    pub(super) fn arm_waiting(&mut self, id: u32) {
        let slot = self.slot(id);
        let at = match slot.state {
            State::Delayed => Timestamp::from_millis(slot.mark).min(self.hard_deadline(id)),
            // A worker may have finished it in time, and has until the end of the grace to say so.
            State::Unsure => Timestamp::MAX,
            _ => self.start_deadline(id).min(self.hard_deadline(id)),
        };
        self.arm_unless_never(id, at);
    }

    /// Arms the timer of a task for the end of its time alone.
    pub(super) fn arm_hard_deadline(&mut self, id: u32) {
        self.arm_unless_never(id, self.hard_deadline(id));
    }

    fn arm_unless_never(&mut self, id: u32, at: Timestamp) {
        if at == Timestamp::MAX {
            self.wheel.disarm(id);
        } else {
            self.wheel.arm(id, at);
        }
    }

    /// When the task as a whole must have ended.
    pub(super) fn hard_deadline(&self, id: u32) -> Timestamp {
        let total = self
            .policy
            .timeouts
            .total
            .map_or(Timestamp::MAX, |total| self.begin(id) + total);
        self.options(id)
            .and_then(|options| options.deadline)
            .map_or(total, |deadline| deadline.min(total))
    }

    /// When a task that was never leased must have been.
    fn start_deadline(&self, id: u32) -> Timestamp {
        match self.policy.timeouts.start {
            Some(start) if self.slot(id).attempts == 0 => self.begin(id) + start,
            _ => Timestamp::MAX,
        }
    }

    /// Since when the task could have run.
    fn begin(&self, id: u32) -> Timestamp {
        let submitted = Timestamp::from_millis(self.slot(id).submitted_at);
        let not_before = self.options(id).and_then(|options| options.not_before);
        not_before.map_or(submitted, |not_before| not_before.max(submitted))
    }
}

impl Wheel {
    /// Makes room for slots of a slab of `len`.
    pub(super) fn grow_to(&mut self, len: usize) {
        if len > self.len() {
            self.grow(len.next_power_of_two());
        }
    }
}
