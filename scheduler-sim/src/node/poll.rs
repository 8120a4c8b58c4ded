//! Polls: leases for one answer, reports that are answered once they are saved. The runtime's `actor/sessions.rs` and `api/workers.rs`.

use scheduler_core::id::WorkerId;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::Event;
use scheduler_core::port::gateway::{HeldLease, Lease};
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Answer, Input};
use scheduler_core::time::Timestamp;

use super::Mail;
use super::host::Waiter;
use crate::coverage::Point;
use crate::poller::PollAnswer;
use crate::world::{Happening, World};

/// How long a poll waits for tasks.
const PATIENCE: u64 = 1_000;

/// Who has called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollCall {
    pub(crate) poller: usize,
    pub(crate) life: u32,
    /// Of a poll: which.
    pub(crate) number: u64,
    pub(crate) worker: WorkerId,
}

impl World {
    pub(super) fn poll(&mut self, index: usize, now: Timestamp, call: PollCall, limit: u32) {
        let node = &mut self.nodes[index];
        if node.host.hosted().next().is_none() {
            return;
        }
        let session = SessionId(node.next_session);
        node.next_session += 1;
        if !node
            .host
            .poll(now, session, call.worker, limit, &mut node.effects)
        {
            return;
        }
        node.polls.insert(session, call);
        let over = self.now + PATIENCE;
        self.mail_at(index, over, Mail::PollOver(session));
    }

    /// Nothing has come for a poll.
    pub(super) fn poll_is_over(&mut self, index: usize, now: Timestamp, session: SessionId) {
        if let Some(call) = self.nodes[index].polls.remove(&session) {
            self.event(index, now, Event::Close(session));
            self.answer_poller(call, PollAnswer::Leases(Vec::new()));
        }
    }

    pub(super) fn answer_poll(&mut self, index: usize, session: SessionId, leases: Vec<Lease>) {
        let Some(call) = self.nodes[index].polls.remove(&session) else {
            return;
        };
        if !self.is_healed && self.rng.chance(100) {
            // Whoever asked has gone: the leases go back at once.
            self.coverage.hit(Point::PollGone);
            let now = self.nodes[index].clock.now(self.now);
            for Lease {
                partition,
                offset,
                token,
                ..
            } in leases
            {
                self.oracle.polled_back(partition, offset, token);
                let node = &mut self.nodes[index];
                node.host
                    .give_back(now, partition, offset, token, &mut node.effects);
            }
            return;
        }
        self.answer_poller(call, PollAnswer::Leases(leases));
    }

    /// An answer on its way, which may be lost.
    fn answer_poller(&mut self, call: PollCall, answer: PollAnswer) {
        let at = self.now + self.net_delay();
        if self.is_healed || !self.rng.chance(30) {
            self.queue.push(at, Happening::Polled(call, answer));
        }
    }

    pub(super) fn polled_report(
        &mut self,
        index: usize,
        now: Timestamp,
        call: PollCall,
        lease: HeldLease,
        outcome: AttemptOutcome,
    ) {
        let HeldLease {
            partition,
            offset,
            token,
        } = lease;
        self.oracle_polled(index, now, call.worker, lease, true);
        let is_success = matches!(outcome, AttemptOutcome::Succeeded { .. });
        let input = Input::Report {
            worker: call.worker,
            offset,
            token,
            outcome,
        };
        let answer = self.tell_shard(index, now, partition, input);
        if answer == Answer::Elsewhere {
            // It reports again.
            return self.coverage.hit(Point::PollElsewhere);
        }
        let is_promise = is_success && answer == Answer::Done;
        let waiter = Waiter::Report(call, lease, is_promise);
        self.with_host(index, now, |host, effects| {
            host.when_saved(now, partition, waiter, effects)
        });
    }

    /// The report is in a checkpoint that is saved.
    pub(super) fn polled_report_is_saved(&mut self, call: PollCall, lease: HeldLease, is_promise: bool) {
        if is_promise {
            self.oracle_polled_is_settled(lease);
        }
        self.answer_poller(call, PollAnswer::Settled(lease));
    }

    pub(super) fn polled_extend(&mut self, index: usize, now: Timestamp, call: PollCall, lease: HeldLease) {
        let HeldLease {
            partition,
            offset,
            token,
        } = lease;
        let input = Input::Extend {
            worker: call.worker,
            offset,
            token,
            progress: None,
        };
        self.oracle_polled(index, now, call.worker, lease, false);
        if self.tell_shard(index, now, partition, input) == Answer::Late {
            self.answer_poller(call, PollAnswer::Over(lease));
        }
    }
}
