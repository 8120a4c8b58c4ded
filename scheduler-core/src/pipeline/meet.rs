//! Where ready tasks and waiting credits meet.

use std::cmp::Reverse;

use super::{Effect, PipelineNode};
use crate::id::{LeaseToken, Offset, Partition, WorkerId};
use crate::outcome::AttemptOutcome;
use crate::port::gateway::{Lease, WorkerEvent};
use crate::shard::{Input, Output, Shard};
use crate::task::Priority;
use crate::time::Timestamp;

/// A shard with ready tasks: the greatest has the most urgent, and of those the longest waiting.
pub(super) type Ready = (Option<(Priority, Reverse<Timestamp>)>, Partition);

fn ready(partition: Partition, shard: &Shard) -> Option<Ready> {
    (shard.ready() > 0).then(|| {
        let urgency = shard
            .next_ready()
            .map(|(priority, since)| (priority, Reverse(since)));
        (urgency, partition)
    })
}

impl PipelineNode {
    /// Lets ready tasks meet waiting credits, and tells those who share their room what it came to.
    pub fn dispatch(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.paused {
            self.meet(now, effects);
        }
        self.tell_waiting(effects);
    }

    fn meet(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.waiting.is_empty() {
            return;
        }
        // All shards are looked at once, and then those that were asked: there may be a thousand of them, and as many sessions.
        let mut shards = std::mem::take(&mut self.ready);
        shards.extend(
            self.shards
                .iter()
                .filter_map(|(partition, shard)| ready(*partition, shard)),
        );
        // How many have not had their share in this round.
        let mut left = self.waiting.len();
        while let Some(&id) = self.waiting.front() {
            left = if left == 0 { self.waiting.len() } else { left };
            let Some(session) = self.sessions.get(&id).filter(|session| session.credit() > 0) else {
                self.waiting.pop_front();
                left -= 1;
                continue;
            };
            let Some((_, partition)) = shards.pop() else {
                break;
            };
            let Some(shard) = self.shards.get_mut(&partition) else {
                continue;
            };
            // Each worker gets its share of what is there, so that a few tasks do not queue up behind one of many.
            let fair = shard.ready().div_ceil(u32::try_from(left).unwrap_or(u32::MAX));
            let limit = session.credit().min(fair.max(1));
            let worker = session.worker;
            self.dues.touch(partition);
            shard.handle(now, Input::Ask { worker, limit }, &mut self.outputs);
            self.waiting.rotate_left(1);
            left -= 1;
            let leased = self.spread(now, partition, effects);
            shards.extend(
                self.shards
                    .get(&partition)
                    .and_then(|shard| ready(partition, shard)),
            );
            if leased == 0 {
                // What was ready has expired as it was asked for; look again.
                continue;
            }
            let is_served = self.sessions.get(&id).is_none_or(|session| session.credit() == 0);
            if is_served && self.waiting.back() == Some(&id) {
                self.waiting.pop_back();
            }
        }
        shards.clear();
        self.ready = shards;
    }

    /// Tells sessions that share their worker's room when it becomes so, and when it is no longer so, that tasks wait here for their credit.
    ///
    /// Only change is told: a worker under full load, whose credit is used as it comes, hears nothing.
    fn tell_waiting(&mut self, effects: &mut Vec<Effect>) {
        for id in std::mem::take(&mut self.answered) {
            if let Some(session) = self.sessions.get_mut(&id)
                && session.credit() > 0
            {
                session.waits = false;
                effects.push(Effect::Tell(id, WorkerEvent::Waiting(false)));
            }
        }
        if self.unaware.is_empty() || self.paused || self.shards.values().all(|shard| shard.ready() == 0) {
            return;
        }
        for id in std::mem::take(&mut self.unaware) {
            // It may have been given credit since it was found without.
            if let Some(session) = self.sessions.get_mut(&id)
                && !session.draining
                && session.credit() == 0
            {
                session.waits = true;
                effects.push(Effect::Tell(id, WorkerEvent::Waiting(true)));
            }
        }
    }

    /// Makes effects of a shard's outputs; answers how many leases were among them.
    pub(super) fn spread(
        &mut self,
        now: Timestamp,
        partition: Partition,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let mut leases: Vec<Lease> = Vec::new();
        let mut holder = None;
        let mut outputs = std::mem::take(&mut self.outputs);
        // Leases of one call are one worker's.
        for output in outputs.drain(..) {
            match output {
                Output::Lease { worker, lease } => {
                    holder = Some(worker);
                    leases.push(lease);
                }
                Output::Stop { worker, lease } => {
                    if let Some(session) = self.by_worker.get(&worker) {
                        effects.push(Effect::Tell(*session, WorkerEvent::Stop(vec![lease])));
                    }
                }
                Output::Settled { worker, count, more } => {
                    self.settled(now, partition, worker, (count, more), effects);
                }
                Output::Changed(offset) => effects.push(Effect::Changed(partition, offset)),
                Output::Save(checkpoint) => effects.push(Effect::Save(checkpoint)),
                Output::Truncate(offset) => effects.push(Effect::Truncate(partition, offset)),
                Output::LoadParked {
                    page,
                    after,
                    until,
                    limit,
                } => {
                    effects.push(Effect::LoadParked {
                        partition,
                        page,
                        after,
                        until,
                        limit,
                    });
                }
            }
        }
        self.outputs = outputs;
        let count = leases.len();
        if let Some(worker) = holder {
            self.hand_out(now, partition, worker, leases, effects);
        }
        count
    }

    fn hand_out(
        &mut self,
        now: Timestamp,
        partition: Partition,
        worker: WorkerId,
        leases: Vec<Lease>,
        effects: &mut Vec<Effect>,
    ) {
        // A worker with a session may poll as well: whoever waits in front has asked.
        let asked = self.waiting.back().copied();
        let session = asked.and_then(|id| self.sessions.get_mut(&id).map(|session| (id, session)));
        match session.filter(|(_, session)| session.worker == worker) {
            Some((id, session)) if session.is_poll => {
                self.sessions.remove(&id);
                self.waiting.pop_back();
                effects.push(Effect::Answer(id, leases));
            }
            Some((id, session)) => {
                session.spend(u32::try_from(leases.len()).unwrap_or(u32::MAX));
                if session.shares && !session.waits && session.credit() == 0 {
                    self.unaware.insert(id);
                }
                session.say_settled(id, effects);
                effects.push(Effect::Tell(id, WorkerEvent::Leases(leases)));
            }
            None => {
                // Nobody is there to take them: they go back at once.
                for Lease { offset, token, .. } in leases {
                    self.give_back(now, partition, worker, offset, token, effects);
                }
            }
        }
    }

    /// Returns a lease that could not be handed to its worker.
    pub fn give_back(
        &mut self,
        now: Timestamp,
        partition: Partition,
        worker: WorkerId,
        offset: Offset,
        token: LeaseToken,
        effects: &mut Vec<Effect>,
    ) {
        self.tell_shard(
            now,
            partition,
            Input::Report {
                worker,
                offset,
                token,
                outcome: AttemptOutcome::Returned,
            },
            effects,
        );
    }
}
