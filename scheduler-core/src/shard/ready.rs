//! Which ready task is next: by priority, with aging so that nothing starves, then by when it became ready.

use std::time::Duration;

use super::slab::{List, Slot};
use crate::port::gateway::MOST_AHEAD;
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

    /// How many are before a task that is in here: all of higher priorities, and of its own at most [`MOST_AHEAD`]. What has aged past
    /// it from below is not counted.
    pub(super) fn ahead_of(&self, slots: &[Slot], id: u32) -> u64 {
        let above = usize::from(slots[id as usize].priority.level()) + 1;
        let above: u64 = self.queues[above..]
            .iter()
            .map(|queue| u64::from(queue.len()))
            .sum();
        let most = usize::try_from(MOST_AHEAD).unwrap_or(usize::MAX);
        above + List::before(slots, id).take(most).count() as u64
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
