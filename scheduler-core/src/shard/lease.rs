//! How tasks are given out to workers, and how they come back.

use super::recovery::Early;
use super::slab::{Flags, Slot, State};
use super::{
    Answer, AttemptOutcome, Bytes, Found, HeldLease, Lease, LeaseToken, Offset, Output, Shard, Timestamp,
    WorkerId,
};
use crate::id::Attempt;
use crate::outcome::{DeadReason, Ending};
use crate::time::millis;

impl Shard {
    pub(super) fn ask(&mut self, worker: WorkerId, limit: u32, out: &mut Vec<Output>) -> Answer {
        let index = self.workers.enter(worker, self.now);
        let run = millis(self.policy.timeouts.run);
        let now = self.now.as_millis();
        for _ in 0..limit {
            if self.leaving || self.is_congested() {
                break;
            }
            let Some(id) = self.ready.peek(&self.slab.slots, self.now) else {
                break;
            };
            self.ready.remove(&mut self.slab.slots, id);
            let attempt = self.slot(id).attempts.saturating_add(1);
            self.start(
                id,
                index,
                LeaseToken {
                    epoch: self.tenure.epoch,
                    attempt: Attempt(attempt),
                },
                now,
            );
            let spec = self.spec_of(id);
            let lease = Lease {
                partition: self.tenure.shard.partition,
                offset: Offset(self.slot(id).offset),
                token: LeaseToken {
                    epoch: self.tenure.epoch,
                    attempt: Attempt(attempt),
                },
                run_until: Timestamp::from_millis(now.saturating_add(run)),
                spec,
            };
            out.push(Output::Lease { worker, lease });
            self.changed(id, out);
        }
        self.workers.leave_if_idle(index);
        Answer::Done
    }

    /// Makes a task that is in no list the worker's.
    fn start(&mut self, id: u32, worker: u32, token: LeaseToken, started_at: u64) {
        let now = self.now.as_millis();
        let slot = self.slot_mut(id);
        slot.attempts = token.attempt.0;
        slot.epoch = token.epoch.0;
        slot.worker = worker;
        slot.started_at = started_at;
        slot.mark = now;
        slot.state = State::Leased;
        slot.flags.clear(Flags::ADRIFT);
        self.workers.leases(worker).push_back(&mut self.slab.slots, id);
        self.counts.running += 1;
        self.arm_running(id);
        self.touch(id);
    }

    /// Gives a task that is in no list back to a worker that an earlier activation leased it to.
    pub(super) fn adopt(&mut self, id: u32, worker: u32, token: LeaseToken, started_at: u64) {
        self.start(id, worker, token, started_at);
    }

    pub(super) fn report(
        &mut self,
        worker: WorkerId,
        offset: u64,
        token: LeaseToken,
        outcome: AttemptOutcome,
        out: &mut Vec<Output>,
    ) -> Answer {
        self.workers.count_report(worker, self.now);
        // The worker waits for a checkpoint to say that it may forget the report, even if nothing else changes.
        self.mark_reported();
        if self.slot_of(offset).is_none() {
            let early = Early::Report {
                worker,
                token,
                outcome,
            };
            // It counts once the task is there, and no checkpoint covers it before: whoever asks is to ask again.
            return if self.remember_early(offset, early) {
                Answer::Elsewhere
            } else {
                Answer::Late
            };
        }
        self.settle(offset, token, outcome, out)
    }

    /// Does what a report says about a task, if it still counts.
    pub(super) fn settle(
        &mut self,
        offset: u64,
        token: LeaseToken,
        outcome: AttemptOutcome,
        out: &mut Vec<Output>,
    ) -> Answer {
        let Some(id) = self.slot_of(offset) else {
            return Answer::Late;
        };
        let slot = self.slot(id);
        if token.epoch > self.tenure.epoch || token.attempt.0 == 0 {
            return Answer::Late;
        }
        let is_current = slot.state == State::Leased && token == slot.token();
        if !is_current {
            let is_news = self.is_news(slot, token);
            // Of an attempt that was made, however long ago, a success is as good as of the last one.
            let is_success = matches!(outcome, AttemptOutcome::Succeeded { .. })
                && (token.attempt.0 <= slot.attempts || token.epoch < self.tenure.epoch);
            if !is_news && !is_success {
                return Answer::Late;
            }
            self.stop(id, out);
            if is_news {
                self.learn(id, token);
            }
        }
        match outcome {
            AttemptOutcome::Succeeded { output } => self.end(id, Ending::Succeeded, output, out),
            AttemptOutcome::Failed { error } => self.fail(id, error, out),
            AttemptOutcome::Rejected { .. } | AttemptOutcome::Stopped if self.is_to_end(id) => {
                self.end_as_told(id, out);
            }
            AttemptOutcome::Rejected { error } => {
                self.leave_list(id);
                self.die(id, DeadReason::Rejected, error, out);
            }
            AttemptOutcome::Returned => self.requeue(id, out),
            AttemptOutcome::Stopped => self.fail(id, "the worker stopped before the end".into(), out),
        }
        Answer::Done
    }

    /// Takes a worker's word that it holds a lease of a task; answers whether it does from now on.
    pub(super) fn hold(
        &mut self,
        worker: WorkerId,
        offset: u64,
        token: LeaseToken,
        out: &mut Vec<Output>,
    ) -> bool {
        let index = self.workers.enter(worker, self.now);
        let Some(id) = self.slot_of(offset) else {
            let known = self.remember_early(offset, Early::Held { worker, token });
            self.workers.leave_if_idle(index);
            return known;
        };
        let slot = self.slot(id);
        let is_current = slot.state == State::Leased && slot.token() == token && slot.worker == index;
        let is_news = self.is_news(slot, token);
        if is_news {
            self.stop(id, out);
            self.learn(id, token);
            self.leave_list(id);
            self.adopt(id, index, token, self.now.as_millis());
            self.changed(id, out);
        }
        if is_current {
            self.find_again(id);
        }
        let held = is_current || is_news;
        if held && self.is_to_end(id) {
            self.stop(id, out);
        }
        self.workers.leave_if_idle(index);
        held
    }

    /// Whether `token` is of an attempt that an earlier owner granted and did not save, later than what is known.
    fn is_news(&self, slot: &Slot, token: LeaseToken) -> bool {
        let known = slot.token();
        let is_later = if slot.state == State::Leased {
            known.epoch < self.tenure.epoch && (token.attempt, token.epoch) > (known.attempt, known.epoch)
        } else {
            token.attempt > known.attempt
        };
        // No owner makes so many attempts between two checkpoints: such a token is made up.
        let is_plausible = u16::try_from(token.attempt.0.saturating_sub(known.attempt.0)).is_ok();
        token.epoch < self.tenure.epoch && is_later && is_plausible
    }

    /// Takes note of an attempt that is news.
    fn learn(&mut self, id: u32, token: LeaseToken) {
        let slot = self.slot_mut(id);
        // What became of attempts between nobody knows any more: they do not count.
        let between = token.attempt.0.saturating_sub(slot.attempts.saturating_add(1));
        slot.forgiven = slot
            .forgiven
            .saturating_add(u16::try_from(between).unwrap_or(u16::MAX));
        slot.attempts = slot.attempts.max(token.attempt.0);
        slot.epoch = token.epoch.0;
        self.touch(id);
    }

    pub(super) fn extend(
        &mut self,
        worker: WorkerId,
        offset: u64,
        token: LeaseToken,
        progress: Option<Bytes>,
        out: &mut Vec<Output>,
    ) -> Answer {
        let is_known = self.slot_of(offset).is_some_and(|id| {
            let slot = self.slot(id);
            slot.state == State::Leased && slot.token() == token
        });
        // Whoever polls introduces itself to a new activation by its signs of life alone.
        if !is_known && !self.hold(worker, offset, token, out) {
            return Answer::Late;
        }
        let Some(id) = self.slot_of(offset) else {
            // It is kept until the task is there.
            return Answer::Done;
        };
        self.find_again(id);
        let now = self.now.as_millis();
        self.slot_mut(id).mark = now;
        if let Some(progress) = progress {
            self.slab.note(id).progress = progress;
            self.changed(id, out);
        }
        if self.is_to_end(id) {
            Answer::Late
        } else {
            Answer::Done
        }
    }

    /// An attempt has failed; another follows, or the task dies.
    pub(super) fn fail(&mut self, id: u32, error: String, out: &mut Vec<Output>) {
        if self.is_to_end(id) {
            return self.end_as_told(id, out);
        }
        self.leave_list(id);
        let slot = self.slot(id);
        let counted = slot.attempts.saturating_sub(slot.forgiven.into());
        if counted >= self.policy.retry.max_attempts.max(1) {
            return self.die(id, DeadReason::AttemptsExhausted, error, out);
        }
        let backoff = self.policy.retry.backoff(slot.offset, counted);
        let until = (self.now + backoff).as_millis();
        self.slab.note(id).error = error;
        self.touch(id);
        self.delay(id, until, out);
    }

    /// A lease came back unused: the task is ready again, and the attempt does not count.
    pub(super) fn requeue(&mut self, id: u32, out: &mut Vec<Output>) {
        if self.is_to_end(id) {
            return self.end_as_told(id, out);
        }
        self.leave_list(id);
        let slot = self.slot_mut(id);
        slot.forgiven = slot.forgiven.saturating_add(1);
        self.touch(id);
        self.make_ready(id, out);
    }

    /// The worker that a task is leased to has come back and does not have it. One that this owner granted is lost, as the stream that it was
    /// on has ended. One of an earlier owner may still be on a stream to that one, and the worker may begin it any moment.
    pub(super) fn miss(&mut self, id: u32, out: &mut Vec<Output>) {
        let slot = self.slot(id);
        if slot.epoch >= self.tenure.epoch.0 || self.grace.is_zero() {
            return self.requeue(id, out);
        }
        if !slot.flags.has(Flags::ADRIFT) {
            let now = self.now.as_millis();
            let slot = self.slot_mut(id);
            slot.flags.set(Flags::ADRIFT);
            slot.mark = now;
            self.arm_running(id);
        }
    }

    /// The worker has the task, or had it.
    fn find_again(&mut self, id: u32) {
        if self.slot(id).flags.has(Flags::ADRIFT) {
            self.slot_mut(id).flags.clear(Flags::ADRIFT);
            self.arm_running(id);
        }
    }

    pub(super) fn cancel(&mut self, offset: u64, out: &mut Vec<Output>) -> Answer {
        let Some(id) = self.slot_of(offset) else {
            return self.where_else(offset);
        };
        if self.slot(id).state == State::Leased {
            self.slot_mut(id).flags.set(Flags::CANCEL);
            self.touch(id);
            self.stop(id, out);
        } else {
            self.end(id, Ending::Cancelled, Bytes::new(), out);
        }
        Answer::Done
    }

    pub(super) fn hasten(&mut self, offset: u64, out: &mut Vec<Output>) -> Answer {
        let Some(id) = self.slot_of(offset) else {
            return self.where_else(offset);
        };
        match self.slot(id).state {
            State::Delayed | State::Parked if self.slot(id).flags.has(Flags::CARRIED) => {
                self.want(id, out);
                Answer::Done
            }
            State::Delayed | State::Parked => {
                self.leave_list(id);
                self.touch(id);
                self.make_ready(id, out);
                Answer::Done
            }
            _ => Answer::Late,
        }
    }

    pub(super) fn watch(&mut self, offset: u64) -> Answer {
        let Some(id) = self.slot_of(offset) else {
            return self.where_else(offset);
        };
        self.slot_mut(id).flags.set(Flags::WATCHED);
        Answer::Done
    }

    /// What to answer about a task that is not live here.
    fn where_else(&self, offset: u64) -> Answer {
        match self.find(Offset(offset)) {
            Found::Elsewhere | Found::Ahead => Answer::Elsewhere,
            _ => Answer::Late,
        }
    }

    /// Tells the worker of a running task to stop; nothing if it does not run.
    pub(super) fn stop(&mut self, id: u32, out: &mut Vec<Output>) {
        let slot = self.slot(id);
        if slot.state == State::Leased {
            let lease = HeldLease {
                partition: self.tenure.shard.partition,
                offset: Offset(slot.offset),
                token: slot.token(),
            };
            out.push(Output::Stop {
                worker: self.workers.id(slot.worker),
                lease,
            });
        }
    }

    fn is_to_end(&self, id: u32) -> bool {
        let flags = self.slot(id).flags;
        flags.has(Flags::CANCEL) || flags.has(Flags::EXPIRE)
    }

    /// Ends a task that was to end as soon as its attempt does.
    fn end_as_told(&mut self, id: u32, out: &mut Vec<Output>) {
        let ending = if self.slot(id).flags.has(Flags::CANCEL) {
            Ending::Cancelled
        } else {
            Ending::Expired
        };
        self.end(id, ending, Bytes::new(), out);
    }
}
