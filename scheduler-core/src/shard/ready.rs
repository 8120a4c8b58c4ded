//! Which ready task is next: by priority, with aging so that nothing starves, then by when it became ready.

use std::time::Duration;

use super::slab::{List, Slot};
use crate::task::Priority;
use crate::time::{Timestamp, millis};

/// One first-in-first-out queue for each priority.
#[derive(Debug)]
pub(super) struct Ready {
    queues: [List; Priority::COUNT],
    occupied: u16,
    len: u32,
    aging: u64,
}

impl Ready {
    pub(super) fn new(aging: Duration) -> Self {
        Self {
            queues: [List::EMPTY; Priority::COUNT],
            occupied: 0,
            len: 0,
            aging: millis(aging).max(1),
        }
    }

    pub(super) fn set_aging(&mut self, aging: Duration) {
        self.aging = millis(aging).max(1);
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn push(&mut self, slots: &mut [Slot], id: u32) {
        let level = slots[id as usize].priority.level();
        self.queues[level as usize].push_back(slots, id);
        self.occupied |= 1 << level;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, slots: &mut [Slot], id: u32) {
        let level = slots[id as usize].priority.level();
        let queue = &mut self.queues[level as usize];
        queue.unlink(slots, id);
        if queue.is_empty() {
            self.occupied &= !(1 << level);
        }
        self.len -= 1;
    }

    /// All of them, those first that would be the last to be given out if none aged.
    pub(super) fn last_first<'a>(&'a self, slots: &'a [Slot]) -> impl Iterator<Item = u32> + 'a {
        self.queues.iter().flat_map(|queue| queue.iter_back(slots))
    }

    /// The next task; it stays in its queue.
    pub(super) fn peek(&self, slots: &[Slot], now: Timestamp) -> Option<u32> {
        if self.occupied == 0 {
            return None;
        }
        let highest = 15 - self.occupied.leading_zeros() as usize;
        if self.occupied.is_power_of_two() {
            return Some(self.queues[highest].head);
        }
        // A queue's head has waited longest of its queue: whoever has aged past the others is a head.
        (0..=highest)
            .rev()
            .filter(|level| !self.queues[*level].is_empty())
            .map(|level| {
                let head = self.queues[level].head;
                let waited = now.as_millis().saturating_sub(slots[head as usize].mark);
                (level as u64 + waited / self.aging, head)
            })
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map(|(_, head)| head)
    }
}
