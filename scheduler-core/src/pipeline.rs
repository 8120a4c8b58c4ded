//! One pipeline on one node: its active shards, the sessions of its workers, and the meeting of ready tasks with waiting credits.
//!
//! The second machine. It owns the [`Shard`]s of the pipeline that live here, and is driven as they are: [`PipelineNode::handle`] with the
//! time and an [`Event`], effects in the caller's buffer. After each batch of events the driver calls [`PipelineNode::dispatch`] once,
//! so that a batch of arrivals meets a batch of credits.

mod dues;
mod meet;
mod sessions;
pub(crate) mod settle;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::dues::Dues;
use crate::checkpoint::Checkpoint;
use crate::id::{CheckpointId, Offset, Partition, WorkerId};
use crate::policy::PipelinePolicy;
use crate::port::gateway::{Lease, Waiting, WorkerCommand, WorkerEvent, WorkerHello};
use crate::session::{Hellos, Session, SessionId};
use crate::shard::{Answer, Counts, Input, Output, PageId, Shard};
use crate::task::Record;
use crate::time::Timestamp;

/// Most bytes of a sign of progress: a larger one counts as a sign of life, and what it says is dropped.
pub const MAX_PROGRESS: usize = 16 << 10;

/// What the world tells a pipeline.
#[derive(Debug)]
pub enum Event {
    /// A shard has become active here.
    Activate(Box<Shard>),
    /// A shard is no longer ours.
    Deactivate(Partition),
    /// The pipeline has got a partition, whose shard may come up here or on another node: workers look for it.
    Grow(Partition),
    /// Something for one shard.
    Shard(Partition, Input),
    /// The next records of a partition's log.
    Arrive(Partition, Vec<Record>),
    /// A worker opens a session.
    Open(SessionId, WorkerHello),
    /// A worker asks for leases once.
    Poll {
        /// What to call it.
        session: SessionId,
        /// Which worker.
        worker: WorkerId,
        /// How many.
        limit: u32,
    },
    /// A session, or the wait for a poll, is over.
    Close(SessionId),
    /// A worker has spoken.
    Commands(SessionId, Vec<WorkerCommand>),
    /// Whether tasks wait until this is said again.
    Pause(bool),
    /// Say [`Effect::Changed`] for every task, or only for those that are watched.
    WatchAll(bool),
    /// The policy has changed.
    Policy(Arc<PipelinePolicy>),
    /// Nothing but time has passed.
    Tick,
}

/// What a pipeline wants done.
#[derive(Debug)]
pub enum Effect {
    /// Tell a session.
    Tell(SessionId, WorkerEvent),
    /// Leases for a poll, which is over with them.
    Answer(SessionId, Vec<Lease>),
    /// A session is over: it was replaced by a newer one of the same worker, or was overtaken by it on its way; its worker has been silent too
    /// long, or must introduce itself anew.
    End(SessionId),
    /// See [`Output::Changed`].
    Changed(Partition, Offset),
    /// See [`Output::Save`].
    Save(Arc<Checkpoint>),
    /// See [`Output::Truncate`].
    Truncate(Partition, Offset),
    /// See [`Output::LoadParked`].
    LoadParked {
        /// Whose.
        partition: Partition,
        /// Which page it is.
        page: PageId,
        /// The last one that was read.
        after: Option<(Timestamp, Offset)>,
        /// How far ahead.
        until: Timestamp,
        /// How many.
        limit: usize,
    },
}

/// One pipeline on one node. See the [module](self).
#[derive(Debug)]
pub struct PipelineNode {
    policy: Arc<PipelinePolicy>,
    shards: BTreeMap<Partition, Shard>,
    dues: Dues,
    sessions: BTreeMap<SessionId, Session>,
    by_worker: BTreeMap<WorkerId, SessionId>,
    hellos: Hellos,
    /// Sessions with room, in the order in which they are served.
    waiting: VecDeque<SessionId>,
    /// Sessions that share their worker's room, have no credit here, and were not told that tasks wait.
    unaware: BTreeSet<SessionId>,
    /// Sessions that were told so, and have given credit since the last dispatch.
    answered: BTreeSet<SessionId>,
    /// Sessions that have not been told yet that reports are saved, and when they are.
    unsaid: Vec<SessionId>,
    say_settled_at: Timestamp,
    paused: bool,
    watch_all: bool,
    /// When silent sessions are looked for next.
    next_sweep: Timestamp,
    outputs: Vec<Output>,
    /// A buffer.
    ready: BinaryHeap<meet::Ready>,
}

impl PipelineNode {
    /// A pipeline without shards and sessions.
    pub fn new(policy: Arc<PipelinePolicy>, paused: bool) -> Self {
        Self {
            policy,
            shards: BTreeMap::new(),
            dues: Dues::default(),
            sessions: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            hellos: Hellos::default(),
            waiting: VecDeque::new(),
            unaware: BTreeSet::new(),
            answered: BTreeSet::new(),
            unsaid: Vec::new(),
            say_settled_at: Timestamp::MAX,
            paused,
            watch_all: false,
            next_sweep: Timestamp::MAX,
            outputs: Vec::new(),
            ready: BinaryHeap::new(),
        }
    }

    /// Takes one event at `now` and appends what must follow to `effects`, in order.
    ///
    /// The answer is the shard's, for an [`Event::Shard`].
    pub fn handle(&mut self, now: Timestamp, event: Event, effects: &mut Vec<Effect>) -> Answer {
        match event {
            Event::Shard(partition, input) => return self.tell_shard(now, partition, input, effects),
            Event::Arrive(partition, records) => self.arrive(now, partition, records, effects),
            Event::Commands(session, commands) => self.commands(now, session, commands, effects),
            Event::Activate(shard) => self.activate(now, *shard, effects),
            Event::Deactivate(partition) => {
                // One that leaves before it has come up is told of as well: its workers wait for it in their sessions.
                self.shards.remove(&partition);
                self.dues.touch(partition);
                self.say_moved(partition, effects);
            }
            Event::Grow(partition) => {
                if !self.shards.contains_key(&partition) {
                    self.say_moved(partition, effects);
                }
            }
            Event::Open(session, hello) => self.open(now, session, hello, effects),
            Event::Poll {
                session,
                worker,
                limit,
            } => {
                self.sessions.insert(session, Session::poll(now, worker, limit));
                self.waiting.push_back(session);
            }
            Event::Close(session) => self.close(now, session, effects),
            Event::Pause(paused) => {
                self.paused = paused;
                if paused {
                    self.say_all_settled(effects);
                }
            }
            Event::WatchAll(all) => {
                self.watch_all = all;
                self.tell_all(now, &Input::WatchAll(all), effects);
            }
            Event::Policy(policy) => {
                if Self::heartbeat_of(&policy) < Self::heartbeat_of(&self.policy) {
                    // Workers learn how often to give signs of life as they begin a session.
                    self.end_all(now, effects);
                }
                self.policy = policy.clone();
                self.tell_all(now, &Input::Policy(policy), effects);
            }
            Event::Tick => {
                self.look_at_dues();
                for partition in self.dues.due(now) {
                    self.tell_shard(now, partition, Input::Tick, effects);
                }
                if self.say_settled_at <= now {
                    self.say_all_settled(effects);
                }
                self.sweep(now, effects);
            }
        }
        Answer::Done
    }

    /// When to come back at the latest, if nothing else happens.
    pub fn next_deadline(&mut self) -> Option<Timestamp> {
        self.look_at_dues();
        let sweep = (!self.sessions.is_empty()).then_some(self.next_sweep);
        let settled = (!self.unsaid.is_empty()).then_some(self.say_settled_at);
        self.dues.next().into_iter().chain(sweep).chain(settled).min()
    }

    fn look_at_dues(&mut self) {
        let shards = &self.shards;
        self.dues
            .look(|partition| shards.get(&partition).and_then(Shard::next_deadline));
    }

    /// An active shard.
    pub fn shard(&self, partition: Partition) -> Option<&Shard> {
        self.shards.get(&partition)
    }

    /// Takes away what an active shard has recorded since the last time; see [`Shard::take_recorded`].
    pub fn take_recorded(&mut self, partition: Partition) -> Option<Vec<u8>> {
        self.shards.get_mut(&partition)?.take_recorded()
    }

    /// Has an active shard record no more.
    pub fn stop_recording(&mut self, partition: Partition) {
        if let Some(shard) = self.shards.get_mut(&partition) {
            shard.stop_recording();
        }
    }

    /// The active shards.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// What the active shards hold, and how many sessions there are.
    pub fn counts(&self) -> (Counts, u64) {
        let sum = self
            .shards
            .values()
            .map(Shard::counts)
            .fold(Counts::default(), |sum, counts| sum + counts);
        (sum, self.by_worker.len() as u64)
    }

    /// Why a task of one of its partitions does not run; `None` if it runs. That it has not ended is for the caller to know.
    pub fn waiting(&self, partition: Partition, offset: Offset) -> Option<Waiting> {
        let Some(shard) = self.shards.get(&partition) else {
            return Some(Waiting::ShardIsAway);
        };
        let has_workers = || !self.sessions.is_empty() || shard.counts().running > 0;
        match shard.waiting(offset)? {
            told @ (Waiting::NotDue | Waiting::PastOwner) => Some(told),
            _ if self.paused => Some(Waiting::Paused),
            _ if !has_workers() => Some(Waiting::NoWorker),
            told => Some(told),
        }
    }

    /// How often a worker of a pipeline must give a sign of life: often enough that two may be lost before its leases are.
    pub fn heartbeat_of(policy: &PipelinePolicy) -> Duration {
        (policy.timeouts.heartbeat / 4).max(Duration::from_millis(50))
    }

    /// The checkpoint of a shard that covers everything so far; `None` if it is not active.
    pub fn covering(&self, partition: Partition) -> Option<CheckpointId> {
        self.shards.get(&partition).map(Shard::covering)
    }

    fn activate(&mut self, now: Timestamp, shard: Shard, effects: &mut Vec<Effect>) {
        let partition = shard.tenure().shard.partition;
        self.shards.insert(partition, shard);
        self.dues.touch(partition);
        // The policy may have changed while the shard came up.
        self.tell_shard(now, partition, Input::Policy(self.policy.clone()), effects);
        self.tell_shard(now, partition, Input::WatchAll(self.watch_all), effects);
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let session = &self.sessions[&id];
            if session.shares || session.moved.contains(&partition) {
                // What the worker has of the shard from elsewhere, nobody has told us: it says so in a new session.
                self.end(now, id, effects);
            } else {
                self.attach(now, id, partition, effects);
            }
        }
    }

    fn tell_all(&mut self, now: Timestamp, input: &Input, effects: &mut Vec<Effect>) {
        for partition in self.shards.keys().copied().collect::<Vec<_>>() {
            self.tell_shard(now, partition, input.clone(), effects);
        }
    }

    fn arrive(
        &mut self,
        now: Timestamp,
        partition: Partition,
        records: Vec<Record>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(shard) = self.shards.get_mut(&partition) else {
            return;
        };
        self.dues.touch(partition);
        for record in records {
            shard.handle(now, Input::Arrive(record), &mut self.outputs);
        }
        if !self.outputs.is_empty() {
            self.spread(now, partition, effects);
        }
    }

    fn tell_shard(
        &mut self,
        now: Timestamp,
        partition: Partition,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let Some(shard) = self.shards.get_mut(&partition) else {
            return Answer::Elsewhere;
        };
        self.dues.touch(partition);
        let answer = shard.handle(now, input, &mut self.outputs);
        if !self.outputs.is_empty() {
            self.spread(now, partition, effects);
        }
        answer
    }
}
