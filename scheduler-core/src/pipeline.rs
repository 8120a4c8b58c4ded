//! One pipeline on one node: its active shards, the sessions of its workers, and the meeting of ready tasks with waiting credits.
//!
//! The second machine. It owns the [`Shard`]s of the pipeline that live here, and is driven as they are: [`PipelineNode::handle`] with the
//! time and an [`Event`], effects in the caller's buffer. After each batch of events the driver calls [`PipelineNode::dispatch`] once,
//! so that a batch of arrivals meets a batch of credits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::id::{CheckpointId, LeaseToken, Offset, Partition, WorkerId};
use crate::policy::PipelinePolicy;
use crate::port::gateway::{HeldLease, Lease, Report, WorkerCommand, WorkerEvent, WorkerHello};
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
    sessions: BTreeMap<SessionId, Session>,
    by_worker: BTreeMap<WorkerId, SessionId>,
    hellos: Hellos,
    /// Sessions with room, in the order in which they are served.
    waiting: VecDeque<SessionId>,
    /// Sessions that share their worker's room, have no credit here, and were not told that tasks wait.
    unaware: BTreeSet<SessionId>,
    /// Sessions that were told so, and have given credit since the last dispatch.
    answered: BTreeSet<SessionId>,
    paused: bool,
    watch_all: bool,
    /// When silent sessions are looked for next.
    next_sweep: Timestamp,
    outputs: Vec<Output>,
}

impl PipelineNode {
    /// A pipeline without shards and sessions.
    pub fn new(policy: Arc<PipelinePolicy>, paused: bool) -> Self {
        Self {
            policy,
            shards: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            hellos: Hellos::default(),
            waiting: VecDeque::new(),
            unaware: BTreeSet::new(),
            answered: BTreeSet::new(),
            paused,
            watch_all: false,
            next_sweep: Timestamp::MAX,
            outputs: Vec::new(),
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
            Event::Pause(paused) => self.paused = paused,
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
                let is_due = |shard: &Shard| shard.next_deadline().is_some_and(|due| due <= now);
                let due = self
                    .shards
                    .iter()
                    .filter(|(_, shard)| is_due(shard))
                    .map(|(partition, _)| *partition);
                for partition in due.collect::<Vec<_>>() {
                    self.tell_shard(now, partition, Input::Tick, effects);
                }
                self.sweep(now, effects);
            }
        }
        Answer::Done
    }

    /// Lets ready tasks meet waiting credits, and tells those who share their room what it came to.
    pub fn dispatch(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.paused {
            self.meet(now, effects);
        }
        self.tell_waiting(effects);
    }

    fn meet(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        // How many have not had their share in this round.
        let mut left = self.waiting.len();
        while let Some(&id) = self.waiting.front() {
            left = if left == 0 { self.waiting.len() } else { left };
            let Some(session) = self.sessions.get(&id).filter(|session| session.credit() > 0) else {
                self.waiting.pop_front();
                left -= 1;
                continue;
            };
            let Some(partition) = self.next_shard() else {
                return;
            };
            let Some(shard) = self.shards.get_mut(&partition) else {
                return;
            };
            // Each worker gets its share of what is there, so that a few tasks do not queue up behind one of many.
            let fair = shard.ready().div_ceil(u32::try_from(left).unwrap_or(u32::MAX));
            let limit = session.credit().min(fair.max(1));
            let worker = session.worker;
            shard.handle(now, Input::Ask { worker, limit }, &mut self.outputs);
            self.waiting.rotate_left(1);
            left -= 1;
            let leased = self.spread(now, partition, effects);
            if leased == 0 {
                // What was ready has expired as it was asked for; look again.
                continue;
            }
            let is_served = self.sessions.get(&id).is_none_or(|session| session.credit() == 0);
            if is_served && self.waiting.back() == Some(&id) {
                self.waiting.pop_back();
            }
        }
    }

    /// When to come back at the latest, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let shards = self.shards.values().filter_map(Shard::next_deadline);
        let sweep = (!self.sessions.is_empty()).then_some(self.next_sweep);
        shards.chain(sweep).min()
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

    /// How often a worker of a pipeline must give a sign of life: often enough that two may be lost before its leases are.
    pub fn heartbeat_of(policy: &PipelinePolicy) -> Duration {
        (policy.timeouts.heartbeat / 4).max(Duration::from_millis(50))
    }

    /// The checkpoint of a shard that covers everything so far; `None` if it is not active.
    pub fn covering(&self, partition: Partition) -> Option<CheckpointId> {
        self.shards.get(&partition).map(Shard::covering)
    }

    /// Has workers look for a partition's shard.
    fn say_moved(&mut self, partition: Partition, effects: &mut Vec<Effect>) {
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| !session.is_poll) {
            session.moved.insert(partition);
            effects.push(Effect::Tell(*id, WorkerEvent::Moved(partition)));
        }
    }

    fn activate(&mut self, now: Timestamp, shard: Shard, effects: &mut Vec<Effect>) {
        let partition = shard.tenure().shard.partition;
        self.shards.insert(partition, shard);
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

    fn open(&mut self, now: Timestamp, id: SessionId, hello: WorkerHello, effects: &mut Vec<Effect>) {
        if self.hellos.have_overtaken(&hello) {
            return effects.push(Effect::End(id));
        }
        self.hellos.came(now, &hello);
        if let Some(older) = self.by_worker.insert(hello.worker, id) {
            self.sessions.remove(&older);
            self.waiting.retain(|waiting| *waiting != older);
            self.unaware.remove(&older);
            self.answered.remove(&older);
            effects.push(Effect::End(older));
        }
        if hello.shares {
            self.unaware.insert(id);
        }
        self.sessions.insert(id, Session::new(now, hello));
        self.next_sweep = self.next_sweep.min(now + self.policy.timeouts.heartbeat);
        for partition in self.shards.keys().copied().collect::<Vec<_>>() {
            self.attach(now, id, partition, effects);
        }
    }

    /// Whether a hello was overtaken by a later one of its worker: opening its session ends it, and changes nothing.
    pub fn is_overtaken(&self, hello: &WorkerHello) -> bool {
        self.hellos.have_overtaken(hello)
    }

    /// Introduces a session to a shard.
    fn attach(&mut self, now: Timestamp, id: SessionId, partition: Partition, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_poll) else {
            return;
        };
        let worker = session.worker;
        let presented = session.present(partition);
        let input = Input::Attach {
            worker,
            held: presented.held,
            reported: presented.reported,
        };
        self.tell_shard(now, partition, input, effects);
    }

    fn close(&mut self, now: Timestamp, id: SessionId, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.waiting.retain(|waiting| *waiting != id);
        self.unaware.remove(&id);
        self.answered.remove(&id);
        if !session.is_poll {
            self.by_worker.remove(&session.worker);
            self.hellos.ended(now, session.worker);
            self.tell_all(
                now,
                &Input::Detach {
                    worker: session.worker,
                },
                effects,
            );
        }
    }

    /// Closes a session that is still open at its other end.
    fn end(&mut self, now: Timestamp, id: SessionId, effects: &mut Vec<Effect>) {
        self.close(now, id, effects);
        effects.push(Effect::End(id));
    }

    fn end_all(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for id in self.by_worker.values().copied().collect::<Vec<_>>() {
            self.end(now, id, effects);
        }
    }

    fn commands(
        &mut self,
        now: Timestamp,
        id: SessionId,
        commands: Vec<WorkerCommand>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let worker = session.worker;
        session.seen = now;
        for command in commands {
            match command {
                WorkerCommand::Reports(reports) => {
                    for report in reports {
                        self.report(now, id, worker, report, effects);
                    }
                }
                WorkerCommand::Credit(more) => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return;
                    };
                    let had_none = session.credit() == 0;
                    session.add_credit(more);
                    if had_none && session.credit() > 0 {
                        self.waiting.push_back(id);
                    }
                    if session.waits {
                        self.answered.insert(id);
                    }
                }
                WorkerCommand::Alive => self.tell_all(now, &Input::Alive { worker }, effects),
                WorkerCommand::Progress {
                    lease:
                        HeldLease {
                            partition,
                            offset,
                            token,
                        },
                    progress,
                } => {
                    let input = Input::Extend {
                        worker,
                        offset,
                        token,
                        progress: Some(progress).filter(|progress| progress.len() <= MAX_PROGRESS),
                    };
                    self.tell_shard(now, partition, input, effects);
                }
                WorkerCommand::Drain => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return;
                    };
                    session.draining = true;
                    self.waiting.retain(|waiting| *waiting != id);
                }
                WorkerCommand::Recall => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return;
                    };
                    let unused = session.recall();
                    self.waiting.retain(|waiting| *waiting != id);
                    if session.shares && !session.waits {
                        self.unaware.insert(id);
                    }
                    effects.push(Effect::Tell(id, WorkerEvent::Recalled(unused)));
                }
            }
        }
        if self.sessions.get(&id).is_some_and(|session| session.draining) {
            // It stays until its reports are saved, so that is not to wait for the next checkpoint's time.
            self.tell_all(now, &Input::Flush, effects);
        }
    }

    fn report(
        &mut self,
        now: Timestamp,
        id: SessionId,
        worker: WorkerId,
        report: Report,
        effects: &mut Vec<Effect>,
    ) {
        let partition = report.lease.partition;
        if self.shards.contains_key(&partition) {
            let HeldLease { offset, token, .. } = report.lease;
            self.tell_shard(
                now,
                partition,
                Input::Report {
                    worker,
                    offset,
                    token,
                    outcome: report.outcome,
                },
                effects,
            );
        } else if let Some(session) = self.sessions.get_mut(&id)
            && !session.defer(report)
        {
            // Nothing is lost: the worker keeps its reports until they are settled.
            self.end(now, id, effects);
        }
    }

    /// Ends sessions whose workers have been silent too long: their connections are dead.
    fn sweep(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if now < self.next_sweep {
            return;
        }
        let timeout = self.policy.timeouts.heartbeat;
        let streams = self.sessions.iter().filter(|(_, session)| !session.is_poll);
        let (silent, others): (Vec<_>, Vec<_>) = streams
            .map(|(id, session)| (*id, session.seen + timeout))
            .partition(|(_, until)| *until <= now);
        for (id, _) in silent {
            self.end(now, id, effects);
        }
        let by_worker = &self.by_worker;
        self.hellos.forget(now, |worker| by_worker.contains_key(&worker));
        // Those who live have spoken again by then: looking a little later costs nothing.
        let first = others.iter().map(|(_, until)| *until).min();
        self.next_sweep = first.map_or(Timestamp::MAX, |first| first.max(now + timeout / 4));
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
        if self.unaware.is_empty() || self.paused || self.next_shard().is_none() {
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

    /// The shard whose next task is the most urgent, and of those the longest waiting.
    fn next_shard(&self) -> Option<Partition> {
        let ready = self.shards.iter().filter(|(_, shard)| shard.ready() > 0);
        let urgency = |shard: &Shard| {
            shard
                .next_ready()
                .map(|(priority, since)| (priority, std::cmp::Reverse(since)))
        };
        ready
            .max_by_key(|(_, shard)| urgency(shard))
            .map(|(partition, _)| *partition)
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
        let answer = shard.handle(now, input, &mut self.outputs);
        if !self.outputs.is_empty() {
            self.spread(now, partition, effects);
        }
        answer
    }

    /// Makes effects of a shard's outputs; answers how many leases were among them.
    fn spread(&mut self, now: Timestamp, partition: Partition, effects: &mut Vec<Effect>) -> usize {
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
                Output::Settled { worker, count } => {
                    if let (Some(session), Some(shard)) =
                        (self.by_worker.get(&worker), self.shards.get(&partition))
                    {
                        let epoch = shard.tenure().epoch;
                        effects.push(Effect::Tell(
                            *session,
                            WorkerEvent::Settled {
                                partition,
                                epoch,
                                count,
                            },
                        ));
                    }
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
        let outcome = crate::outcome::AttemptOutcome::Returned;
        self.tell_shard(
            now,
            partition,
            Input::Report {
                worker,
                offset,
                token,
                outcome,
            },
            effects,
        );
    }
}
