//! Where live tasks are kept: small slots of fixed size, reused the last first so that they stay in the processor's cache.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a slab has fewer than 2^32 slots: the window bounds it"
)]

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{Attempt, Epoch, LeaseToken};
use crate::task::{Priority, TaskOptions};

pub(super) const NIL: u32 = u32::MAX;

/// Where a live task is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// In no task's life: the slot is free.
    Free,
    /// In a ready queue; `mark` is since when.
    Ready,
    /// Leased to `worker`; `mark` is the last sign of life.
    Leased,
    /// Waiting until `mark`.
    Delayed,
    /// Replayed after a crash: a worker may have it, or have finished it. In the list of the unsure.
    Unsure,
    /// Waiting until `mark`, in the store as soon as the next checkpoint is saved.
    Parked,
}

/// What every input about a task looks at: one cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) offset: u64,
    /// When the log took the task.
    pub(super) submitted_at: u64,
    /// When the last attempt was leased; 0 before.
    pub(super) started_at: u64,
    /// See [`State`].
    pub(super) mark: u64,
    /// The last attempt, from 1; 0 before.
    pub(super) attempts: u32,
    /// The epoch of the last attempt's lease.
    pub(super) epoch: u32,
    /// The index of the last attempt's worker.
    pub(super) worker: u32,
    /// Attempts that do not count against the limit.
    pub(super) forgiven: u16,
    pub(super) state: State,
    pub(super) priority: Priority,
    /// The list that the slot is in: a ready queue, the unsure, or a worker's leases.
    pub(super) next: u32,
    pub(super) prev: u32,
    pub(super) flags: Flags,
}

impl Slot {
    /// Of the last attempt.
    pub(super) fn token(&self) -> LeaseToken {
        LeaseToken {
            epoch: Epoch(self.epoch),
            attempt: Attempt(self.attempts),
        }
    }
}

/// What is true of few tasks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Flags(u16);

impl Flags {
    /// It has options.
    pub(super) const OPTIONS: Self = Self(1);
    /// It has notes.
    pub(super) const NOTES: Self = Self(1 << 1);
    /// It left the ring.
    pub(super) const CARRIED: Self = Self(1 << 2);
    /// The store has a row of it, or will have with the checkpoint that is being saved.
    pub(super) const ROW: Self = Self(1 << 3);
    /// Somebody cancelled it while it ran.
    pub(super) const CANCEL: Self = Self(1 << 4);
    /// Its time was over while it ran.
    pub(super) const EXPIRE: Self = Self(1 << 5);
    /// Somebody watches it.
    pub(super) const WATCHED: Self = Self(1 << 6);
    /// Seen while a worker's leases are compared.
    pub(super) const SEEN: Self = Self(1 << 7);
    /// Its worker came back without it: the lease never arrived, or is still on its way from the owner that granted it.
    pub(super) const ADRIFT: Self = Self(1 << 8);
    /// It is wanted, and is not given out before the store has a row of it that says so.
    pub(super) const WANTED: Self = Self(1 << 9);

    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    pub(super) fn clear(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }
}

/// What is handed on, not looked at.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) params: Bytes,
    pub(super) options: Option<Box<TaskOptions>>,
}

/// What few tasks have.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) error: String,
    pub(super) progress: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Slab {
    pub(super) slots: Vec<Slot>,
    pub(super) payloads: Vec<Payload>,
    pub(super) notes: BTreeMap<u32, Notes>,
    free: u32,
    live: u32,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self {
            free: NIL,
            ..Self::default()
        }
    }

    /// How many slots are taken.
    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// How many slots there are, free ones included.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot for `slot` and `payload`.
    pub(super) fn insert(&mut self, mut slot: Slot, payload: Payload) -> u32 {
        if payload.options.is_some() {
            slot.flags.set(Flags::OPTIONS);
        }
        self.live += 1;
        if self.free == NIL {
            self.slots.push(slot);
            self.payloads.push(payload);
            return (self.slots.len() - 1) as u32;
        }
        let id = self.free;
        self.free = self.slots[id as usize].next;
        self.slots[id as usize] = slot;
        self.payloads[id as usize] = payload;
        id
    }

    /// Frees a slot and answers what was in it.
    pub(super) fn remove(&mut self, id: u32) -> Payload {
        let slot = &mut self.slots[id as usize];
        debug_assert!(slot.state != State::Free, "freed twice");
        slot.state = State::Free;
        slot.next = self.free;
        if slot.flags.has(Flags::NOTES) {
            self.notes.remove(&id);
        }
        self.free = id;
        self.live -= 1;
        std::mem::take(&mut self.payloads[id as usize])
    }

    pub(super) fn note(&mut self, id: u32) -> &mut Notes {
        self.slots[id as usize].flags.set(Flags::NOTES);
        self.notes.entry(id).or_default()
    }
}

/// A doubly linked list through the slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
        len: 0,
    };

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub(super) fn push_back(&mut self, slots: &mut [Slot], id: u32) {
        slots[id as usize].next = NIL;
        slots[id as usize].prev = self.tail;
        if self.tail == NIL {
            self.head = id;
        } else {
            slots[self.tail as usize].next = id;
        }
        self.tail = id;
        self.len += 1;
    }

    /// Its slots, the last first.
    pub(super) fn iter_back<'a>(&self, slots: &'a [Slot]) -> impl Iterator<Item = u32> + 'a {
        let before = |id: &u32| Some(slots[*id as usize].prev).filter(|prev| *prev != NIL);
        std::iter::successors(Some(self.tail).filter(|tail| *tail != NIL), before)
    }

    /// Those that are before a member in its list, the nearest first.
    pub(super) fn before(slots: &[Slot], id: u32) -> impl Iterator<Item = u32> {
        let before = |id: &u32| Some(slots[*id as usize].prev).filter(|prev| *prev != NIL);
        std::iter::successors(before(&id), before)
    }

    pub(super) fn unlink(&mut self, slots: &mut [Slot], id: u32) {
        let Slot { next, prev, .. } = slots[id as usize];
        if prev == NIL {
            self.head = next;
        } else {
            slots[prev as usize].next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            slots[next as usize].prev = prev;
        }
        self.len -= 1;
    }
}
