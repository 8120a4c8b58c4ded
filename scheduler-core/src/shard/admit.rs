//! How tasks come in, and where recovery puts them.

use super::ring::Entry;
use super::slab::{Flags, NIL, Payload, Slot, State};
use super::{Answer, DeadTask, LeaseToken, Offset, Output, Record, Shard, Timestamp};
use crate::id::{Attempt, Epoch};
use crate::key::{KEY_PERIOD, KeyHash, SeenKey};
use crate::outcome::{DeadReason, Ending, FinishedTask};
use crate::snapshot::{Phase, TaskState};
use crate::task::{RecordBody, TaskOptions, TaskSpec};

impl Shard {
    pub(super) fn arrive(&mut self, record: Record, out: &mut Vec<Output>) -> Answer {
        let offset = record.offset.0;
        if offset < self.ring.tail() {
            return Answer::Late;
        }
        if offset > self.ring.tail() {
            self.skip_to(offset, out);
        }
        if self.recovery.has_ended(offset) {
            self.ring.push(Entry::Done);
            // The resume offset may go past it; else the span of a window that was made smaller might stay full of such.
            self.mark_dirty();
            if self.parked.is_recovered() && !self.recovery.rows.contains_key(&offset) {
                self.forget_early(offset, out);
            }
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
                self.ring.push(Entry::Done);
                self.forget_early(offset, out);
                self.mark_dirty();
                return Answer::Done;
            }
        };
        if self.is_duplicate(offset, record.appended_at, &spec) {
            self.ring.push(Entry::Done);
            self.forget_early(offset, out);
            return Answer::Done;
        }
        let id = self.enter(offset, record.appended_at, spec);
        self.ring.push(Entry::Live(id));
        let known = self.recovery.task(offset);
        self.place(id, known, out);
        Answer::Done
    }

    /// The log has nothing before `start` any more. What is not here by now does not come, and is counted, even if no record ever follows.
    pub(super) fn lose_before(&mut self, start: u64, out: &mut Vec<Output>) -> Answer {
        if start <= self.ring.tail() {
            return Answer::Late;
        }
        self.recovery.log_start = self.recovery.log_start.max(start);
        self.skip_to(start, out);
        self.mark_dirty();
        Answer::Done
    }

    /// Whether another task runs for the idempotency key of a task that arrives; if so, this one ends. A new key is remembered.
    fn is_duplicate(&mut self, offset: u64, submitted_at: Timestamp, spec: &TaskSpec) -> bool {
        let Some(key) = spec
            .options
            .as_ref()
            .and_then(|options| options.idempotency_key.as_ref())
        else {
            return false;
        };
        let hash = KeyHash::of(key);
        match self.keys.find(hash, self.now) {
            // A replay brings the first one back, and what was first before a key was forgotten and came again.
            Some(first) if first.0 >= offset => false,
            Some(first) => {
                self.unsaved.finish(FinishedTask {
                    offset: Offset(offset),
                    ending: Ending::Duplicate,
                    attempts: Attempt::default(),
                    submitted_at,
                    started_at: Timestamp::ZERO,
                    finished_at: self.now,
                    output: self.tenure.shard.task(first).to_string().into(),
                });
                self.mark_dirty();
                true
            }
            None => {
                let seen = SeenKey {
                    hash,
                    offset: Offset(offset),
                    expires_at: submitted_at + KEY_PERIOD,
                };
                self.keys.insert(seen, self.now);
                self.unsaved.keys.push(seen);
                self.mark_dirty();
                false
            }
        }
    }

    /// A slot for a task, in no list yet.
    pub(super) fn enter(&mut self, offset: u64, submitted_at: Timestamp, spec: TaskSpec) -> u32 {
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
    pub(super) fn place(&mut self, id: u32, known: Option<TaskState>, out: &mut Vec<Output>) {
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
                    let worker = self.recovery.workers[worker as usize];
                    let attempt = Attempt(known.attempts);
                    let is_missed = self.workers.is_attached(worker)
                        && !self.recovery.is_presented(offset, worker, attempt);
                    // It may come back: until then it counts as seen now.
                    let worker = self.workers.enter(worker, self.now);
                    let token = LeaseToken {
                        epoch: Epoch(epoch),
                        attempt,
                    };
                    self.adopt(id, worker, token, started_at);
                    if is_missed {
                        // It has said what it holds, and this is not among it.
                        self.miss(id, out);
                    }
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

    /// Puts a task that is in no list among the ready ones; while workers of a vanished owner may come back, among the unsure. One whose row is to be
    /// written first waits for that.
    pub(super) fn make_ready(&mut self, id: u32, out: &mut Vec<Output>) {
        if self.slot(id).flags.has(Flags::WANTED) {
            self.counts.delayed += 1;
            return self.await_row(id, out);
        }
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

    pub(super) fn spec_of(&self, id: u32) -> TaskSpec {
        let payload = &self.slab.payloads[id as usize];
        TaskSpec {
            params: payload.params.clone(),
            priority: self.slot(id).priority,
            options: payload.options.clone(),
        }
    }
}
