//! Calls of log and store on their way: late, lost, done and not heard of.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::host::Stay;
use scheduler_core::id::{Epoch, NodeId, Offset, Partition, Tenure};
use scheduler_core::key::SeenKey;
use scheduler_core::outcome::{DeadTask, ParkedTask};
use scheduler_core::port::log::{Bounds, ReadLimit};
use scheduler_core::port::store::{Claimed, Saved};
use scheduler_core::retry::Backoff;
use scheduler_core::saver::Order;
use scheduler_core::shard::PageId;
use scheduler_core::time::Timestamp;

use crate::coverage::Point;
use crate::node::{Mail, ReadError, Request};
use crate::world::{Happening, World};

/// A call of the store by a node.
#[derive(Clone, Debug)]
pub(crate) struct StoreCall {
    pub(crate) node: usize,
    pub(crate) life: u32,
    /// How long to wait before it is made again, should it fail.
    pub(crate) backoff: Backoff,
    /// Nobody waits for its answer any more.
    pub(crate) is_late: bool,
    pub(crate) op: StoreOp,
}

#[derive(Clone, Debug)]
pub(crate) enum StoreOp {
    Claim(Stay, NodeId),
    Save(Vec<Order<Stay>>),
    /// Whether placement is to hear of it.
    Release(Tenure, bool),
    Page {
        stay: Stay,
        number: PageId,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        limit: usize,
    },
    /// The page is read; when is the next task wanted?
    Next {
        stay: Stay,
        number: PageId,
        last: Option<(Timestamp, Offset)>,
        page: Arc<Vec<ParkedTask>>,
    },
    Keys(Stay, Bounds),
    Row(Request),
    Dead(Request),
}

#[derive(Debug)]
pub(crate) enum StoreAnswer {
    Claimed(Claimed),
    Saved(Vec<Saved>),
    /// Nothing of it is saved, and never will be.
    Damaged,
    Done,
    Rows(Vec<ParkedTask>),
    /// With the epoch that the shard has then.
    Next(Vec<ParkedTask>, Epoch),
    Keys(Vec<SeenKey>),
    Row(Option<ParkedTask>, Epoch),
    Dead(Option<DeadTask>, Epoch),
}

/// A call of the log by a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogCall {
    Bounds(Stay),
    Read {
        stay: Stay,
        from: Offset,
        limit: ReadLimit,
    },
    Truncate(Partition, Offset),
}

impl World {
    fn store_delay(&mut self) -> u64 {
        let faults = &self.plan.store;
        let (low, high) = (1, faults.latency.max(1));
        if self.now < self.store_slow_until {
            return self.rng.range(500, 5_000);
        }
        if !self.is_healed && self.rng.chance(self.plan.store.slow) {
            return self.rng.range(high, self.plan.store.slowest.max(high));
        }
        self.rng.range(low, high)
    }

    pub(crate) fn call_store(&mut self, call: StoreCall) {
        let at = self.now + self.store_delay();
        self.queue.push(at, Happening::StoreCall(call));
    }

    /// A call reaches the store.
    pub(crate) fn store_call(&mut self, call: StoreCall) {
        let is_away = self.now < self.store_away_until;
        if is_away || !self.is_healed && self.rng.chance(self.plan.store.unavailable) {
            self.coverage.hit(Point::StoreUnavailable);
            return self.store_answers(call, None);
        }
        if !self.is_healed && self.rng.chance(self.plan.store.late) && !call.is_late {
            // Its caller hears that it has failed, and tries again; the store does it all the same, sometime.
            self.coverage.hit(Point::StoreLate);
            let at = self.now + self.rng.skewed(1, 20_000);
            let late = StoreCall {
                is_late: true,
                ..call.clone()
            };
            self.queue.push(at, Happening::StoreCall(late));
            return self.store_answers(call, None);
        }
        let answer = self.do_stored(&call);
        if call.is_late {
            return;
        }
        if !self.is_healed && self.rng.chance(self.plan.store.lost_reply) {
            self.coverage.hit(Point::StoreLostReply);
            return self.store_answers(call, None);
        }
        self.store_answers(call, Some(answer));
    }

    fn store_answers(&mut self, call: StoreCall, answer: Option<StoreAnswer>) {
        let at = self.now + self.store_delay();
        let (node, life) = (call.node, call.life);
        let mail = Mail::Stored(call, answer);
        self.queue.push(at, Happening::Mail { node, life, mail });
    }

    fn do_stored(&mut self, call: &StoreCall) -> StoreAnswer {
        match &call.op {
            StoreOp::Claim(stay, node) => {
                let partition = stay.partition;
                let claimed = self.store.claim(partition, *node);
                self.trace
                    .note(&[20, partition.0.into(), claimed.epoch.0.into()], || {
                        format!("store: node {} claims {partition:?}: {claimed:?}", call.node)
                    });
                StoreAnswer::Claimed(claimed)
            }
            StoreOp::Save(checkpoints) if self.is_damaged(checkpoints) => StoreAnswer::Damaged,
            StoreOp::Save(checkpoints) => StoreAnswer::Saved(
                checkpoints
                    .iter()
                    .map(|(checkpoint, _)| self.save(checkpoint))
                    .collect(),
            ),
            StoreOp::Release(tenure, _) => {
                self.trace.note(&[22, tenure.epoch.0.into()], || {
                    format!("store: {tenure:?} is released")
                });
                self.store.release(*tenure);
                StoreAnswer::Done
            }
            StoreOp::Page {
                stay,
                until,
                after,
                limit,
                ..
            } => StoreAnswer::Rows(self.store.page(stay.partition, *until, *after, *limit)),
            StoreOp::Next { stay, last, .. } => {
                let next = self.store.page(stay.partition, Timestamp::MAX, *last, 1);
                StoreAnswer::Next(next, Epoch(self.store.shard(stay.partition).epoch))
            }
            StoreOp::Keys(stay, _) => StoreAnswer::Keys(self.store.shard(stay.partition).keys.clone()),
            StoreOp::Row(request) => {
                let rows = self.store.shard(request.partition);
                StoreAnswer::Row(rows.parked.get(&request.offset).cloned(), Epoch(rows.epoch))
            }
            StoreOp::Dead(request) => {
                let rows = self.store.shard(request.partition);
                StoreAnswer::Dead(rows.dead.get(&request.offset).cloned(), Epoch(rows.epoch))
            }
        }
    }

    /// Whether one of the shards of a transaction has rows that cannot be written.
    fn is_damaged(&self, orders: &[Order<Stay>]) -> bool {
        orders.iter().any(|(checkpoint, _)| {
            let until = self.store_damaged_until.get(&checkpoint.tenure.shard.partition);
            until.is_some_and(|until| self.now < *until)
        })
    }

    fn save(&mut self, checkpoint: &Arc<Checkpoint>) -> Saved {
        self.oracle.before_save(&mut self.store, checkpoint);
        let (saved, is_news) = self.store.save(checkpoint);
        let tenure = checkpoint.tenure;
        self.trace.note(
            &[21, tenure.shard.partition.0.into(), tenure.epoch.0.into(), checkpoint.id.0, checkpoint.resume.0],
            || {
                let offsets = |all: Vec<Offset>| all.iter().map(|offset| offset.0).collect::<Vec<_>>();
                format!(
                    "store: {tenure:?} {:?} resume {:?}, finished {:?}, dead {:?}, parked {:?}, unparked {:?}, revived {:?}: {saved:?}",
                    checkpoint.id,
                    checkpoint.resume,
                    offsets(checkpoint.finished.iter().map(|task| task.offset).collect()),
                    offsets(checkpoint.dead.iter().map(|task| task.offset).collect()),
                    checkpoint.parked.iter().map(|task| (task.offset.0, task.wake_at)).collect::<Vec<_>>(),
                    offsets(checkpoint.unparked.clone()),
                    offsets(checkpoint.revived.clone()),
                )
            },
        );
        if is_news {
            self.after_save_is_stored(checkpoint);
        }
        saved
    }

    fn log_delay(&mut self) -> u64 {
        let most = self.plan.log.latency.max(1);
        self.rng.range(1, most)
    }

    pub(crate) fn call_log(&mut self, node: usize, call: LogCall) {
        let at = self.now + self.log_delay();
        let life = self.nodes[node].life;
        self.queue.push(at, Happening::LogCall { node, life, call });
    }

    /// A call of a node reaches the log.
    pub(crate) fn log_call(&mut self, node: usize, life: u32, call: LogCall) {
        let is_away =
            self.now < self.log_away_until || !self.is_healed && self.rng.chance(self.plan.log.unavailable);
        let mail = match call {
            LogCall::Bounds(stay) => {
                let bounds = (!is_away).then(|| self.log.bounds(stay.partition));
                Mail::Measured(stay, bounds)
            }
            LogCall::Read { stay, .. } if is_away => Mail::Records(stay, Err(ReadError::Unavailable)),
            LogCall::Read {
                stay,
                from,
                mut limit,
            } => {
                // A fetch gives what is there, often less than was asked for.
                limit.records = 1 + self.rng.index(limit.records.max(1));
                match self.log.read(stay.partition, from, limit) {
                    Ok(records) if records.is_empty() => {
                        let again = LogCall::Read { stay, from, limit };
                        self.log_waiters
                            .entry(stay.partition)
                            .or_default()
                            .push((node, life, again));
                        return;
                    }
                    Ok(records) => Mail::Records(stay, Ok(records)),
                    Err(start) => Mail::Records(stay, Err(ReadError::Truncated { start })),
                }
            }
            LogCall::Truncate(partition, before) => {
                if !is_away && (self.is_healed || !self.rng.chance(self.plan.log.truncate_lost)) {
                    self.oracle.truncated(&mut self.store, partition, before);
                    self.log.truncate(partition, before);
                }
                return;
            }
        };
        let at = self.now + self.log_delay();
        self.queue.push(at, Happening::Mail { node, life, mail });
    }

    /// Wakes those who wait for records of a partition.
    pub(crate) fn log_has_grown(&mut self, partition: Partition) {
        for (node, life, call) in self.log_waiters.remove(&partition).unwrap_or_default() {
            let at = self.now + self.log_delay();
            self.queue.push(at, Happening::LogCall { node, life, call });
        }
    }
}
