//! The shards that live on a node: how they come up, and let go. The runtime's `actor/host.rs`.

use scheduler_core::activation::{Activation, Step};
use scheduler_core::id::{CheckpointId, Offset, Partition, Tenure};
use scheduler_core::key::SeenKey;
use scheduler_core::pipeline::Event;
use scheduler_core::port::gateway::HeldLease;
use scheduler_core::port::log::{Bounds, ReadLimit};
use scheduler_core::port::store::{Claimed, PreviousOwner};
use scheduler_core::shard::{Input, PageId, Shard};
use scheduler_core::time::Timestamp;

use super::{Mail, PollCall, Request, shard_id};
use crate::calls::{LogCall, StoreOp};
use crate::coverage::Point;
use crate::placement::Step as PlacementStep;
use crate::world::{Happening, World};

/// A shard that lives here, or is about to.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) activation: Activation,
    pub(super) forwarder: Option<Forwarder>,
    /// Whether the log's first records are in.
    pub(super) has_records: bool,
    /// Tells this stay of the shard from those before.
    pub(super) stay: u64,
    /// Changes with each save.
    pub(super) mark: u64,
    /// Who waits for which checkpoint.
    pub(super) waiting: Vec<(CheckpointId, Waiter)>,
    /// Whether placement waits for its release.
    is_revoked: bool,
    /// How far the log went when the shard came up; what it was told of the last owner.
    pub(crate) log_end: Offset,
    pub(crate) previous: PreviousOwner,
    /// Whether it has loaded all rows that its last owner had in memory.
    pub(crate) recovered: bool,
    /// Up to where its first page went: what its last owner had in memory is wanted by then.
    pub(crate) inherited_until: Option<Timestamp>,
}

/// Who waits for a checkpoint.
#[derive(Debug)]
pub(super) enum Waiter {
    Change(Request),
    /// Who reported what without a session, and whether its end is promised to be saved.
    Report(PollCall, HeldLease, bool),
}

#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(super) id: u64,
    pub(super) next: Offset,
    pub(super) limit: ReadLimit,
    /// Whether it was told to read and has not answered.
    pub(super) reading: bool,
}

impl World {
    pub(super) fn assign(&mut self, index: usize, partition: Partition, insist: bool) {
        let node = &mut self.nodes[index];
        if node.hosted.contains_key(&partition) {
            return;
        }
        let policy = node.policy.clone();
        let (activation, step) = Activation::begin(shard_id(partition), node.id, policy, self.plan.grace());
        node.quarantined.remove(&partition);
        let activation = if insist {
            activation.insisting()
        } else {
            activation
        };
        self.stay(index, partition, activation);
        self.step(index, Timestamp::ZERO, partition, step);
    }

    /// Begins a stay of a shard.
    fn stay(&mut self, index: usize, partition: Partition, activation: Activation) {
        let node = &mut self.nodes[index];
        node.last_mark += 2;
        let (stay, mark) = (node.last_mark - 1, node.last_mark);
        let hosted = Hosted {
            activation,
            forwarder: None,
            has_records: false,
            stay,
            mark,
            waiting: Vec::new(),
            is_revoked: false,
            log_end: Offset::ZERO,
            previous: PreviousOwner::None,
            recovered: false,
            inherited_until: None,
        };
        node.hosted.insert(partition, hosted);
    }

    /// The time has come to claim a shard again that another owner had.
    pub(super) fn due(&mut self, index: usize, now: Timestamp, partition: Partition, stay: u64) {
        if !self.stays(index, partition, stay) {
            return;
        }
        if let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) {
            let step = hosted.activation.due(now);
            if matches!(step, Step::Claim) {
                self.coverage.hit(Point::ReclaimedAfterFence);
            }
            self.step(index, now, partition, step);
        }
    }

    pub(super) fn claimed(&mut self, index: usize, partition: Partition, claimed: Claimed) {
        let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) else {
            return;
        };
        let previous = claimed.previous;
        let step = hosted.activation.claimed(claimed);
        if !matches!(step, Step::Nothing) {
            hosted.previous = previous;
        }
        self.step(index, Timestamp::ZERO, partition, step);
    }

    /// Whether a shard is here still, for the stay that something was done for.
    pub(super) fn stays(&self, index: usize, partition: Partition, stay: u64) -> bool {
        self.nodes[index]
            .hosted
            .get(&partition)
            .is_some_and(|hosted| hosted.stay == stay)
    }

    pub(super) fn bounds_read(
        &mut self,
        index: usize,
        partition: Partition,
        stay: u64,
        bounds: Option<Bounds>,
    ) {
        if !self.stays(index, partition, stay) {
            return;
        }
        let Some(bounds) = bounds else {
            let life = self.nodes[index].life;
            let mail = Mail::Measure(partition, stay);
            let again = self.now + self.rng.range(50, 5_000);
            return self.queue.push(
                again,
                Happening::Mail {
                    node: index,
                    life,
                    mail,
                },
            );
        };
        self.new_store_call(index, stay, StoreOp::Keys(partition, bounds));
    }

    pub(super) fn measured(
        &mut self,
        index: usize,
        now: Timestamp,
        partition: Partition,
        bounds: Bounds,
        keys: Vec<SeenKey>,
    ) {
        let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) else {
            return;
        };
        match hosted.activation.measured(now, bounds) {
            Ok(step) => {
                if matches!(step, Step::Run { .. }) {
                    hosted.log_end = bounds.end;
                }
                self.step(index, now, partition, step);
                self.event(index, now, Event::Shard(partition, Input::Keys(keys)));
            }
            Err(damage) => self.oracle.fail(
                "state",
                format!("the saved state of {partition:?} cannot be read: {damage}"),
            ),
        }
    }

    /// Does what an activation wants done.
    fn step(&mut self, index: usize, now: Timestamp, partition: Partition, step: Step) {
        let stay = self.nodes[index]
            .hosted
            .get(&partition)
            .map_or(0, |hosted| hosted.stay);
        match step {
            Step::Claim => {
                let node = self.nodes[index].id;
                self.new_store_call(index, stay, StoreOp::Claim(partition, node));
            }
            Step::Measure => self.call_log(index, LogCall::Bounds(partition, stay)),
            Step::Run {
                shard,
                from,
                missing,
                log_end,
            } => {
                // Who was replaced meanwhile may find that its follower has truncated the log.
                if missing > 0 && self.oracle.are_lost(partition, from) {
                    self.coverage.hit(Point::Missing);
                } else if missing > 0 && shard.tenure().epoch.0 == self.store.shard(partition).epoch {
                    self.oracle.fail(
                        "log",
                        format!("{missing} records of {partition:?} are gone before their time"),
                    );
                }
                let node = &mut self.nodes[index];
                let epoch = shard.tenure().epoch;
                let Some(hosted) = node.hosted.get_mut(&partition) else {
                    return;
                };
                node.last_mark += 1;
                let is_leaving = hosted.activation.is_leaving();
                let forwarder = Forwarder {
                    id: node.last_mark,
                    next: from,
                    limit: ReadLimit { records: 1, bytes: 1 },
                    reading: false,
                };
                hosted.forwarder = (!is_leaving).then_some(forwarder);
                match hosted.previous {
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
                            "node {index} runs {partition:?} from {from:?} under {epoch:?}, last owner {:?}",
                            hosted.previous
                        )
                    });
                self.oracle_activate(index, now, partition, epoch);
                self.event(index, now, Event::Activate(shard));
                if is_leaving {
                    self.let_go(index, now, partition);
                } else if from >= log_end {
                    self.event(index, now, Event::Shard(partition, Input::Flush));
                }
            }
            Step::Leave => {
                if let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) {
                    hosted.forwarder = None;
                }
                self.event(index, now, Event::Shard(partition, Input::Leave));
            }
            Step::Flush => self.event(index, now, Event::Shard(partition, Input::Flush)),
            Step::Retreat(until) => self.retreat(index, now, partition, until),
            Step::Drop => {
                let is_revoked = self.nodes[index]
                    .hosted
                    .get(&partition)
                    .is_some_and(|hosted| hosted.is_revoked);
                self.lose(index, now, partition);
                if is_revoked {
                    self.released(index, partition);
                }
            }
            Step::Release(tenure) => self.release(index, now, partition, tenure),
            Step::Quarantine { .. } => {
                self.coverage.hit(Point::Quarantined);
                let hosted = self.nodes[index].hosted.remove(&partition);
                if hosted.is_some_and(|hosted| hosted.is_revoked) {
                    self.deactivate(index, now, partition);
                    self.released(index, partition);
                } else {
                    self.nodes[index].quarantined.insert(partition);
                }
                self.trace.note(&[11, partition.0.into()], || {
                    format!("{partition:?} is quarantined")
                });
            }
            Step::Nothing => (),
        }
    }

    fn release(&mut self, index: usize, now: Timestamp, partition: Partition, tenure: Tenure) {
        self.deactivate(index, now, partition);
        let Some(hosted) = self.nodes[index].hosted.remove(&partition) else {
            return;
        };
        self.new_store_call(index, hosted.stay, StoreOp::Release(tenure, hosted.is_revoked));
    }

    fn deactivate(&mut self, index: usize, now: Timestamp, partition: Partition) {
        let shard = self.nodes[index].machine.shard(partition);
        let epoch = shard.map(|shard| shard.tenure().epoch);
        self.event(index, now, Event::Deactivate(partition));
        // What the shard has said, and what is said as it goes, is right by what was said to it.
        self.watch_effects(index, now);
        if let Some(epoch) = epoch {
            self.oracle.deactivated(index, partition, epoch, now);
        }
    }

    pub(super) fn revoke(&mut self, index: usize, now: Timestamp, partition: Partition) {
        let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) else {
            if self.nodes[index].quarantined.remove(&partition) {
                self.deactivate(index, now, partition);
            }
            return self.released(index, partition);
        };
        hosted.is_revoked = true;
        self.let_go(index, now, partition);
    }

    /// Has a shard leave as soon as all of it is saved.
    fn let_go(&mut self, index: usize, now: Timestamp, partition: Partition) {
        let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.revoke();
        self.step(index, now, partition, step);
        let shard = self.nodes[index].machine.shard(partition);
        if shard.is_some_and(Shard::is_saved) {
            self.after_save(index, now, partition);
        }
    }

    /// Tells placement that a shard is let go.
    pub(super) fn released(&mut self, index: usize, partition: Partition) {
        let member = (index, self.nodes[index].life);
        let at = self.now + self.rng.range(1, 50);
        let step = PlacementStep::Released(member, partition);
        self.queue.push(at, Happening::Placement(step));
    }

    pub(super) fn lose(&mut self, index: usize, now: Timestamp, partition: Partition) {
        let was_quarantined = self.nodes[index].quarantined.remove(&partition);
        if self.nodes[index].hosted.remove(&partition).is_some() || was_quarantined {
            self.deactivate(index, now, partition);
        }
    }

    pub(super) fn fenced(&mut self, index: usize, now: Timestamp, partition: Partition) {
        self.coverage.hit(Point::ZombieFenced);
        if let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) {
            let step = hosted.activation.fenced(now);
            self.step(index, now, partition, step);
        }
    }

    /// Drops a shard that another node has taken, and comes back to it later.
    fn retreat(&mut self, index: usize, now: Timestamp, partition: Partition, until: Timestamp) {
        let Some(hosted) = self.nodes[index].hosted.remove(&partition) else {
            return;
        };
        self.deactivate(index, now, partition);
        self.stay(index, partition, hosted.activation);
        let node = &self.nodes[index];
        let stay = node.last_mark - 1;
        let at = node.clock.reaches(until).max(self.now + 1);
        let (life, mail) = (node.life, Mail::Reclaim(partition, stay));
        self.queue.push(
            at,
            Happening::Mail {
                node: index,
                life,
                mail,
            },
        );
    }

    pub(super) fn saved(&mut self, index: usize, now: Timestamp, partition: Partition, id: CheckpointId) {
        self.event(index, now, Event::Shard(partition, Input::Saved(id)));
        let node = &mut self.nodes[index];
        node.last_mark += 1;
        let mark = node.last_mark;
        let Some(hosted) = node.hosted.get_mut(&partition) else {
            return;
        };
        hosted.mark = mark;
        let done = hosted.waiting.extract_if(.., |(wanted, _)| *wanted <= id);
        for (_, waiter) in done.collect::<Vec<_>>() {
            match waiter {
                Waiter::Change(request) => self.change_is_saved(index, &request),
                Waiter::Report(call, lease, is_promise) => {
                    self.polled_report_is_saved(call, lease, is_promise);
                }
            }
        }
        self.after_save(index, now, partition);
    }

    fn after_save(&mut self, index: usize, now: Timestamp, partition: Partition) {
        let node = &mut self.nodes[index];
        let Some(shard) = node.machine.shard(partition) else {
            return;
        };
        let rest = (!shard.is_saved()).then(|| shard.covering());
        let Some(hosted) = node.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.saved(rest);
        self.step(index, now, partition, step);
    }

    /// Asks for a checkpoint of everything so far; whoever asked is told when it is saved.
    pub(super) fn durable(&mut self, index: usize, now: Timestamp, partition: Partition, waiter: Waiter) {
        let Some(shard) = self.nodes[index].machine.shard(partition) else {
            return;
        };
        if shard.is_saved() {
            return;
        }
        let wanted = shard.covering();
        self.event(index, now, Event::Shard(partition, Input::Flush));
        if let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) {
            hosted.waiting.push((wanted, waiter));
        }
    }

    pub(super) fn load_parked(
        &mut self,
        index: usize,
        partition: Partition,
        number: PageId,
        (after, until, limit): (Option<(Timestamp, Offset)>, Timestamp, usize),
    ) {
        let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) else {
            return;
        };
        hosted.inherited_until.get_or_insert(until);
        let stay = hosted.stay;
        self.new_store_call(
            index,
            stay,
            StoreOp::Page {
                partition,
                number,
                until,
                after,
                limit,
            },
        );
    }
}
