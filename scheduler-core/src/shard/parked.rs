//! Tasks with rows in the store: those that wait long, and those that are older than the window is wide.
//!
//! A task is leased only while its row, if it has one, is due: so the next activation finds it among the first rows that it loads, and
//! what workers say of it meets it there. A task that is wanted earlier than its row says is given out once the row is written anew.

use std::collections::BTreeSet;

use super::ring::Entry;
use super::slab::{Flags, State};
use super::{Answer, DeadTask, Offset, Output, ParkedTask, Shard, Slot, Timestamp};
use crate::id::Attempt;
use crate::outcome::DeadReason;
use crate::snapshot::{Phase, TaskState};

/// How many parked tasks are loaded at once.
const PAGE: usize = 1_000;

/// What a parked task is taken to weigh before it is seen, in bytes.
const TYPICAL_WEIGHT: usize = 16 << 10;

/// Numbers the pages of parked tasks that an activation asks for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PageId(pub(crate) u64);

/// How far the rows of the store have been loaded.
#[derive(Debug)]
pub(super) struct Parked {
    /// Everything up to here has been loaded.
    cursor: Option<(Timestamp, Offset)>,
    /// When the first task after it is wanted.
    next_wake: Timestamp,
    loading: Option<Loading>,
    /// The last page that was asked for.
    last_page: PageId,
    /// What the last owner had in memory is wanted up to here; `None` before the first page is asked for.
    inherited_until: Option<Timestamp>,
    /// Whether all that the last owner had in memory has been loaded.
    recovered: bool,
}

/// What has happened to rows since a page of them was asked for: the page may be older than that, or newer.
#[derive(Debug)]
struct Loading {
    page: PageId,
    until: Timestamp,
    /// How many there may be.
    limit: usize,
    /// When the first of the rows that were saved is wanted.
    saved_wake: Timestamp,
    /// Tasks that have ended, those included whose end the store did not have when the page was asked for.
    ended: BTreeSet<Offset>,
}

impl Parked {
    pub(super) fn new() -> Self {
        Self {
            cursor: None,
            next_wake: Timestamp::ZERO,
            loading: None,
            last_page: PageId::default(),
            inherited_until: None,
            recovered: false,
        }
    }

    pub(super) fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// When the first of those that are not loaded is wanted.
    pub(super) fn next_wake(&self) -> Timestamp {
        self.next_wake
    }

    /// Room that is kept for tasks which are being loaded.
    pub(super) fn reserved(&self) -> u32 {
        self.loading
            .as_ref()
            .map_or(0, |loading| u32::try_from(loading.limit).unwrap_or(u32::MAX))
    }

    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// A row that is wanted up to here and is saved from now on may never be loaded.
    pub(super) fn horizon(&self) -> Timestamp {
        let loaded = self.cursor.map_or(Timestamp::ZERO, |(wake_at, _)| wake_at);
        self.loading
            .as_ref()
            .map_or(loaded, |loading| loading.until.max(loaded))
    }

    /// A task with a row has ended.
    pub(super) fn ended(&mut self, offset: u64) {
        if let Some(loading) = &mut self.loading {
            loading.ended.insert(Offset(offset));
        }
    }

    fn has_ended(&self, offset: Offset) -> bool {
        self.loading
            .as_ref()
            .is_some_and(|loading| loading.ended.contains(&offset))
    }

    /// A task has become the store's alone.
    fn saved(&mut self, wake_at: Timestamp) {
        self.next_wake = self.next_wake.min(wake_at);
        if let Some(loading) = &mut self.loading {
            loading.saved_wake = loading.saved_wake.min(wake_at);
        }
    }
}

impl Shard {
    pub(super) fn unpark(
        &mut self,
        page: PageId,
        tasks: Vec<ParkedTask>,
        next_wake: Timestamp,
        out: &mut Vec<Output>,
    ) -> Answer {
        if self
            .parked
            .loading
            .as_ref()
            .is_none_or(|loading| loading.page != page)
        {
            // Nobody waits for this page, so nobody kept account of what has ended since it was read.
            return Answer::Late;
        }
        for task in &tasks {
            self.parked.cursor = Some((task.wake_at, task.offset));
        }
        for task in tasks {
            if self.slot_of(task.offset.0).is_none() && !self.parked.has_ended(task.offset) {
                self.take_in(task, out);
            }
        }
        let Some(loading) = self.parked.loading.take() else {
            return Answer::Late;
        };
        self.parked.next_wake = next_wake.min(loading.saved_wake);
        // What this owner gave to the store itself, to make room, is wanted later than that: it does not count.
        let is_beyond = self.parked.inherited_until.is_none_or(|until| next_wake > until);
        if is_beyond && !self.parked.recovered {
            // What workers said of tasks without a row that is still to come is void. An earlier owner with another clock or a wider window
            // may have loaded rows that are not due here: what is known of those is kept until they are.
            self.parked.recovered = true;
            self.forget_early_from(0, out);
        }
        Answer::Done
    }

    /// Takes a parked task into memory; its row stays in the store until it ends.
    pub(super) fn fetch(&mut self, task: ParkedTask, out: &mut Vec<Output>) -> Answer {
        let saving = self.saving.as_ref().map(|saving| &saving.checkpoint.unparked);
        if self.slot_of(task.offset.0).is_some()
            || self.unsaved.unparked.contains(&task.offset)
            || saving.is_some_and(|unparked| unparked.contains(&task.offset))
            || self.parked.has_ended(task.offset)
        {
            return Answer::Late;
        }
        if self.is_full() {
            return Answer::Full;
        }
        self.take_in(task, out);
        Answer::Done
    }

    fn is_full(&self) -> bool {
        self.slab.live() + self.parked.reserved() >= self.policy.window.max_tasks
    }

    fn take_in(&mut self, task: ParkedTask, out: &mut Vec<Output>) {
        let offset = task.offset.0;
        let id = self.enter(offset, task.submitted_at, task.spec);
        self.carried.insert(offset, id);
        let slot = self.slot_mut(id);
        slot.flags.set(Flags::CARRIED);
        slot.flags.set(Flags::ROW);
        slot.attempts = task.attempts.0;
        slot.forgiven = task.forgiven;
        let known = self.recovery.rows.remove(&offset).unwrap_or(TaskState {
            offset,
            attempts: task.attempts.0,
            forgiven: task.forgiven,
            cancel: false,
            phase: Phase::Delayed {
                until: task.wake_at.as_millis(),
            },
        });
        self.place(id, Some(known), out);
    }

    pub(super) fn revive(&mut self, task: DeadTask, out: &mut Vec<Output>) -> Answer {
        let offset = task.offset;
        let saving = self.saving.as_ref().map(|saving| &saving.checkpoint.revived);
        let has_died_again = self.unsaved.dead.iter().any(|dead| dead.offset == offset);
        let is_revived =
            self.unsaved.revived.contains(&offset) || saving.is_some_and(|all| all.contains(&offset));
        if self.slot_of(offset.0).is_some()
            || is_revived && !has_died_again
            || task.reason == DeadReason::Undecodable
        {
            return Answer::Late;
        }
        if self.is_full() {
            return Answer::Full;
        }
        // What it was given at first is over by now; its life begins anew.
        let mut spec = task.spec;
        if let Some(options) = &mut spec.options {
            options.not_before = None;
            options.deadline = None;
        }
        self.unsaved.revive(offset);
        let id = self.enter(offset.0, self.now, spec);
        self.carried.insert(offset.0, id);
        let slot = self.slot_mut(id);
        slot.flags.set(Flags::CARRIED);
        slot.attempts = task.attempts.0;
        // Attempts count on, so that no lease token comes twice; those made so far are forgiven.
        slot.forgiven = u16::try_from(task.attempts.0).unwrap_or(u16::MAX);
        self.counts.delayed += 1;
        self.want(id, out);
        Answer::Done
    }

    /// Makes a delayed task ready as soon as the store has a row of it that is due.
    pub(super) fn want(&mut self, id: u32, out: &mut Vec<Output>) {
        let slot = self.slot_mut(id);
        slot.flags.set(Flags::WANTED);
        let offset = slot.offset;
        self.unsaved.rows.push((offset, id));
        self.mark_dirty();
        self.flush();
        self.await_row(id, out);
    }

    /// Lets a delayed task wait for nothing but its row, and the end of its time.
    pub(super) fn await_row(&mut self, id: u32, out: &mut Vec<Output>) {
        let now = self.now.as_millis();
        let slot = self.slot_mut(id);
        slot.state = State::Delayed;
        slot.mark = now;
        self.arm_hard_deadline(id);
        self.changed(id, out);
    }

    /// Makes a task that is in no list wait until `until`, in memory or in the store.
    pub(super) fn delay(&mut self, id: u32, until: u64, out: &mut Vec<Output>) {
        self.slot_mut(id).mark = until;
        self.counts.delayed += 1;
        let wake_at = self.wake_at(id);
        let is_long = wake_at > self.now + self.policy.window.park_after && wake_at > self.parked.horizon();
        let slot = self.slot(id);
        if is_long && self.recovery.is_unsure(slot.offset, self.now) {
            // A worker that has yet to come back may have succeeded in a later attempt, or in the first one, if the last owner was told to hasten the
            // task: that can be taken only while the task is here.
            let grace_until = self.recovery.grace_until;
            self.slot_mut(id).state = State::Delayed;
            self.wheel.arm(id, wake_at.min(grace_until));
        } else if is_long && !slot.flags.has(Flags::CARRIED) {
            self.slot_mut(id).state = State::Parked;
            self.parking.push(id);
            self.wheel.disarm(id);
            self.mark_dirty();
        } else {
            self.slot_mut(id).state = State::Delayed;
            self.arm_waiting(id);
        }
        self.changed(id, out);
    }

    /// When something happens to a delayed task: its time comes, or is over.
    fn wake_at(&self, id: u32) -> Timestamp {
        Timestamp::from_millis(self.slot(id).mark).min(self.hard_deadline(id))
    }

    /// Moves what waits long out of the ring; its slots are freed once the store has it.
    pub(super) fn park(&mut self, rows: &mut Vec<ParkedTask>) -> Vec<(u64, u32)> {
        let mut parked = Vec::new();
        for id in std::mem::take(&mut self.parking) {
            let Slot {
                offset, state, flags, ..
            } = *self.slot(id);
            if state != State::Parked || flags.has(Flags::CARRIED) {
                continue;
            }
            rows.push(self.row(id, self.wake_at(id)));
            self.leave_ring(id);
            parked.push((offset, id));
        }
        for id in std::mem::take(&mut self.yielding) {
            let Slot {
                offset, state, flags, ..
            } = *self.slot(id);
            // It may have been wanted since, or have ended.
            if state != State::Parked || parked.contains(&(offset, id)) {
                continue;
            }
            let row = self.row(id, self.wake_at(id));
            rows.push(row);
            if !flags.has(Flags::CARRIED) {
                self.leave_ring(id);
            }
            parked.push((offset, id));
        }
        parked
    }

    /// Frees what is the store's alone now, unless somebody wanted it meanwhile.
    pub(super) fn release_parked(&mut self, parked: &[(u64, u32)]) {
        for &(offset, id) in parked {
            if self.carried.get(&offset) != Some(&id) || self.slot(id).state != State::Parked {
                continue;
            }
            let wake_at = self.wake_at(id);
            if wake_at <= self.parked.horizon() {
                // Saving took so long that the place in the order of loading is passed: it stays.
                self.slot_mut(id).state = State::Delayed;
                self.arm_waiting(id);
                continue;
            }
            self.parked.saved(wake_at);
            self.leave_list(id);
            self.carried.remove(&offset);
            self.empty(id);
        }
    }

    /// Makes ready what was wanted, now that the rows say so.
    pub(super) fn release_wanted(&mut self, rows: &[(u64, u32)], out: &mut Vec<Output>) {
        for &(offset, id) in rows {
            if self.carried.get(&offset) != Some(&id) {
                continue;
            }
            self.slot_mut(id).flags.clear(Flags::WANTED);
            if self.slot(id).state == State::Delayed && self.slot(id).mark <= self.now.as_millis() {
                self.leave_list(id);
                self.make_ready(id, out);
            }
        }
    }

    /// Moves the oldest live tasks out of the ring when it has become too wide: one of them does not hold the log.
    pub(super) fn carry(&mut self) {
        while self.is_too_wide() {
            let Some(Entry::Live(id)) = self.ring.get(self.ring.first_live()) else {
                return;
            };
            self.carry_over(id);
        }
    }

    /// Whether the ring is so wide that its oldest task has to leave it.
    pub(super) fn is_too_wide(&self) -> bool {
        let widest = u64::from(self.policy.window.max_span) / 2;
        let most = (self.policy.window.max_tasks as usize / 2).max(1);
        self.ring.tail() - self.ring.first_live() > widest && self.carried.len() < most
    }

    /// Moves a live task out of the ring; the next checkpoint has its row.
    fn carry_over(&mut self, id: u32) {
        let offset = self.slot(id).offset;
        self.leave_ring(id);
        self.unsaved.rows.push((offset, id));
        if self.slot(id).state == State::Parked {
            // Its row is to say that it is in memory; so it has to stay there.
            self.slot_mut(id).state = State::Delayed;
            self.arm_waiting(id);
        }
        self.mark_dirty();
    }

    fn leave_ring(&mut self, id: u32) {
        let offset = self.slot(id).offset;
        self.ring.set(offset, Entry::Done);
        self.carried.insert(offset, id);
        self.slot_mut(id).flags.set(Flags::CARRIED);
    }

    /// Takes the ring to `offset`, over offsets that the log does not have; they are done.
    pub(super) fn skip_to(&mut self, offset: u64, out: &mut Vec<Output>) {
        let tail = self.ring.tail();
        self.count_gap(offset);
        if offset - self.ring.base() > u64::from(self.policy.window.max_span) {
            // Entries for the whole gap would take more memory than the window may.
            while let Some(Entry::Live(id)) = self.ring.get(self.ring.first_live()) {
                self.carry_over(id);
            }
            self.ring.jump(offset);
        } else {
            self.ring.skip_to(offset);
        }
        if self.parked.recovered {
            self.forget_early_from(tail, out);
        }
    }

    /// The store's row of a live task, which it has from this checkpoint on.
    pub(super) fn row(&mut self, id: u32, wake_at: Timestamp) -> ParkedTask {
        self.slot_mut(id).flags.set(Flags::ROW);
        let slot = self.slot(id);
        ParkedTask {
            offset: Offset(slot.offset),
            wake_at,
            attempts: Attempt(slot.attempts),
            forgiven: slot.forgiven,
            submitted_at: Timestamp::from_millis(slot.submitted_at),
            spec: self.spec_of(id),
        }
    }

    /// Whether rows of tasks that an earlier owner had in memory are still to come.
    pub(super) fn awaits_rows(&self) -> bool {
        let parked = &self.parked;
        if parked.recovered {
            return false;
        }
        let is_unread = parked.cursor.is_none() && parked.next_wake == Timestamp::ZERO;
        is_unread || self.recovery.awaits_rows(self.ring.tail())
    }

    /// When parked tasks must be loaded.
    pub(super) fn parked_due(&self) -> Option<Timestamp> {
        let (tasks, bytes) = self.free_room();
        if self.leaving
            || self.parked.loading.is_some()
            || self.is_making_room()
            || self.parked.next_wake == Timestamp::MAX
            || tasks == 0
            || bytes == 0
            || self.is_room_the_logs(tasks, bytes)
        {
            return None;
        }
        Some(self.parked.next_wake - self.policy.window.park_after / 2)
    }

    /// Whether the last of the room is left to the log, which is to bring tasks that workers have spoken of: rows that come back again and
    /// again would take it.
    fn is_room_the_logs(&self, tasks: usize, bytes: usize) -> bool {
        let is_scarce = tasks < 2 || bytes < 2 * TYPICAL_WEIGHT;
        is_scarce && self.parked.recovered && self.recovery.is_spoken_of_from(self.ring.tail())
    }

    pub(super) fn load_parked_if_due(&mut self, out: &mut Vec<Output>) {
        // Nearly always there is nothing to load, and room need not be measured.
        let ahead = self.now + self.policy.window.park_after / 2;
        if self.parked.next_wake > ahead || self.parked_due().is_none() {
            return;
        }
        let (tasks, bytes) = self.free_room();
        // The other half is left to the log.
        let limit = PAGE.min(tasks.div_ceil(2)).min((bytes / TYPICAL_WEIGHT).max(1));
        let saving = self.saving.as_ref().map(|saving| &saving.checkpoint.unparked);
        self.parked.inherited_until.get_or_insert(ahead);
        let page = PageId(self.parked.last_page.0 + 1);
        self.parked.last_page = page;
        self.parked.loading = Some(Loading {
            page,
            until: ahead,
            limit,
            saved_wake: Timestamp::MAX,
            ended: saving
                .into_iter()
                .flatten()
                .chain(&self.unsaved.unparked)
                .copied()
                .collect(),
        });
        out.push(Output::LoadParked {
            page,
            after: self.parked.cursor,
            until: ahead,
            limit,
        });
    }
}
