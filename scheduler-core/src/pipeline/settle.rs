//! When workers hear that their reports are saved.
//!
//! It lets them forget what nobody will ask them for again, so it may wait a little: for the next lease, which is a message anyway. Where there
//! are many workers with room for few tasks it is every second message. It does not wait where nothing else is going to be said, where
//! somebody waits for it, or where it frees much.

use std::time::Duration;

use super::{Effect, PipelineNode};
use crate::id::{Epoch, Partition, WorkerId};
use crate::port::gateway::WorkerEvent;
use crate::session::{Session, SessionId};
use crate::time::Timestamp;

/// How long it may wait.
const WITHIN: Duration = Duration::from_secs(1);
/// Of how many reports, at most.
const MOST: u64 = 32;

/// What a session has not been told.
#[derive(Debug, Default)]
pub(crate) struct Unsaid {
    /// How many of its reports are saved; at most one entry a partition.
    settled: Vec<(Partition, Epoch, u64)>,
    /// How many of these are news.
    reports: u64,
    /// Whether it is among those that are told when the time has come.
    is_listed: bool,
}

impl Unsaid {
    fn add(&mut self, partition: Partition, epoch: Epoch, count: u64, more: u64) {
        self.reports += more;
        match self.settled.iter_mut().find(|(other, ..)| *other == partition) {
            Some(older) => *older = (partition, epoch, count),
            None => self.settled.push((partition, epoch, count)),
        }
    }
}

impl Session {
    /// Has it told now, ahead of what is said next.
    pub(crate) fn say_settled(&mut self, id: SessionId, effects: &mut Vec<Effect>) {
        self.unsaid.reports = 0;
        for (partition, epoch, count) in self.unsaid.settled.drain(..) {
            let settled = WorkerEvent::Settled {
                partition,
                epoch,
                count,
            };
            effects.push(Effect::Tell(id, settled));
        }
    }
}

impl PipelineNode {
    /// A checkpoint covers the first `count` of a worker's reports of a partition, `more` of them since the last one.
    pub(super) fn settled(
        &mut self,
        now: Timestamp,
        partition: Partition,
        worker: WorkerId,
        (count, more): (u64, u64),
        effects: &mut Vec<Effect>,
    ) {
        let (Some(&id), Some(shard)) = (self.by_worker.get(&worker), self.shards.get(&partition)) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.unsaid.add(partition, shard.tenure().epoch, count, more);
        if self.paused || session.draining || session.unsaid.reports >= MOST {
            session.say_settled(id, effects);
        } else if !std::mem::replace(&mut session.unsaid.is_listed, true) {
            self.say_settled_at = self.say_settled_at.min(now + WITHIN);
            self.unsaid.push(id);
        }
    }

    /// Tells those who have waited.
    pub(super) fn say_all_settled(&mut self, effects: &mut Vec<Effect>) {
        self.say_settled_at = Timestamp::MAX;
        for id in self.unsaid.drain(..) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.unsaid.is_listed = false;
                session.say_settled(id, effects);
            }
        }
    }
}
