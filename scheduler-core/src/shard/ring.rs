//! The dictionary's index: one small entry for each offset from the resume offset on.

#![expect(
    clippy::cast_possible_truncation,
    reason = "an index is masked by the capacity"
)]

/// What is known of an offset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// Ended, or kept elsewhere.
    Done,
    /// Live, in this slot of the slab.
    Live(u32),
}

impl Entry {
    const DONE: u32 = u32::MAX;

    fn pack(self) -> u32 {
        match self {
            Self::Done => Self::DONE,
            Self::Live(slot) => slot,
        }
    }

    fn unpack(word: u32) -> Self {
        if word == Self::DONE {
            Self::Done
        } else {
            Self::Live(word)
        }
    }
}

/// A ring of entries for the offsets `base..tail`. It grows by doubling and never shrinks by itself.
#[derive(Debug)]
pub(super) struct Ring {
    base: u64,
    tail: u64,
    entries: Vec<u32>,
    /// A bit for each entry that is not [`Entry::Live`].
    ended: Vec<u64>,
    /// A bit for each live entry that a replay of the log would not bring back as it is.
    touched: Vec<u64>,
}

impl Ring {
    pub(super) fn new(base: u64) -> Self {
        Self {
            base,
            tail: base,
            entries: Vec::new(),
            ended: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// The first offset that is not done.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// One past the last offset.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    pub(super) fn span(&self) -> u64 {
        self.tail - self.base
    }

    pub(super) fn get(&self, offset: u64) -> Option<Entry> {
        (self.base..self.tail)
            .contains(&offset)
            .then(|| Entry::unpack(self.entries[self.at(offset)]))
    }

    /// Makes `offset` the tail; what is skipped is done.
    pub(super) fn skip_to(&mut self, offset: u64) {
        debug_assert!(offset >= self.tail, "the log goes forward");
        while self.tail < offset {
            self.push(Entry::Done);
        }
    }

    /// Makes `offset` base and tail of a ring without live entries, however far away it is.
    pub(super) fn jump(&mut self, offset: u64) {
        debug_assert!(offset >= self.tail && self.first_live() == self.tail);
        self.base = offset;
        self.tail = offset;
    }

    /// Adds `entry` at the tail.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.span() == self.entries.len() as u64 {
            self.double();
        }
        self.tail += 1;
        self.put(self.tail - 1, entry);
    }

    pub(super) fn set(&mut self, offset: u64, entry: Entry) {
        debug_assert!((self.base..self.tail).contains(&offset));
        self.put(offset, entry);
    }

    /// Marks a live entry as one that a replay would not bring back as it is.
    pub(super) fn touch(&mut self, offset: u64) {
        let at = self.at(offset);
        self.touched[at / 64] |= 1 << (at % 64);
    }

    fn put(&mut self, offset: u64, entry: Entry) {
        let at = self.at(offset);
        self.entries[at] = entry.pack();
        let bit = 1 << (at % 64);
        if matches!(entry, Entry::Live(_)) {
            self.ended[at / 64] &= !bit;
        } else {
            self.ended[at / 64] |= bit;
        }
        self.touched[at / 64] &= !bit;
    }

    /// The first offset whose entry is live; the tail if none is.
    pub(super) fn first_live(&self) -> u64 {
        self.next_run(self.base, false)
    }

    /// Moves the base up to `to`.
    pub(super) fn release(&mut self, to: u64) {
        debug_assert!((self.base..=self.tail).contains(&to));
        self.base = to;
    }

    /// The runs of offsets from `from` on that are not live, as `(first, one past the last)`.
    pub(super) fn ended_runs(&self, from: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let first = self.next_run(at, true);
            if first >= self.tail {
                return None;
            }
            at = self.next_run(first, false);
            Some((first, at))
        })
    }

    /// Live offsets from `from` on that were touched, with their slots.
    pub(super) fn touched(&self, from: u64) -> impl Iterator<Item = (u64, u32)> {
        let mut at = from;
        std::iter::from_fn(move || {
            while at < self.tail {
                let here = self.at(at);
                let rest = self.touched[here / 64] >> (here % 64);
                if rest == 0 {
                    at += 64 - here as u64 % 64;
                    continue;
                }
                at += u64::from(rest.trailing_zeros());
                // The ring's end may fall inside a word: then the bit belongs to its beginning.
                if at >= self.tail {
                    break;
                }
                at += 1;
                if let Some(Entry::Live(slot)) = self.get(at - 1) {
                    return Some((at - 1, slot));
                }
            }
            None
        })
    }

    /// Every offset with its entry, the last first.
    pub(super) fn iter_back(&self, below: u64) -> impl Iterator<Item = (u64, Entry)> {
        (self.base..self.tail.min(below))
            .rev()
            .map(|offset| (offset, Entry::unpack(self.entries[self.at(offset)])))
    }

    /// The first offset from `from` on whose bit in `ended` is `wanted`; the tail if there is none.
    fn next_run(&self, from: u64, wanted: bool) -> u64 {
        let mut at = from;
        while at < self.tail {
            let here = self.at(at);
            let word = if wanted {
                self.ended[here / 64]
            } else {
                !self.ended[here / 64]
            };
            let rest = word >> (here % 64);
            if rest != 0 {
                return (at + u64::from(rest.trailing_zeros())).min(self.tail);
            }
            at += 64 - here as u64 % 64;
        }
        self.tail
    }

    fn at(&self, offset: u64) -> usize {
        offset as usize & (self.entries.len() - 1)
    }

    fn double(&mut self) {
        let capacity = (self.entries.len() * 2).max(64);
        let mut grown = Self {
            base: self.base,
            tail: self.base,
            entries: vec![0; capacity],
            ended: vec![0; capacity / 64],
            touched: vec![0; capacity / 64],
        };
        for offset in self.base..self.tail {
            let at = self.at(offset);
            grown.tail += 1;
            grown.put(offset, Entry::unpack(self.entries[at]));
            if self.touched[at / 64] >> (at % 64) & 1 == 1 {
                grown.touch(offset);
            }
        }
        *self = grown;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_is_a_sorted_map_with_a_moving_base(
            base in 0..1_000u64,
            steps in prop::collection::vec((0..4u8, 0..400u64), 1..600),
        ) {
            let mut ring = Ring::new(base);
            let mut model: BTreeMap<u64, (Entry, bool)> = BTreeMap::new();
            let (mut low, mut tail) = (base, base);
            for (kind, number) in steps {
                match kind {
                    0 | 1 => {
                        let offset = tail + if number % 17 == 0 { number % 70 } else { 0 };
                        for skipped in tail..offset {
                            model.insert(skipped, (Entry::Done, false));
                        }
                        ring.skip_to(offset);
                        ring.push(Entry::Live(number as u32));
                        model.insert(offset, (Entry::Live(number as u32), false));
                        tail = offset + 1;
                    }
                    2 if tail > low => {
                        let offset = low + number % (tail - low);
                        if number % 3 == 0 {
                            if let Entry::Live(_) = model[&offset].0 {
                                ring.touch(offset);
                                model.get_mut(&offset).expect("in range").1 = true;
                            }
                        } else {
                            ring.set(offset, Entry::Done);
                            model.insert(offset, (Entry::Done, false));
                        }
                    }
                    _ => {
                        let live = model.iter().find(|(_, (e, _))| matches!(e, Entry::Live(_))).map_or(tail, |(o, _)| *o);
                        prop_assert_eq!(ring.first_live(), live);
                        ring.release(live);
                        low = live;
                        model.retain(|offset, _| *offset >= low);
                    }
                }
                prop_assert_eq!((ring.base(), ring.tail()), (low, tail));
            }
            for offset in low..tail {
                prop_assert_eq!(ring.get(offset), Some(model[&offset].0));
            }
            prop_assert_eq!(ring.get(tail), None);
            let touched: Vec<u64> = ring.touched(low).map(|(offset, _)| offset).collect();
            let expected: Vec<u64> = model.iter().filter(|(_, (_, touched))| *touched).map(|(o, _)| *o).collect();
            prop_assert_eq!(touched, expected);
            let ended: Vec<u64> = ring.ended_runs(low).flat_map(|(from, to)| from..to).collect();
            let expected: Vec<u64> = model.iter().filter(|(_, (e, _))| !matches!(e, Entry::Live(_))).map(|(o, _)| *o).collect();
            prop_assert_eq!(ended, expected);
        }
    }
}
