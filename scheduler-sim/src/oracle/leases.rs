//! Promise 2: in one epoch a task has at most one live lease, and no token is given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scheduler_core::id::{Epoch, LeaseToken, Offset, Partition, WorkerId};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::time::Timestamp;

use super::said::Saying;

#[derive(Debug)]
pub(super) struct Leases {
    heartbeat: Duration,
    run: Duration,
    tokens: BTreeSet<(Partition, Offset, LeaseToken)>,
    /// By the epoch that vouches for it, which may be later than that of the token.
    live: BTreeMap<(Partition, Epoch, Offset), Live>,
}

/// A lease that nobody else may have meanwhile.
#[derive(Clone, Copy, Debug)]
struct Live {
    node: usize,
    worker: WorkerId,
    token: LeaseToken,
    /// When the lease began, or the owner took it over.
    since: Timestamp,
    /// The last sign of life.
    seen: Timestamp,
}

impl Leases {
    pub(super) fn new(policy: &PipelinePolicy) -> Self {
        Self {
            heartbeat: policy.timeouts.heartbeat,
            run: policy.timeouts.run,
            tokens: BTreeSet::new(),
            live: BTreeMap::new(),
        }
    }

    pub(super) fn node_gone(&mut self, node: usize) {
        self.live.retain(|_, live| live.node != node);
    }

    /// A worker gives a sign of life to the shards of a node, or to one of them.
    pub(super) fn alive(
        &mut self,
        node: usize,
        partition: Option<Partition>,
        worker: WorkerId,
        now: Timestamp,
    ) {
        let heartbeat = self.heartbeat;
        self.live.retain(|key, live| {
            let is_meant =
                (live.node, live.worker) == (node, worker) && partition.is_none_or(|of| of == key.0);
            if !is_meant {
                return true;
            }
            // After too long a silence the lease may have been over already.
            let is_live = now < live.seen + heartbeat;
            live.seen = now;
            is_live
        });
    }

    /// A sign of life for one lease alone.
    pub(super) fn extended(
        &mut self,
        node: usize,
        partition: Partition,
        offset: Offset,
        token: LeaseToken,
        now: Timestamp,
    ) {
        let heartbeat = self.heartbeat;
        self.live.retain(|key, live| {
            let is_meant = live.node == node && (key.0, key.2) == (partition, offset) && live.token == token;
            let is_live = now < live.seen + heartbeat;
            if is_meant {
                live.seen = now;
            }
            !is_meant || is_live
        });
    }

    #[expect(clippy::too_many_arguments, reason = "a hello has many parts")]
    pub(super) fn attached(
        &mut self,
        node: usize,
        partition: Partition,
        epoch: Epoch,
        worker: WorkerId,
        now: Timestamp,
        held: &[(Offset, LeaseToken)],
        reports: &[Saying],
    ) {
        self.alive(node, Some(partition), worker, now);
        // What it does not hold is not its own any more.
        let range = (partition, epoch, Offset::ZERO)..(partition, Epoch(epoch.0 + 1), Offset::ZERO);
        let gone: Vec<_> = self
            .live
            .range(range)
            .filter(|(key, live)| {
                let is_held = held.contains(&(key.2, live.token));
                let is_reported = reports
                    .iter()
                    .any(|said| said.offset == key.2 && said.token == live.token);
                live.worker == worker && (!is_held || is_reported)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.live.remove(&key);
        }
    }

    pub(super) fn reported(
        &mut self,
        node: usize,
        partition: Partition,
        epoch: Epoch,
        worker: WorkerId,
        now: Timestamp,
        said: Saying,
    ) {
        self.alive(node, Some(partition), worker, now);
        self.stopped_under(partition, epoch, said.offset, said.token);
    }

    /// Whether the owner that has granted a lease still takes it for live.
    pub(super) fn is_live(&self, partition: Partition, offset: Offset, token: LeaseToken) -> bool {
        let live = self.live.get(&(partition, token.epoch, offset));
        live.is_some_and(|live| live.token == token)
    }

    pub(super) fn stopped(&mut self, partition: Partition, offset: Offset, token: LeaseToken) {
        // A lease may be vouched for by a later epoch than its own.
        let of_task: Vec<_> = self
            .live
            .iter()
            .filter(|(key, live)| (key.0, key.2) == (partition, offset) && live.token == token)
            .map(|(key, _)| *key)
            .collect();
        for key in of_task {
            self.live.remove(&key);
        }
    }

    fn stopped_under(&mut self, partition: Partition, epoch: Epoch, offset: Offset, token: LeaseToken) {
        let key = (partition, epoch, offset);
        if self.live.get(&key).is_some_and(|live| live.token == token) {
            self.live.remove(&key);
        }
    }

    pub(super) fn granted(
        &mut self,
        node: usize,
        partition: Partition,
        worker: WorkerId,
        now: Timestamp,
        offset: Offset,
        token: LeaseToken,
    ) -> Result<(), String> {
        if !self.tokens.insert((partition, offset, token)) {
            return Err(format!("{token:?} of {partition:?} {offset:?} is given twice"));
        }
        let live = Live {
            node,
            worker,
            token,
            since: now,
            seen: now,
        };
        let Some(before) = self.live.insert((partition, token.epoch, offset), live) else {
            return Ok(());
        };
        let is_live = now < before.since + self.run && now < before.seen + self.heartbeat;
        if is_live {
            return Err(format!(
                "{partition:?} {offset:?} is leased to {:?} under {:?}, and at {now:?} to {worker:?} under {token:?}",
                before.worker, before.token
            ));
        }
        Ok(())
    }
}
