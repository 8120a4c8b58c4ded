//! A shard with nothing to do gives back the memory that a busy time has taken; it stays where it is, and takes memory again as tasks come.

use std::time::Duration;

use super::ring::Ring;
use super::slab::Slab;
use super::{Answer, Shard, Timestamp};

/// How long nothing has been kept in the memory before it is given back: much longer than what lies between tasks that come now and then.
const REST_AFTER: Duration = Duration::from_mins(1);

impl Shard {
    /// When there is memory to give back, if nothing comes until then.
    pub(super) fn rest_due(&self) -> Option<Timestamp> {
        let has_nothing = self.slab.live() == 0 && self.ring.span() == 0 && self.is_saved();
        (has_nothing && self.slab.capacity() > 0).then(|| self.saved_at + REST_AFTER)
    }

    /// Gives memory back if it is time. Whoever has something to do does not ask: nothing but the time has passed.
    pub(super) fn rest(&mut self) -> Answer {
        if self.rest_due().is_none_or(|due| self.now < due) {
            return Answer::Done;
        }
        debug_assert!(self.carried.is_empty() && self.unsure.is_empty() && self.ready.len() == 0);
        self.slab = Slab::new();
        self.ring = Ring::new(self.ring.tail());
        self.wheel.rest();
        self.unsaved.rest();
        self.spare = Vec::new();
        self.parking = Vec::new();
        self.yielding = Vec::new();
        Answer::Done
    }
}
