//! What must hold: the promises of the system, looked after at every step. Each has its file.

mod accounts;
mod alive;
mod attempts;
mod cancelled;
mod endings;
mod keys;
mod leases;
mod lost;
mod memory;
mod once;
mod resume;
mod said;
mod settled;
mod terms;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, LeaseToken, Offset, Partition, Tenure};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::session::SessionId;
use scheduler_core::task::RecordBody;
use scheduler_core::time::Timestamp;

use self::accounts::Accounts;
use self::alive::Alive;
use self::attempts::Attempts;
use self::cancelled::Cancelled;
use self::keys::Keys;
use self::leases::Leases;
use self::lost::Lost;
use self::memory::Memory;
use self::once::Once;
use self::resume::Resume;
use self::said::Said;
use self::terms::Terms;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::store::Store;

/// A promise that was broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which: the name of the oracle's file, `panic`, `rest`, `liveness` and the like.
    pub promise: &'static str,
    /// How.
    pub what: String,
    /// When, in milliseconds since the beginning of the history.
    pub at_ms: u64,
}

/// Everything that is remembered to tell right from wrong.
#[derive(Debug)]
pub(crate) struct Oracle {
    failed: Option<(&'static str, String)>,
    lost: Lost,
    keys: Keys,
    leases: Leases,
    once: Once,
    memory: Memory,
    resume: Resume,
    accounts: Accounts,
    alive: Alive,
    attempts: Attempts,
    cancelled: Cancelled,
    said: Said,
    terms: Terms,
    /// Dead letters that were brought back: what was said of them before does not count.
    revived: BTreeSet<(Partition, Offset)>,
}

impl Oracle {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            failed: None,
            lost: Lost::default(),
            keys: Keys::default(),
            leases: Leases::new(&plan.policy),
            once: Once::new(plan.strict),
            memory: Memory::new(&plan.policy),
            resume: Resume::new(&plan.policy),
            accounts: Accounts::default(),
            alive: Alive::default(),
            attempts: Attempts::new(&plan.policy),
            cancelled: Cancelled::default(),
            said: Said::default(),
            terms: Terms::default(),
            revived: BTreeSet::new(),
        }
    }

    /// Something is wrong; what was wrong first is kept.
    pub(crate) fn fail(&mut self, promise: &'static str, what: String) {
        self.failed.get_or_insert((promise, what));
    }

    fn check(&mut self, promise: &'static str, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(promise, what);
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    pub(crate) fn violation(&self, now: u64) -> Option<Violation> {
        self.failed.clone().map(|(promise, what)| Violation {
            promise,
            what,
            at_ms: now,
        })
    }

    /// A node looks at its clock.
    pub(crate) fn clock(&mut self, now: Timestamp) {
        self.terms.clock(now);
    }

    pub(crate) fn appended(&mut self, partition: Partition, offset: Offset, body: &RecordBody) {
        self.keys.appended(partition, offset, body);
        self.lost.appended(partition, offset);
        self.once.appended(partition, offset, body);
    }

    pub(crate) fn some_task(&self, rng: &mut Rng) -> Option<(Partition, Offset)> {
        self.lost.some(rng)
    }

    pub(crate) fn revived(&mut self, partition: Partition, offset: Offset) {
        self.revived.insert((partition, offset));
    }

    /// Somebody wants a task cancelled.
    pub(crate) fn cancel_is_wanted(&mut self, partition: Partition, offset: Offset) {
        self.cancelled.asked(partition, offset);
    }

    /// An owner says that it will do so.
    pub(crate) fn cancel_is_told(&mut self, partition: Partition, offset: Offset, epoch: Epoch) {
        self.cancelled.told(partition, offset, epoch);
    }

    /// Whoever wanted it is told that it is done.
    pub(crate) fn cancel_is_saved(&mut self, partition: Partition, offset: Offset, epoch: Epoch) {
        self.cancelled.saved(partition, offset, epoch);
    }

    pub(crate) fn node_gone(&mut self, node: usize) {
        self.said.node_gone(node);
        self.leases.node_gone(node);
        self.alive.node_gone(node);
    }

    /// An owner has taken in records, and all is done that follows at once.
    pub(crate) fn has_records(&mut self, tenure: Tenure) {
        let checked = self.alive.has_records(tenure);
        self.check("alive", checked);
    }

    /// An owner goes on by what was read from the store after another had claimed the shard, by this epoch. What it finds there may be of tasks
    /// that it has ended itself.
    pub(crate) fn goes_on(&mut self, node: usize, partition: Partition, epoch: Epoch) {
        self.fail(
            "alive",
            format!("node {node} hears that {partition:?} is another's by {epoch:?}, and goes on"),
        );
    }

    /// A shard that was left alone goes to another node, and so many sessions were told: workers have come for it, and would wait.
    pub(crate) fn leaves(&mut self, node: usize, partition: Partition, told: usize) {
        let sessions = self.said.sessions(node).len();
        if told < sessions {
            self.fail(
                "alive",
                format!("{partition:?} leaves node {node}, and of {sessions} sessions {told} are told"),
            );
        }
    }

    /// Placement hears that a node has let go of a shard.
    pub(crate) fn placement_is_told(&mut self, node: usize, partition: Partition) {
        self.alive.is_told(node, partition);
    }

    /// A node hears that the store has its release of a shard.
    pub(crate) fn is_released(&mut self, node: usize, partition: Partition, now: u64) {
        self.alive.released(node, partition, now);
    }

    /// Placement gives up on a node that was to let go of a shard.
    pub(crate) fn given_up(&mut self, node: usize, partition: Partition, now: u64) {
        let checked = self.alive.given_up(node, partition, now);
        self.check("alive", checked);
    }

    pub(crate) fn session_over(&mut self, node: usize, session: SessionId) {
        self.said.close(node, session);
    }

    pub(crate) fn deactivated(&mut self, node: usize, partition: Partition, epoch: Epoch, now: Timestamp) {
        self.said.deactivated(node, partition);
        self.once.deactivated(partition, epoch, now);
    }

    pub(crate) fn log_has_gap(&mut self) {
        self.resume.log_has_gap();
        self.lost.log_has_gap();
    }

    /// The log has dropped what is before an offset, whether or not somebody needs it.
    pub(crate) fn records_are_lost(&mut self, partition: Partition, before: Offset) {
        self.lost.records_are_lost(partition, before);
        self.resume.log_has_gap();
    }

    /// Tasks that were given for a poll go back: nobody has them.
    pub(crate) fn polled_back(&mut self, partition: Partition, offset: Offset, token: LeaseToken) {
        self.leases.stopped(partition, offset, token);
    }

    /// Whether a log that begins at `start` has lost what was before.
    pub(crate) fn are_lost(&self, partition: Partition, start: Offset) -> bool {
        self.lost.are_lost(partition, start)
    }

    pub(crate) fn policy_changed(&mut self, policy: &PipelinePolicy) {
        self.memory.policy_changed(policy);
        self.resume.policy_changed(policy);
        self.attempts.policy_changed(policy);
    }

    /// The log gives up records: nobody may need them.
    pub(crate) fn truncated(&mut self, store: &mut Store, partition: Partition, before: Offset) {
        let resume = store.shard(partition).resume;
        if before > resume {
            self.fail(
                "log",
                format!("the log of {partition:?} is truncated before {before:?}, and is to be read from {resume:?}"),
            );
        }
    }

    /// A reader has found that records are gone. That is right for an owner that was replaced, and for no other.
    pub(crate) fn log_lost(
        &mut self,
        store: &Store,
        partition: Partition,
        reader: Option<(Tenure, Offset)>,
        start: Offset,
    ) {
        let stored = store.shards.get(&partition).map(|rows| Epoch(rows.epoch));
        if let Some((tenure, tail)) = reader
            && Some(tenure.epoch) == stored
        {
            self.fail(
                "log",
                format!(
                    "the owner of {partition:?} has read up to {tail:?}, and the log begins at {start:?}"
                ),
            );
        }
    }

    pub(crate) fn before_save(&mut self, store: &mut Store, checkpoint: &Arc<Checkpoint>) {
        let checked = endings::check_save(store, checkpoint);
        self.check("endings", checked);
    }
}
