//! A hierarchical timer wheel (Varghese and Lauck, 1987) over small integers.
//!
//! Ids are indices into a slab; the wheel keeps one link for each, so arming and disarming are a few writes and no allocation.
//! Level 0 has slots of 1 ms; each level above is 64 times coarser. An entry of a coarse slot moves down when its slot begins.

#![expect(
    clippy::cast_possible_truncation,
    reason = "levels, slots and places are small by construction"
)]

use crate::time::Timestamp;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 7;
/// About 135 years: the top level's slots but the one begun, so that what lies there is never in the slot of `now`.
/// A timer beyond it fires here, and whoever armed it finds that it is early.
const HORIZON: u64 = (SLOTS as u64 - 2) << (BITS * (LEVELS as u32 - 1));

const NIL: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Wheel {
    /// Every armed timer is at or after it.
    now: u64,
    armed: usize,
    occupied: [u64; LEVELS],
    heads: Box<[u32]>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    at: u64,
    next: u32,
    prev: u32,
    /// `level * SLOTS + slot`, or [`UNARMED`].
    place: u16,
}

impl Wheel {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now: now.as_millis(),
            armed: 0,
            occupied: [0; LEVELS],
            heads: vec![NIL; LEVELS * SLOTS].into_boxed_slice(),
            links: Vec::new(),
        }
    }

    /// Ids below it can be armed.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Makes room for ids below `len`.
    pub(super) fn grow(&mut self, len: usize) {
        self.links.resize(
            len,
            Link {
                at: 0,
                next: NIL,
                prev: NIL,
                place: UNARMED,
            },
        );
    }

    /// Gives back the room for ids; no timer is armed.
    pub(super) fn rest(&mut self) {
        debug_assert!(self.armed == 0, "a timer is armed");
        self.links = Vec::new();
    }

    /// Arms the timer of `id`, or moves it.
    pub(super) fn arm(&mut self, id: u32, at: Timestamp) {
        self.disarm(id);
        self.links[id as usize].at = at.as_millis().clamp(self.now, self.now.saturating_add(HORIZON));
        self.link(id);
        self.armed += 1;
    }

    /// Disarms the timer of `id`, if it is armed.
    pub(super) fn disarm(&mut self, id: u32) {
        if self.links[id as usize].place != UNARMED {
            self.unlink(id);
            self.armed -= 1;
        }
    }

    /// The earliest moment at which [`pop`](Self::pop) may have something to do: never late, perhaps early.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.first().map(|(_, _, begin)| Timestamp::from_millis(begin))
    }

    /// Disarms and answers one timer that is due at `now`.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<u32> {
        let now = now.as_millis().max(self.now);
        if self.armed == 0 {
            self.now = now;
            return None;
        }
        while let Some((level, slot, begin)) = self.first() {
            if begin > now {
                break;
            }
            self.now = begin;
            let place = level * SLOTS + slot;
            if level == 0 {
                let id = self.heads[place];
                self.unlink(id);
                self.armed -= 1;
                return Some(id);
            }
            // The coarse slot has begun: relative to the new `now` all of it belongs further down.
            while self.heads[place] != NIL {
                let id = self.heads[place];
                self.unlink(id);
                self.link(id);
            }
        }
        self.now = now;
        None
    }

    /// The first occupied slot in time: level, slot, and the moment when it begins.
    fn first(&self) -> Option<(usize, usize, u64)> {
        if self.armed == 0 {
            return None;
        }
        // What is in a level shares all higher digits with `now`, so the lowest occupied level has the earliest.
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = BITS * level as u32;
        let here = (self.now >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
        let slot = (here + ahead) as usize % SLOTS;
        let begin = ((self.now >> shift) + u64::from(ahead)) << shift;
        Some((level, slot, begin.max(self.now)))
    }

    fn link(&mut self, id: u32) {
        let at = self.links[id as usize].at;
        let level = (((at ^ self.now) | (SLOTS as u64 - 1)).ilog2() / BITS) as usize;
        let level = level.min(LEVELS - 1);
        let slot = (at >> (BITS * level as u32)) as usize % SLOTS;
        let place = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[place], id);
        if head != NIL {
            self.links[head as usize].prev = id;
        }
        self.occupied[level] |= 1 << slot;
        let link = &mut self.links[id as usize];
        link.next = head;
        link.prev = NIL;
        link.place = place as u16;
    }

    fn unlink(&mut self, id: u32) {
        let Link {
            next, prev, place, ..
        } = self.links[id as usize];
        self.links[id as usize].place = UNARMED;
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        if prev == NIL {
            self.heads[place as usize] = next;
            if next == NIL {
                self.occupied[place as usize / SLOTS] &= !(1 << (place as usize % SLOTS));
            }
        } else {
            self.links[prev as usize].next = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Disarm(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let far = prop_oneof![0..10u64, 0..5_000u64, 0..10_000_000u64, Just(u64::MAX)];
        prop_oneof![
            (0..32u32, far.clone()).prop_map(|(id, ahead)| Step::Arm(id, ahead)),
            (0..32u32).prop_map(Step::Disarm),
            prop_oneof![0..3u64, 0..200u64, 0..100_000u64, 0..20_000_000u64].prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn timers_fire_when_a_sorted_map_says_so(start in 0..u64::MAX / 4, steps in prop::collection::vec(step(), 1..200)) {
            let mut now = start;
            let mut wheel = Wheel::new(Timestamp::from_millis(now));
            wheel.grow(32);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Arm(id, ahead) => {
                        let at = now.saturating_add(ahead);
                        wheel.arm(id, Timestamp::from_millis(at));
                        model.insert(id, at);
                    }
                    Step::Disarm(id) => {
                        wheel.disarm(id);
                        model.remove(&id);
                    }
                    Step::Advance(by) => {
                        let due = wheel.next_due();
                        if let Some(first) = model.values().min() {
                            prop_assert!(due.expect("something is armed").as_millis() <= *first);
                        } else {
                            prop_assert_eq!(due, None);
                        }
                        now += by;
                        let mut fired = Vec::new();
                        while let Some(id) = wheel.pop(Timestamp::from_millis(now)) {
                            fired.push(id);
                        }
                        let times: Vec<u64> = fired.iter().map(|id| model[id]).collect();
                        prop_assert!(times.is_sorted(), "fired in order of time: {:?}", times);
                        prop_assert!(times.iter().all(|at| *at <= now));
                        model.retain(|id, _| !fired.contains(id));
                        prop_assert!(model.values().all(|at| *at > now), "late: {:?}", model);
                    }
                }
            }
        }
    }
}
