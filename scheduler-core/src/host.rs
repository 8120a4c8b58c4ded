//! A pipeline where it lives: which of its shards are here, how they come up, are fed, saved and let go, and who waits for what of it.
//!
//! The machine around [`PipelineNode`] and the [`Activation`]s of its shards. It is driven as they are: its methods take the time and what has
//! happened, and append what must follow to the caller's [`Effects`]. The shell (the runtime's actor, the simulator's nodes) only carries
//! them out, and comes back with what came of it as a [`Word`] to the [`Stay`] that it was done for.
//!
//! | file | idea |
//! | --- | --- |
//! | `host/effect.rs` | what a host wants done |
//! | `host/stay.rs` | one stay of a shard, and what is told to it |
//! | `host/life.rs` | how shards come up and go |
//! | `host/read.rs` | from the log into shards |
//! | `host/durable.rs` | what is saved, who waits for it, and changes by what was read from the store |
//! | `host/trouble.rs` | what is wrong with partitions |

mod durable;
mod effect;
mod life;
mod read;
mod stay;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::durable::{Changed, Mark, ReadAt, Waiter};
pub use self::effect::{Effect, Effects};
pub use self::read::{MOST_BYTES, MOST_RECORDS};
use self::stay::Hosted;
pub use self::stay::{Stay, Word};
pub use self::trouble::Trouble;
use crate::activation::Activation;
use crate::id::{LeaseToken, NodeId, Offset, Partition, PipelineId, ShardId, WorkerId};
use crate::pipeline::{self, Event, PipelineNode};
use crate::policy::PipelinePolicy;
use crate::port::gateway::{WorkerEvent, WorkerHello};
use crate::session::SessionId;
use crate::shard::{Answer, Input};
use crate::time::Timestamp;

/// Returns leases that nobody has. It is no worker's report, which would count as one of its session.
const NOBODY: WorkerId = WorkerId(0);

/// Whose shards a host has, and where.
#[derive(Clone, Copy, Debug)]
pub struct HostConfig {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The node.
    pub node: NodeId,
    /// How long workers of an owner that vanished have to come back.
    pub grace: Duration,
}

/// One pipeline on one node. `W` waits for checkpoints, `R` for the release of shards. See the [module](self).
#[derive(Debug)]
pub struct Host<W, R> {
    config: HostConfig,
    policy: Arc<PipelinePolicy>,
    /// Whether the pipeline is.
    paused: bool,
    draining: bool,
    pipeline: PipelineNode,
    /// What placement says is ours.
    assigned: BTreeSet<Partition>,
    /// Whether placement has taken away all that it had given.
    has_left: bool,
    hosted: BTreeMap<Partition, Hosted<W, R>>,
    /// What is wrong with partitions, whether their shards are here or not.
    troubles: BTreeMap<Partition, Trouble>,
    /// How much of the next stay of a shard is to be recorded.
    to_record: BTreeMap<Partition, usize>,
    /// The last number that a stay or a mark was given.
    last_number: u64,
}

impl<W: Waiter, R: Clone> Host<W, R> {
    /// A pipeline of which nothing lives here yet.
    pub fn new(config: HostConfig, policy: Arc<PipelinePolicy>, paused: bool) -> Self {
        Self {
            config,
            pipeline: PipelineNode::new(policy.clone(), paused),
            policy,
            paused,
            draining: false,
            assigned: BTreeSet::new(),
            has_left: false,
            hosted: BTreeMap::new(),
            troubles: BTreeMap::new(),
            to_record: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// A host in place of this one, after a panic: nothing of it is to be trusted but what it was told. Its shards come up with
    /// [`Host::come_up`]; what is still on its way to an earlier stay is not for a later one.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self {
            pipeline: PipelineNode::new(self.policy.clone(), self.paused || self.draining),
            draining: self.draining,
            assigned: self.assigned.clone(),
            has_left: self.has_left,
            last_number: self.last_number,
            ..Self::new(self.config, self.policy.clone(), self.paused)
        }
    }

    /// The machine of shards and sessions.
    pub fn pipeline(&self) -> &PipelineNode {
        &self.pipeline
    }

    /// Hands on an event of a session, of time, or of the pipeline. Shards come and go, and are told things, by other methods of the host.
    pub fn event(&mut self, now: Timestamp, event: Event, effects: &mut Effects<W, R>) {
        self.pipeline.handle(now, event, &mut effects.pipeline);
    }

    /// Tells a shard something; [`Answer::Elsewhere`] if it does not run here.
    pub fn tell(
        &mut self,
        now: Timestamp,
        partition: Partition,
        input: Input,
        effects: &mut Effects<W, R>,
    ) -> Answer {
        self.pipeline
            .handle(now, Event::Shard(partition, input), &mut effects.pipeline)
    }

    /// Lets ready tasks meet waiting credits; to be called once after each batch of what has happened.
    pub fn dispatch(&mut self, now: Timestamp, effects: &mut Effects<W, R>) {
        self.pipeline.dispatch(now, &mut effects.pipeline);
    }

    /// When to come back at the latest, if nothing else happens.
    pub fn next_deadline(&mut self) -> Option<Timestamp> {
        self.pipeline.next_deadline()
    }

    /// A lease was given out for somebody who has gone: it goes back at once.
    pub fn give_back(
        &mut self,
        now: Timestamp,
        partition: Partition,
        offset: Offset,
        token: LeaseToken,
        effects: &mut Effects<W, R>,
    ) {
        self.pipeline
            .give_back(now, partition, NOBODY, offset, token, &mut effects.pipeline);
    }

    /// A worker opens a session. `false` if the last shard has left since the session was asked for: nobody would tell the worker, so the session
    /// is to be ended, and the worker looks for an owner.
    #[must_use]
    pub fn open(
        &mut self,
        now: Timestamp,
        session: SessionId,
        hello: WorkerHello,
        effects: &mut Effects<W, R>,
    ) -> bool {
        if self.has_left && self.hosted.is_empty() {
            return false;
        }
        if self.draining {
            effects
                .pipeline
                .push(pipeline::Effect::Tell(session, WorkerEvent::GoAway));
        }
        self.event(now, Event::Open(session, hello), effects);
        true
    }

    /// A worker asks for leases once. `false` if there will be none.
    #[must_use]
    pub fn poll(
        &mut self,
        now: Timestamp,
        session: SessionId,
        worker: WorkerId,
        limit: u32,
        effects: &mut Effects<W, R>,
    ) -> bool {
        if self.draining {
            return false;
        }
        let poll = Event::Poll {
            session,
            worker,
            limit,
        };
        self.event(now, poll, effects);
        true
    }

    /// The pipeline's policy has changed.
    pub fn set_policy(&mut self, now: Timestamp, policy: Arc<PipelinePolicy>, effects: &mut Effects<W, R>) {
        self.policy = policy.clone();
        self.event(now, Event::Policy(policy), effects);
    }

    /// Whether the pipeline is paused. Who resumes it has mended what shards were left alone for, and they are tried again.
    pub fn pause(&mut self, now: Timestamp, paused: bool, effects: &mut Effects<W, R>) {
        let is_resumed = std::mem::replace(&mut self.paused, paused) && !paused;
        self.event(now, Event::Pause(paused || self.draining), effects);
        if is_resumed {
            self.try_again(now, effects);
        }
    }

    /// The node goes down: no more leases, and workers go elsewhere. It is over once the host [is drained](Host::is_drained); then its shards are to
    /// be revoked.
    pub fn drain(&mut self, now: Timestamp, effects: &mut Effects<W, R>) {
        self.draining = true;
        self.event(now, Event::Pause(true), effects);
        effects.host.push(Effect::GoAway);
    }

    /// Whether the node goes down.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether it goes down and nothing runs any more.
    pub fn is_drained(&self) -> bool {
        self.draining && self.pipeline.counts().0.running == 0
    }

    /// Whether placement has given it anything.
    pub fn has_assigned(&self) -> bool {
        !self.assigned.is_empty()
    }

    /// The shards that live here, or are about to, or have not let go.
    pub fn hosted(&self) -> impl Iterator<Item = Partition> {
        self.hosted.keys().copied()
    }

    /// Whether a shard lives here, or is about to, or has not let go.
    pub fn is_hosted(&self, partition: Partition) -> bool {
        self.hosted.contains_key(&partition)
    }

    /// Whether a stay is not over.
    pub fn is_here(&self, stay: Stay) -> bool {
        let hosted = self.hosted.get(&stay.partition);
        hosted.is_some_and(|hosted| hosted.stay == stay)
    }

    /// The stay of a shard that runs here: what it wants done is done for that.
    pub fn stay_of(&self, partition: Partition) -> Option<Stay> {
        let hosted = self.hosted.get(&partition)?;
        hosted.activation.tenure().map(|_| hosted.stay)
    }

    /// What is wrong with partitions.
    pub fn troubles(&self) -> impl Iterator<Item = (ShardId, &Trouble)> {
        let troubles = self.troubles.iter();
        troubles.map(|(partition, trouble)| (self.shard_id(*partition), trouble))
    }

    /// What is wrong with a partition.
    pub fn trouble(&self, partition: Partition) -> Option<&Trouble> {
        self.troubles.get(&partition)
    }

    fn shard_id(&self, partition: Partition) -> ShardId {
        ShardId::new(self.config.pipeline, partition)
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}
