//! How tasks come in: from the log, from the store, from the dead. And how recovery sorts out what is known of them.

use super::ring::Entry;
use super::slab::{Flags, NIL, Payload, Slot, State};
use super::{
    Answer, AttemptOutcome, BTreeMap, DeadTask, LeaseToken, Output, ParkedTask, Record, Shard, Snapshot,
    Timestamp, VecDeque, WorkerId,
};
use crate::id::{Attempt, Epoch};
use crate::outcome::DeadReason;
use crate::snapshot::{Phase, TaskState};
use crate::task::{RecordBody, TaskOptions, TaskSpec};
use crate::time::millis;

/// What the last checkpoint and returning workers say about tasks that have not arrived yet.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Runs of offsets that have ended, still ahead of the ring's tail.
    ended: VecDeque<(u64, u64)>,
    /// States of tasks, still ahead of the ring's tail.
    tasks: VecDeque<TaskState>,
    /// States of tasks older than the resume offset.
    carried: BTreeMap<u64, TaskState>,
    /// Those who held leases.
    pub(super) workers: Vec<WorkerId>,
    /// What workers said about tasks that have not arrived yet.
    pub(super) early: BTreeMap<u64, Vec<Early>>,
    /// One past the last offset that an earlier owner may have leased.
    log_end: u64,
    /// Whether that owner may have done more than it saved.
    unclean: bool,
    pub(super) grace_until: Timestamp,
}

/// What a worker says about a task that is not there yet.
#[derive(Debug)]
pub(super) enum Early {
    Held {
        worker: WorkerId,
        token: LeaseToken,
    },
    Report {
        worker: WorkerId,
        token: LeaseToken,
        outcome: AttemptOutcome,
    },
}

impl Recovery {
    pub(super) fn new(
        resume: u64,
        snapshot: &Snapshot,
        log_end: u64,
        unclean: bool,
        grace_until: Timestamp,
    ) -> Self {
        let (carried, tasks): (Vec<_>, Vec<_>) = snapshot.tasks.iter().partition(|task| task.offset < resume);
        Self {
            ended: snapshot.ended.iter().copied().collect(),
            tasks: tasks.into(),
            carried: carried.into_iter().map(|task| (task.offset, task)).collect(),
            workers: Vec::new(),
            early: BTreeMap::new(),
            log_end,
            unclean,
            grace_until,
        }
    }

    fn is_unsure(&self, offset: u64, now: Timestamp) -> bool {
        self.unclean && offset < self.log_end && now < self.grace_until
    }

    fn has_ended(&mut self, offset: u64) -> bool {
        while self.ended.front().is_some_and(|(_, end)| *end <= offset) {
            self.ended.pop_front();
        }
        self.ended.front().is_some_and(|(first, _)| *first <= offset)
    }

    fn task(&mut self, offset: u64) -> Option<TaskState> {
        while self.tasks.front().is_some_and(|task| task.offset < offset) {
            self.tasks.pop_front();
        }
        self.tasks.pop_front_if(|task| task.offset == offset)
    }
}

impl Shard {
    pub(super) fn arrive(&mut self, record: Record, out: &mut Vec<Output>) -> Answer {
        let offset = record.offset.0;
        if offset < self.ring.tail() {
            return Answer::Late;
        }
        if self.recovery.has_ended(offset) {
            self.ring.push(offset, Entry::Done);
            self.forget_early(offset);
            return Answer::Done;
        }
        let spec = match record.body {
            RecordBody::Task(spec) => spec,
            RecordBody::Undecodable { raw, problem } => {
                self.unsaved.die(DeadTask {
                    offset: record.offset,
                    reason: DeadReason::Undecodable,
                    error: problem,
                    attempts: Attempt::default(),
                    submitted_at: record.appended_at,
                    died_at: self.now,
                    spec: TaskSpec::new(raw),
                });
                self.ring.push(offset, Entry::Done);
                self.counts.dead += 1;
                self.mark_dirty();
                return Answer::Done;
            }
        };
        let id = self.enter(offset, record.appended_at, spec);
        self.ring.push(offset, Entry::Live(id));
        let known = self.recovery.task(offset);
        self.place(id, known, out);
        Answer::Done
    }

    pub(super) fn unpark(
        &mut self,
        tasks: Vec<ParkedTask>,
        next_wake: Timestamp,
        out: &mut Vec<Output>,
    ) -> Answer {
        self.parked.loading = false;
        self.parked.next_wake = next_wake;
        for task in tasks {
            self.parked.cursor = Some((task.wake_at, task.offset));
            self.fetch(task, out);
        }
        if next_wake > self.now && !self.parked.recovered {
            // Every row that an earlier owner had in memory is here now: what workers said of others is void.
            self.parked.recovered = true;
            let expected = self.recovery.early.split_off(&self.ring.tail());
            let void = std::mem::replace(&mut self.recovery.early, expected);
            for early in void.into_values().flatten() {
                self.drop_early(&early);
            }
            self.recovery.carried.clear();
        }
        Answer::Done
    }

    /// Takes a parked task into memory; its row stays in the store until it ends.
    pub(super) fn fetch(&mut self, task: ParkedTask, out: &mut Vec<Output>) -> Answer {
        let offset = task.offset.0;
        if self.slot_of(offset).is_some() || self.unsaved.unparked.contains(&task.offset) {
            return Answer::Late;
        }
        if self
            .saving
            .as_ref()
            .is_some_and(|saving| saving.checkpoint.unparked.contains(&task.offset))
        {
            return Answer::Late;
        }
        let id = self.enter(offset, task.submitted_at, task.spec);
        self.carried.insert(offset, id);
        let slot = self.slot_mut(id);
        slot.flags.set(Flags::CARRIED);
        slot.flags.set(Flags::ROW);
        slot.attempts = task.attempts.0;
        slot.forgiven = task.forgiven;
        let known = self.recovery.carried.remove(&offset).unwrap_or(TaskState {
            offset,
            attempts: task.attempts.0,
            forgiven: task.forgiven,
            cancel: false,
            phase: if task.wake_at > self.now {
                Phase::Delayed {
                    until: task.wake_at.as_millis(),
                }
            } else {
                Phase::Ready
            },
        });
        self.place(id, Some(known), out);
        Answer::Done
    }

    pub(super) fn revive(&mut self, task: DeadTask, out: &mut Vec<Output>) -> Answer {
        let offset = task.offset.0;
        if self.slot_of(offset).is_some() || task.reason == DeadReason::Undecodable {
            return Answer::Late;
        }
        // What it was given at first is over by now; its life begins anew.
        let id = self.enter(offset, self.now, task.spec);
        self.carried.insert(offset, id);
        let slot = self.slot_mut(id);
        slot.flags.set(Flags::CARRIED);
        slot.attempts = task.attempts.0;
        // Attempts count on, so that no lease token comes twice; those made so far are forgiven.
        slot.forgiven = u16::try_from(task.attempts.0).unwrap_or(u16::MAX);
        self.unsaved.revived.push((task.offset, id));
        self.counts.dead = self.counts.dead.saturating_sub(1);
        self.make_ready(id, out);
        self.mark_dirty();
        self.flush();
        Answer::Done
    }

    /// A slot for a task, in no list yet.
    fn enter(&mut self, offset: u64, submitted_at: Timestamp, spec: TaskSpec) -> u32 {
        self.live_bytes += spec.weight();
        let slot = Slot {
            offset,
            submitted_at: submitted_at.as_millis(),
            started_at: 0,
            mark: 0,
            attempts: 0,
            epoch: 0,
            worker: NIL,
            forgiven: 0,
            state: State::Free,
            priority: spec.priority,
            next: NIL,
            prev: NIL,
            flags: Flags::default(),
        };
        let id = self.slab.insert(
            slot,
            Payload {
                params: spec.params,
                options: spec.options,
            },
        );
        self.wheel.grow_to(self.slab.capacity());
        id
    }

    /// Decides where a task that has come in belongs, by what is known of it.
    fn place(&mut self, id: u32, known: Option<TaskState>, out: &mut Vec<Output>) {
        let offset = self.slot(id).offset;
        if let Some(known) = known {
            let slot = self.slot_mut(id);
            slot.attempts = slot.attempts.max(known.attempts);
            slot.forgiven = slot.forgiven.max(known.forgiven);
            if known.cancel {
                slot.flags.set(Flags::CANCEL);
            }
            self.touch(id);
            match known.phase {
                Phase::Leased {
                    worker,
                    epoch,
                    started_at,
                } => {
                    // It may come back: until then it counts as seen now.
                    let worker = self
                        .workers
                        .enter(self.recovery.workers[worker as usize], self.now);
                    let token = LeaseToken {
                        epoch: Epoch(epoch),
                        attempt: Attempt(known.attempts),
                    };
                    self.adopt(id, worker, token, started_at);
                }
                Phase::Delayed { until } if until > self.now.as_millis() => self.delay(id, until, out),
                Phase::Delayed { .. } | Phase::Ready => self.make_ready(id, out),
            }
        } else {
            let not_before = self
                .options(id)
                .and_then(|options| options.not_before)
                .unwrap_or_default();
            if not_before > self.now {
                self.delay(id, not_before.as_millis(), out);
            } else {
                self.make_ready(id, out);
            }
        }
        if !self.recovery.early.is_empty() {
            self.apply_early(offset, out);
        }
    }

    /// What is said of the task besides params and priority.
    pub(super) fn options(&self, id: u32) -> Option<&TaskOptions> {
        if !self.slot(id).flags.has(Flags::OPTIONS) {
            return None;
        }
        self.slab.payloads[id as usize].options.as_deref()
    }

    /// Puts a task that is in no list among the ready ones; while workers of a vanished owner may come back, among the unsure.
    pub(super) fn make_ready(&mut self, id: u32, out: &mut Vec<Output>) {
        let now = self.now;
        let unsure = self.recovery.is_unsure(self.slot(id).offset, now);
        let slots = &mut self.slab.slots;
        let slot = &mut slots[id as usize];
        slot.mark = now.as_millis();
        if unsure {
            slot.state = State::Unsure;
            self.unsure.push_back(slots, id);
        } else {
            slot.state = State::Ready;
            self.ready.push(slots, id);
        }
        self.arm_waiting(id);
        self.changed(id, out);
    }

    /// Makes a task that is in no list wait until `until`, in memory or in the store.
    pub(super) fn delay(&mut self, id: u32, until: u64, out: &mut Vec<Output>) {
        let park_from = self
            .now
            .as_millis()
            .saturating_add(millis(self.policy.window.park_after));
        let loaded = self.parked.cursor.map_or(0, |(wake_at, _)| wake_at.as_millis());
        let slot = self.slot_mut(id);
        slot.mark = until;
        self.counts.delayed += 1;
        // What is parked is loaded in order of time: before the place reached it would not be found again.
        if until > park_from && until > loaded && !self.slot(id).flags.has(Flags::CARRIED) {
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

    /// Lets the unsure go when their time is over.
    pub(super) fn end_grace(&mut self, out: &mut Vec<Output>) {
        if self.unsure.is_empty() || self.now < self.recovery.grace_until {
            return;
        }
        while !self.unsure.is_empty() {
            let id = self.unsure.head;
            self.unsure.unlink(&mut self.slab.slots, id);
            self.make_ready(id, out);
        }
    }

    pub(super) fn spec_of(&self, id: u32) -> TaskSpec {
        let payload = &self.slab.payloads[id as usize];
        TaskSpec {
            params: payload.params.clone(),
            priority: self.slot(id).priority,
            options: payload.options.clone(),
        }
    }

    /// Whether a worker may know something of `offset` before it arrives, and there is room to remember it.
    pub(super) fn remember_early(&mut self, offset: u64, early: Early) -> bool {
        let replayed = (self.ring.tail()..self.recovery.log_end).contains(&offset);
        let loaded = offset < self.ring.base() && !self.parked.recovered;
        if !replayed && !loaded || self.recovery.early.len() >= self.policy.window.max_tasks as usize {
            return false;
        }
        if let Early::Report { worker, .. } = &early {
            self.workers.add_early(*worker);
        }
        self.recovery.early.entry(offset).or_default().push(early);
        true
    }

    fn forget_early(&mut self, offset: u64) {
        for early in self.recovery.early.remove(&offset).unwrap_or_default() {
            self.drop_early(&early);
        }
    }

    fn drop_early(&mut self, early: &Early) {
        if let Early::Report { worker, .. } = early {
            self.workers.remove_early(*worker);
        }
    }

    fn apply_early(&mut self, offset: u64, out: &mut Vec<Output>) {
        for early in self.recovery.early.remove(&offset).unwrap_or_default() {
            match early {
                Early::Held { worker, token } => {
                    self.hold(worker, offset, token, out);
                }
                Early::Report {
                    worker,
                    token,
                    outcome,
                } => {
                    self.workers.remove_early(worker);
                    self.settle(offset, token, outcome, out);
                }
            }
        }
    }
}
