//! Does what a node's host wants done for the life of shards. The runtime's `actor/shell.rs`.

use std::time::Duration;

use scheduler_core::host::{self, Effect, Effects, Host, Stay, Trouble, Word};
use scheduler_core::id::{Epoch, Offset, Partition, Tenure};
use scheduler_core::key::SeenKey;
use scheduler_core::pipeline;
use scheduler_core::port::gateway::{HeldLease, WorkerEvent};
use scheduler_core::port::log::Bounds;
use scheduler_core::port::store::{Claimed, PreviousOwner};
use scheduler_core::shard::{PageId, Shard};
use scheduler_core::task::Record;
use scheduler_core::time::{Timestamp, millis};

use super::{Mail, PollCall, ReadError, Request};
use crate::calls::{LogCall, StoreOp};
use crate::coverage::Point;
use crate::placement::Step as PlacementStep;
use crate::world::{Happening, World};

/// What the oracle has to know of a shard's stay.
#[derive(Debug)]
pub(crate) struct Seen {
    /// By what right it came up, after whom.
    epoch: Epoch,
    pub(crate) previous: PreviousOwner,
    /// How far the log went when the shard came up.
    pub(crate) log_end: Offset,
    /// Whether it has loaded all rows that its last owner had in memory.
    pub(crate) recovered: bool,
    /// Up to where its first page went: what its last owner had in memory is wanted by then.
    pub(crate) inherited_until: Option<Timestamp>,
}

/// Who waits for a checkpoint.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A change that was made in this epoch.
    Change(Request, Epoch),
    /// Who reported what without a session, and whether its end is promised to be saved.
    Report(PollCall, HeldLease, bool),
    Nobody,
}

impl host::Waiter for Waiter {
    fn has_gone(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

impl World {
    /// Tells a node's host something, and does what it wants done for that at once.
    pub(super) fn with_host<T>(
        &mut self,
        index: usize,
        now: Timestamp,
        tell: impl FnOnce(&mut Host<Waiter, ()>, &mut Effects<Waiter, ()>) -> T,
    ) -> T {
        let node = &mut self.nodes[index];
        let answer = tell(&mut node.host, &mut node.effects);
        self.obey(index, now);
        answer
    }

    /// Does what a node's host wants done.
    pub(super) fn obey(&mut self, index: usize, now: Timestamp) {
        let effects = std::mem::take(&mut self.nodes[index].effects.host);
        for effect in &effects {
            if let Effect::Left {
                partition,
                ran: Some((_, tail)),
            } = effect
            {
                self.nodes[index].left.insert(*partition, *tail);
            }
        }
        for effect in effects {
            self.obey_one(index, now, effect);
        }
        self.nodes[index].left.clear();
    }

    fn obey_one(&mut self, index: usize, now: Timestamp, effect: Effect<Waiter, ()>) {
        match effect {
            Effect::Claim(stay) => {
                let node = self.nodes[index].id;
                self.new_store_call(index, StoreOp::Claim(stay, node));
            }
            Effect::Measure(stay) => self.call_log(index, LogCall::Bounds(stay)),
            Effect::Wake(stay, until) => {
                let at = self.nodes[index].clock.reaches(until).max(self.now + 1);
                self.mail_at(index, at, Mail::Due(stay));
            }
            Effect::Active {
                stay,
                tenure,
                from,
                missing,
            } => self.runs(index, stay.partition, tenure, from, missing),
            Effect::Read {
                stay,
                from,
                limit,
                pause,
            } => {
                self.nodes[index].reading.insert(stay);
                if pause == Duration::ZERO {
                    self.call_log(index, LogCall::Read { stay, from, limit });
                } else {
                    let at = self.now + millis(pause);
                    self.mail_at(index, at, Mail::Read(stay, from, limit));
                }
            }
            Effect::StopReading(stay) | Effect::Over(stay) => {
                self.nodes[index].reading.remove(&stay);
            }
            Effect::Release {
                stay,
                tenure,
                waiting,
            } => {
                self.nodes[index].reading.remove(&stay);
                self.new_store_call(index, StoreOp::Release(tenure, !waiting.is_empty()));
            }
            Effect::LetGo(partition, _) => self.released(index, partition),
            Effect::Saved(Waiter::Change(request, epoch)) => self.change_is_saved(&request, epoch),
            Effect::Saved(Waiter::Report(call, lease, is_promise)) => {
                self.polled_report_is_saved(call, lease, is_promise);
            }
            Effect::Saved(Waiter::Nobody) => (),
            Effect::Left { partition, ran } => {
                // What the shard has said before is right by what was said to it.
                self.watch_effects(index, now);
                if let Some((tenure, _)) = ran {
                    self.oracle.deactivated(index, partition, tenure.epoch, now);
                }
            }
            Effect::Troubled(partition) => self.troubled(index, partition),
            Effect::GoAway => {
                for telling in self.nodes[index].sessions.values_mut() {
                    telling.batch.push(WorkerEvent::GoAway);
                }
            }
        }
    }

    /// Something comes to the mailbox of a node later.
    pub(super) fn mail_at(&mut self, index: usize, at: u64, mail: Mail) {
        let life = self.nodes[index].life;
        self.queue.push(
            at,
            Happening::Mail {
                node: index,
                life,
                mail,
            },
        );
    }

    /// Placement takes partitions away.
    pub(super) fn take_away(
        &mut self,
        index: usize,
        now: Timestamp,
        partitions: &[Partition],
        tell: impl FnOnce(&mut Host<Waiter, ()>, &mut Effects<Waiter, ()>),
    ) {
        let host = &self.nodes[index].host;
        let is_left_alone =
            |partition: &&Partition| host.trouble(**partition).is_some_and(Trouble::is_left_alone);
        let left_alone: Vec<Partition> = partitions.iter().filter(is_left_alone).copied().collect();
        self.with_host(index, now, tell);
        for partition in left_alone {
            let told = self.nodes[index].effects.pipeline.iter().filter(|effect| {
                matches!(effect, pipeline::Effect::Tell(_, WorkerEvent::Moved(moved)) if *moved == partition)
            });
            let told = told.count();
            self.oracle.leaves(index, partition, told);
        }
    }

    fn troubled(&mut self, index: usize, partition: Partition) {
        match self.nodes[index].host.trouble(partition) {
            Some(Trouble::Quarantined { .. }) => {
                self.coverage.hit(Point::Quarantined);
                self.trace.note(&[11, partition.0.into()], || {
                    format!("{partition:?} is quarantined")
                });
            }
            Some(Trouble::Damaged(damage)) => {
                let what = format!("the saved state of {partition:?} cannot be read: {damage}");
                self.oracle.fail("state", what);
            }
            _ => (),
        }
    }

    /// The time has come for which a stay wanted to be told: to claim a shard again that another owner had.
    pub(super) fn due(&mut self, index: usize, now: Timestamp, stay: Stay) {
        let node = &mut self.nodes[index];
        node.host.hear(now, stay, Word::Due, &mut node.effects);
        if let Some(Effect::Claim(_)) = node.effects.host.last() {
            self.coverage.hit(Point::ReclaimedAfterFence);
        }
        self.obey(index, now);
    }

    pub(super) fn claimed(&mut self, index: usize, now: Timestamp, stay: Stay, claimed: Claimed) {
        if !self.nodes[index].host.is_here(stay) {
            return;
        }
        let seen = Seen {
            epoch: claimed.epoch,
            previous: claimed.previous,
            log_end: Offset::ZERO,
            recovered: false,
            inherited_until: None,
        };
        self.nodes[index].seen.insert(stay.partition, seen);
        self.tell_stay(index, now, stay, Word::Claimed(claimed));
    }

    pub(super) fn tell_stay(&mut self, index: usize, now: Timestamp, stay: Stay, word: Word) -> bool {
        self.with_host(index, now, |host, effects| host.hear(now, stay, word, effects))
    }

    pub(super) fn bounds_read(&mut self, index: usize, stay: Stay, bounds: Option<Bounds>) {
        if !self.nodes[index].host.is_here(stay) {
            return;
        }
        if let Some(bounds) = bounds {
            self.new_store_call(index, StoreOp::Keys(stay, bounds));
        } else {
            let again = self.now + self.rng.range(50, 5_000);
            self.mail_at(index, again, Mail::Measure(stay));
        }
    }

    pub(super) fn measured(
        &mut self,
        index: usize,
        now: Timestamp,
        stay: Stay,
        bounds: Bounds,
        keys: Vec<SeenKey>,
    ) {
        let node = &mut self.nodes[index];
        if !node.host.is_here(stay) {
            return;
        }
        if let Some(seen) = node.seen.get_mut(&stay.partition) {
            seen.log_end = bounds.end;
            let epoch = seen.epoch;
            // What its sessions have said before is told to it as it comes up.
            self.oracle_activate(index, now, stay.partition, epoch);
        }
        self.tell_stay(index, now, stay, Word::Measured(bounds, keys));
    }

    fn runs(&mut self, index: usize, partition: Partition, tenure: Tenure, from: Offset, missing: u64) {
        let epoch = tenure.epoch;
        // Who was replaced meanwhile may find that its follower has truncated the log.
        if missing > 0 && self.oracle.are_lost(partition, from) {
            self.coverage.hit(Point::Missing);
        } else if missing > 0 && epoch.0 == self.store.shard(partition).epoch {
            self.oracle.fail(
                "log",
                format!("{missing} records of {partition:?} are gone before their time"),
            );
        }
        let seen = self.nodes[index].seen.get(&partition);
        let previous = seen.map_or(PreviousOwner::None, |seen| seen.previous);
        match previous {
            PreviousOwner::Vanished => self.coverage.hit(Point::AdoptedUnclean),
            PreviousOwner::Released => self.coverage.hit(Point::AdoptedReleased),
            PreviousOwner::None => (),
        }
        if epoch.0 >= 5 {
            self.coverage.hit(Point::ManyRecoveries);
        }
        self.trace
            .note(&[10, index as u64, partition.0.into(), epoch.0.into()], || {
                format!(
                    "node {index} runs {partition:?} from {from:?} under {epoch:?}, last owner {previous:?}"
                )
            });
    }

    /// Tells placement that a shard is let go.
    pub(super) fn released(&mut self, index: usize, partition: Partition) {
        let member = (index, self.nodes[index].life);
        let at = self.now + self.rng.range(1, 50);
        let step = PlacementStep::Released(member, partition);
        self.queue.push(at, Happening::Placement(step));
    }

    /// What has come of a read of the log.
    pub(super) fn records(
        &mut self,
        index: usize,
        now: Timestamp,
        stay: Stay,
        records: Result<Vec<Record>, ReadError>,
    ) {
        let word = match records {
            Ok(records) => {
                if self.tell_stay(index, now, stay, Word::Records(records)) {
                    self.watch_effects(index, now);
                    let shard = self.nodes[index].host.pipeline().shard(stay.partition);
                    if let Some(tenure) = shard.map(Shard::tenure) {
                        self.oracle.has_records(tenure);
                    }
                }
                return;
            }
            Err(ReadError::Unavailable) => Word::ReadLater,
            Err(ReadError::Truncated { start }) => {
                if self.nodes[index].host.is_here(stay) {
                    self.log_is_truncated(index, stay.partition, start);
                }
                Word::Truncated(start)
            }
        };
        self.tell_stay(index, now, stay, word);
    }

    fn log_is_truncated(&mut self, index: usize, partition: Partition, start: Offset) {
        if self.oracle.are_lost(partition, start) {
            return self.coverage.hit(Point::Missing);
        }
        let shard = self.nodes[index].host.pipeline().shard(partition);
        let read = shard.map(|shard| (shard.tenure(), shard.tail()));
        self.oracle.log_lost(&self.store, partition, read, start);
    }

    pub(super) fn load_parked(
        &mut self,
        index: usize,
        partition: Partition,
        number: PageId,
        (after, until, limit): (Option<(Timestamp, Offset)>, Timestamp, usize),
    ) {
        let node = &mut self.nodes[index];
        let Some(stay) = node.host.stay_of(partition) else {
            return;
        };
        if let Some(seen) = node.seen.get_mut(&partition) {
            seen.inherited_until.get_or_insert(until);
        }
        self.new_store_call(
            index,
            StoreOp::Page {
                stay,
                number,
                until,
                after,
                limit,
            },
        );
    }
}
