//! How tasks that only wait make room for those that workers have spoken of.
//!
//! After a crash the window may be full of ready tasks before the tasks are there that workers hold or have reported. Those workers may
//! have no room for anything else: their leases are stopped, and their reports settled, only by a shard that has the tasks. So a full
//! window gives ready tasks to the store, to be loaded again a little later, until everything has come that was spoken of.

use super::slab::{Flags, State};
use super::{Output, Shard, Timestamp};

impl Shard {
    /// Gives ready tasks up to the store if tasks that workers have spoken of do not fit in.
    pub(super) fn make_room_if_needed(&mut self, out: &mut Vec<Output>) {
        if !self.awaits_spoken_of() || self.leaving || self.is_making_room() || self.parked.is_loading() {
            return;
        }
        let (tasks, bytes) = self.free_room();
        if tasks > 0 && bytes > 0 {
            return;
        }
        let until = (self.now + self.policy.window.park_after).max(self.parked.horizon());
        let until = Timestamp::from_millis(until.as_millis().saturating_add(1));
        // One for each that is awaited, those first that would run last.
        let wanted = self.recovery.spoken_of();
        let last = self.ready.last_first(&self.slab.slots);
        let mut chosen: Vec<u32> = last.filter(|id| self.can_wait(*id, until)).take(wanted).collect();
        if let Some(first) = self.oldest_in_the_way(until)
            && !chosen.contains(&first)
        {
            chosen.push(first);
        }
        for id in chosen {
            self.leave_list(id);
            self.wheel.disarm(id);
            self.counts.delayed += 1;
            let slot = self.slot_mut(id);
            slot.state = State::Parked;
            slot.mark = until.as_millis();
            self.yielding.push(id);
            self.mark_dirty();
            self.flush();
            self.changed(id, out);
        }
    }

    /// Whether ready tasks are on their way to the store to make room. Meanwhile no rows are loaded: a page might have them as they were.
    pub(super) fn is_making_room(&self) -> bool {
        !self.yielding.is_empty() || self.saving.as_ref().is_some_and(|saving| saving.makes_room)
    }

    /// Whether workers have spoken of a task that is to come and has not.
    fn awaits_spoken_of(&self) -> bool {
        let tail = self.ring.tail();
        let is_row_to_come = if self.parked.is_recovered() {
            // One that the last owner had in memory by another clock, and that has come due here since.
            self.recovery.is_row_spoken_of(tail) && self.parked.next_wake() <= self.now
        } else {
            self.recovery.spoken_of() > 0
        };
        is_row_to_come || self.recovery.is_spoken_of_from(tail)
    }

    /// The oldest task in the ring, if it alone keeps a ring that is too long from moving on.
    fn oldest_in_the_way(&self, until: Timestamp) -> Option<u32> {
        let oldest = self.ring.first_live();
        let is_long = self.ring.span() >= u64::from(self.policy.window.max_span);
        let id = self.slot_of(oldest).filter(|_| is_long)?;
        (self.slot(id).state == State::Ready && self.can_wait(id, until)).then_some(id)
    }

    /// Whether a ready task can be taken back from the store at `until`.
    fn can_wait(&self, id: u32, until: Timestamp) -> bool {
        let flags = self.slot(id).flags;
        let is_to_end = flags.has(Flags::CANCEL) || flags.has(Flags::EXPIRE);
        !is_to_end && self.hard_deadline(id) >= until
    }
}
