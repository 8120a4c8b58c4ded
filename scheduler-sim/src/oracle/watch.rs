//! Where the oracle looks: at what nodes hear, at what their machines want done, and at what is stored.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, Offset, Partition, ShardId, Tenure, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::Effect;
use scheduler_core::port::gateway::{HeldLease, Lease, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_core::port::store::PreviousOwner;
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Found, Shard};
use scheduler_core::time::Timestamp;
use scheduler_proto::worker::report::Outcome;
use scheduler_sdk::session::LeaseKey;

use super::said::Saying;
use super::{accounts, endings, settled};
use crate::coverage::Point;
use crate::poller::Poller;
use crate::worker::Worker;
use crate::world::World;

impl World {
    /// A worker opens a session with what it holds and has reported.
    pub(crate) fn oracle_hello(
        &mut self,
        node: usize,
        now: Timestamp,
        session: SessionId,
        hello: &WorkerHello,
    ) {
        if !hello.held.is_empty() {
            self.coverage.hit(Point::HelloHeld);
        }
        if !hello.reported.is_empty() {
            self.coverage.hit(Point::HelloReported);
        }
        self.oracle.said.open(node, session, hello);
        let active: Vec<Partition> = self.nodes[node]
            .host
            .pipeline()
            .shards()
            .map(|shard| shard.tenure().shard.partition)
            .collect();
        for partition in active {
            self.introduce(node, now, session, partition);
        }
    }

    /// A shard comes up: it is told what workers said before.
    pub(crate) fn oracle_activate(
        &mut self,
        node: usize,
        now: Timestamp,
        partition: Partition,
        epoch: Epoch,
    ) {
        let Some(seen) = self.nodes[node].seen.get(&partition) else {
            return;
        };
        let unclean = seen.previous == PreviousOwner::Vanished;
        let log_end = seen.log_end;
        let until = now + self.plan.grace();
        self.oracle
            .once
            .activated(node, (partition, epoch), unclean, until, log_end);
        for session in self.oracle.said.sessions(node) {
            self.introduce_to(node, now, session, partition, epoch);
        }
    }

    fn introduce(&mut self, node: usize, now: Timestamp, session: SessionId, partition: Partition) {
        if let Some(shard) = self.nodes[node].host.pipeline().shard(partition) {
            let epoch = shard.tenure().epoch;
            self.introduce_to(node, now, session, partition, epoch);
        }
    }

    fn introduce_to(
        &mut self,
        node: usize,
        now: Timestamp,
        session: SessionId,
        partition: Partition,
        epoch: Epoch,
    ) {
        let Some((worker, held, mut reports)) = self.oracle.said.present(node, session, partition) else {
            return;
        };
        self.oracle
            .leases
            .attached(node, partition, epoch, worker, now, &held, &reports);
        for report in &mut reports {
            report.is_void = self.is_void(node, now, partition, epoch, report);
        }
        self.oracle.said.presented(node, session, partition, reports);
    }

    /// Whether nobody has to remember what a worker says: the task is the store's alone, or another owner's.
    fn is_void(
        &self,
        node: usize,
        now: Timestamp,
        partition: Partition,
        epoch: Epoch,
        report: &Saying,
    ) -> bool {
        let node = &self.nodes[node];
        let Some(seen) = node.seen.get(&partition) else {
            return true;
        };
        if report.token.epoch > epoch {
            return true;
        }
        // A row that was wanted later when the shard came up, or of an attempt that this owner itself has given up, is the store's alone, and late
        // words of it are not remembered, whether or not it has come due since.
        let rows = self.store.shards.get(&partition);
        let row = rows.and_then(|rows| rows.parked.get(&report.offset));
        let inherited = seen.inherited_until.map_or(now, |until| until.min(now));
        let is_parked = row.is_some_and(|row| row.wake_at > inherited || report.token.epoch == epoch);
        match node
            .host
            .pipeline()
            .shard(partition)
            .map(|shard| shard.find(report.offset))
        {
            None | Some(Found::Ahead) => is_parked || report.offset >= seen.log_end,
            Some(Found::Elsewhere) => is_parked || seen.recovered,
            Some(_) => false,
        }
    }

    /// A worker speaks in its session.
    pub(crate) fn oracle_commands(
        &mut self,
        node: usize,
        now: Timestamp,
        session: SessionId,
        commands: &[WorkerCommand],
    ) {
        let Some(worker) = self.oracle.said.worker(node, session) else {
            return;
        };
        for command in commands {
            match command {
                WorkerCommand::Reports(reports) => {
                    for report in reports {
                        let partition = report.lease.partition;
                        let mut saying = Saying {
                            offset: report.lease.offset,
                            token: report.lease.token,
                            is_success: matches!(report.outcome, AttemptOutcome::Succeeded { .. }),
                            is_void: false,
                        };
                        let shard = self.nodes[node].host.pipeline().shard(partition);
                        if let Some(shard) = shard {
                            let epoch = shard.tenure().epoch;
                            if !matches!(shard.find(saying.offset), Found::Live(_)) {
                                self.coverage.hit(Point::LateReport);
                            }
                            saying.is_void = self.is_void(node, now, partition, epoch, &saying);
                            self.oracle.attempts.reported(
                                partition,
                                epoch,
                                saying,
                                fails(&report.outcome),
                                &self.oracle.leases,
                            );
                            self.oracle
                                .leases
                                .reported(node, partition, epoch, worker, now, saying);
                        }
                        self.oracle.said.report(node, session, partition, saying);
                    }
                }
                WorkerCommand::Alive => self.oracle.leases.alive(node, None, worker, now),
                WorkerCommand::Progress { .. }
                | WorkerCommand::Credit(_)
                | WorkerCommand::Drain
                | WorkerCommand::Recall => (),
            }
        }
    }

    /// Tasks are given to a worker.
    fn watch_leases(&mut self, node: usize, now: Timestamp, worker: WorkerId, leases: &[Lease]) {
        for lease in leases {
            let (partition, offset, token) = (lease.partition, lease.offset, lease.token);
            self.trace.note(
                &[
                    50,
                    node as u64,
                    partition.0.into(),
                    offset.0,
                    token.epoch.0.into(),
                    token.attempt.0.into(),
                ],
                || format!("node {node} leases {partition:?} {offset:?} {token:?} to {worker:?}"),
            );
            if token.attempt.0 > 1 {
                self.coverage.hit(Point::LeaseRepeated);
            }
            let oracle = &mut self.oracle;
            let granted = oracle.leases.granted(node, partition, worker, now, offset, token);
            oracle.check("leases", granted);
            let asked = oracle.terms.check_lease(lease, now, self.plan.every.hasten > 0);
            oracle.check("terms", asked);
            let again = endings::check_lease(&mut self.store, partition, offset, token);
            oracle.check("endings", again);
            let counted = oracle
                .attempts
                .check_lease(&mut self.store, partition, offset, token);
            oracle.check("attempts", counted);
            let wanted = oracle.cancelled.check_lease(partition, offset, token);
            oracle.check("cancelled", wanted);
            if !oracle.revived.contains(&(partition, offset)) {
                let allowed = oracle.attempts.check_limit(partition, offset, token);
                oracle.check("attempts", allowed);
                let said = oracle.said.check_lease(node, partition, offset);
                oracle.check("once", said);
            }
            let early = oracle.once.check_lease(node, partition, offset, now);
            oracle.check("once", early);
        }
    }

    /// A worker without a session reports, or gives a sign of life for one lease.
    pub(crate) fn oracle_polled(
        &mut self,
        node: usize,
        now: Timestamp,
        worker: WorkerId,
        lease: HeldLease,
        is_report: bool,
    ) {
        let HeldLease {
            partition,
            offset,
            token,
        } = lease;
        if self.nodes[node].host.pipeline().shard(partition).is_none() {
            return;
        }
        if is_report {
            self.oracle.leases.alive(node, Some(partition), worker, now);
            self.oracle.leases.stopped(partition, offset, token);
        } else {
            self.oracle.leases.extended(node, partition, offset, token, now);
        }
    }

    /// A success was reported without a session, and the answer says that it is saved.
    pub(crate) fn oracle_polled_is_settled(&mut self, lease: HeldLease) {
        let HeldLease {
            partition,
            offset,
            token,
        } = lease;
        let is_saved = self.store.shard(partition).has_ended(offset)
            || self.oracle.revived.contains(&(partition, offset))
            || self.oracle.lost.may_be_gone(partition, offset);
        if !is_saved {
            self.oracle.fail(
                "settled",
                format!(
                    "the success of {partition:?} {offset:?} under {token:?} is answered as saved, and is not"
                ),
            );
        }
    }

    /// Looks at what a node's machine wants done since the last look.
    pub(crate) fn watch_effects(&mut self, node: usize, now: Timestamp) {
        let seen = self.nodes[node].effects.pipeline.len();
        let from = std::mem::replace(&mut self.nodes[node].watched, seen).min(seen);
        let effects = std::mem::take(&mut self.nodes[node].effects.pipeline);
        for effect in &effects[from..] {
            match effect {
                Effect::Tell(session, WorkerEvent::Leases(leases)) => {
                    if let Some(worker) = self.oracle.said.worker(node, *session) {
                        self.watch_leases(node, now, worker, leases);
                    }
                }
                Effect::Answer(session, leases) => {
                    if let Some(call) = self.nodes[node].polls.get(session) {
                        let worker = call.worker;
                        self.watch_leases(node, now, worker, leases);
                    }
                }
                Effect::Tell(session, WorkerEvent::Stop(stopped)) => {
                    for lease in stopped {
                        self.trace.note(
                            &[51, node as u64, lease.partition.0.into(), lease.offset.0],
                            || format!("node {node} stops {lease:?} of {session:?}"),
                        );
                        self.oracle
                            .leases
                            .stopped(lease.partition, lease.offset, lease.token);
                    }
                }
                Effect::Tell(
                    session,
                    WorkerEvent::Settled {
                        partition,
                        epoch,
                        count,
                    },
                ) => {
                    self.coverage.hit(Point::Settled);
                    self.trace
                        .note(&[52, node as u64, session.0, partition.0.into(), *count], || {
                            format!(
                                "node {node} settles {count} of {session:?} for {partition:?} under {epoch:?}"
                            )
                        });
                    let settled = settled::check(
                        self.oracle.said.reports(node, *session, *partition),
                        &self.oracle.lost,
                        &self.oracle.revived,
                        &mut self.store,
                        *session,
                        *partition,
                        *count,
                    );
                    self.oracle.check("settled", settled);
                    let reports = self.oracle.said.reports(node, *session, *partition);
                    let count = usize::try_from(*count).unwrap_or(usize::MAX).min(reports.len());
                    self.oracle
                        .attempts
                        .settled(*partition, *epoch, &reports[..count]);
                }
                // What is said in it from now on is not heard.
                Effect::End(session) => self.oracle.said.close(node, *session),
                Effect::Save(checkpoint) => {
                    self.oracle.alive.made(checkpoint.tenure);
                    let partition = checkpoint.tenure.shard.partition;
                    let maker = &self.nodes[node];
                    let shard = maker.host.pipeline().shard(partition);
                    let left = maker.left.get(&partition).copied();
                    if let Some(tail) = shard.map(Shard::tail).or(left) {
                        let policy = maker.policy.clone();
                        let made = self.oracle.resume.made(checkpoint, tail, &policy);
                        self.oracle.check("resume", made);
                    }
                }
                _ => (),
            }
        }
        self.nodes[node].effects.pipeline = effects;
    }

    /// A checkpoint has changed what is stored.
    pub(crate) fn after_save_is_stored(&mut self, checkpoint: &Arc<Checkpoint>) {
        let partition = checkpoint.tenure.shard.partition;
        let rows = self.store.shard(partition);
        for (is_there, point) in [
            (!checkpoint.unparked.is_empty(), Point::Unparked),
            (!checkpoint.dead.is_empty(), Point::Dead),
            (
                checkpoint
                    .parked
                    .iter()
                    .any(|task| task.wake_at > Timestamp::ZERO),
                Point::Parked,
            ),
            (
                checkpoint
                    .parked
                    .iter()
                    .any(|task| task.wake_at == Timestamp::ZERO),
                Point::Carried,
            ),
            (
                // Nothing else has a task wait that was never tried and that nobody wants later.
                checkpoint.parked.iter().any(|task| {
                    task.wake_at > Timestamp::ZERO && task.attempts.0 == 0 && task.spec.options.is_none()
                }),
                Point::MadeRoom,
            ),
        ] {
            if is_there {
                self.coverage.hit(point);
            }
        }
        for task in &checkpoint.finished {
            match task.ending {
                scheduler_core::outcome::Ending::Expired => self.coverage.hit(Point::Expired),
                scheduler_core::outcome::Ending::Duplicate => self.coverage.hit(Point::Duplicate),
                scheduler_core::outcome::Ending::Cancelled => self.coverage.hit(Point::Cancelled),
                scheduler_core::outcome::Ending::Succeeded => (),
            }
        }
        let oracle = &mut self.oracle;
        let counted = oracle.accounts.saved(rows, checkpoint, &oracle.lost);
        oracle.check("accounts", counted);
        let advanced = oracle.resume.saved(rows, checkpoint);
        oracle.check("resume", advanced);
    }

    /// Looks at what the shards of a node hold.
    pub(crate) fn check_memory(&mut self, node: usize) {
        for shard in self.nodes[node].host.pipeline().shards() {
            let checked = self.oracle.memory.check(shard);
            self.oracle.check("memory", checked);
        }
    }

    pub(crate) fn oracle_started(&mut self, worker: usize, key: LeaseKey) {
        let started = self.oracle.once.started(worker, key);
        self.oracle.check("once", started);
    }

    pub(crate) fn oracle_stopped(&mut self, worker: usize, key: LeaseKey) {
        let (partition, offset) = (Partition(key.partition), Offset(key.offset));
        // What the log has lost has no owner.
        let is_wanted = self.oracle.cancelled.may_be(partition, offset)
            || self.oracle.lost.may_be_gone(partition, offset);
        let stopped = self.oracle.once.stopped(worker, key, is_wanted);
        self.oracle.check("once", stopped);
    }

    pub(crate) fn oracle_ended(&mut self, worker: usize, key: LeaseKey, outcome: &Outcome) {
        let is_success = matches!(outcome, Outcome::Succeeded(_));
        let ended = self.oracle.once.ended(worker, key, is_success);
        self.oracle.check("once", ended);
    }

    /// Whether every task has ended and is saved, and every worker knows.
    pub(crate) fn all_has_ended(&self) -> bool {
        self.oracle.lost.all_ended(&self.store)
            && self
                .workers
                .iter()
                .all(|worker| worker.fleet.unsettled() == 0 && worker.runs() == 0)
            && self.pollers.iter().all(|poller| poller.unsettled() == 0)
    }

    /// Why that is not so, for people.
    pub(crate) fn why_not_ended(&self) -> String {
        let unsettled: Vec<usize> = self
            .workers
            .iter()
            .map(|worker| worker.fleet.unsettled())
            .chain(self.pollers.iter().map(Poller::unsettled))
            .collect();
        let running: Vec<usize> = self.workers.iter().map(Worker::runs).collect();
        let shards: Vec<String> = self
            .nodes
            .iter()
            .flat_map(|node| node.host.pipeline().shards())
            .map(|shard| {
                format!(
                    "{} up to {:?} with {:?}, room {:?}, due {:?}",
                    shard.tenure().shard,
                    shard.tail(),
                    shard.counts(),
                    shard.room(),
                    shard.next_deadline()
                )
            })
            .collect();
        format!(
            "long after all was well, {}; reports that wait at workers: {unsettled:?}; what workers run: {running:?}; submissions that wait: {}; shards: {shards:?}",
            self.oracle.lost.not_ended(&self.store),
            self.submissions_open
        )
    }

    /// At the very end, everything must be where it belongs.
    pub(crate) fn check_accounts(&mut self) {
        let once = self.oracle.keys.check_end(&self.store, &self.oracle.lost);
        self.oracle.check("keys", once);
        let counted = accounts::check_end(&self.store, &self.oracle.lost);
        self.oracle.check("accounts", counted);
        for shard in self.nodes.iter().flat_map(|node| node.host.pipeline().shards()) {
            let Tenure {
                shard: ShardId { partition, .. },
                epoch,
            } = shard.tenure();
            let account = shard.account();
            // A zombie has counted less than it thinks.
            let is_owner = self
                .store
                .shards
                .get(&partition)
                .is_some_and(|rows| Epoch(rows.epoch) == epoch);
            if is_owner && account.is_complete && shard.is_saved() {
                let counted = self.oracle.lost.check_counted(&self.store, &account, partition);
                self.oracle.check("lost", counted);
            }
        }
    }
}

/// Whether an attempt that ends so counts against what the pipeline allows.
fn fails(outcome: &AttemptOutcome) -> bool {
    matches!(outcome, AttemptOutcome::Failed { .. } | AttemptOutcome::Stopped)
}
