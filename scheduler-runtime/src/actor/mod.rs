//! The actor of a pipeline: the one task that drives its [`PipelineNode`].
//!
//! It never waits for anything but its mailbox and its next deadline: what takes time (claims, reads, saves) is done by others, who answer into
//! the mailbox. So everybody may wait for room in the mailbox without a deadlock.

mod forward;
mod host;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{CheckpointId, Epoch, LeaseToken, Offset, Partition, ShardId, WorkerId};
use scheduler_core::outcome::ParkedTask;
use scheduler_core::pipeline::{Effect, Event, PipelineNode};
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::gateway::{
    HeldLease, Lease, Report, TaskState, TaskView, WorkerCommand, WorkerEvent, WorkerHello,
};
use scheduler_core::port::log::{Bounds, LogError, TaskLog};
use scheduler_core::port::store::{CheckpointStore, Claimed};
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Answer, Counts, Found, Input};
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use self::forward::Forwarder;
use self::host::Hosted;
pub(crate) use self::watch::Watched;
use self::watch::Watchers;
use crate::clock::Clock;
use crate::saver::Order;

/// Messages that wait for an actor; more senders wait for room.
const MAILBOX: usize = 1_024;
/// Messages taken together, so that what they bring meets at one dispatch.
const BATCH: usize = 256;

/// Told to a session's transport, in batches.
pub(crate) type Events = mpsc::UnboundedSender<Vec<WorkerEvent>>;

/// Says when a change is in the store. If it ends without a word, the shard has left this node.
pub(crate) type Durable = oneshot::Receiver<()>;

/// What can be said to an actor.
#[derive(Debug)]
pub(crate) enum Message {
    /// These partitions live here now.
    Assign(Vec<Partition>),
    /// These go elsewhere: answer when they are released.
    Revoke(Vec<Partition>, oneshot::Sender<()>),
    /// These are elsewhere already.
    Lose(Vec<Partition>),
    /// The store's answer to a claim.
    Claimed(Partition, Claimed),
    /// The log's bounds.
    Measured(Partition, Bounds),
    /// The forwarder's next records.
    Records(Partition, Vec<Record>),
    /// The forwarder cannot go on; it has ended.
    ReadFailed(Partition, LogError),
    /// The store has a checkpoint.
    Saved(Partition, CheckpointId),
    /// The shard has another owner.
    Fenced(Partition, Epoch),
    /// Parked tasks, and when the next after them is wanted.
    Unpark(Partition, Vec<ParkedTask>, Timestamp),
    /// Opens a session.
    Open(SessionId, WorkerHello, Events),
    /// Asks for leases once.
    Poll(SessionId, WorkerId, u32, oneshot::Sender<Vec<Lease>>),
    /// A session or a poll is over.
    Close(SessionId),
    /// A worker has spoken in its session.
    Commands(SessionId, Vec<WorkerCommand>),
    /// A worker reports without a session. For each shard that had a report: when it is saved.
    Report(
        WorkerId,
        Vec<Report>,
        oneshot::Sender<(Vec<Answer>, Vec<Durable>)>,
    ),
    /// A worker gives signs of life without a session.
    Extend(Vec<HeldLease>, oneshot::Sender<Vec<Answer>>),
    /// Somebody changes a task. The answer, and when it is saved.
    Change(Partition, Input, oneshot::Sender<(Answer, Option<Durable>)>),
    /// What is known of a task.
    Find(Partition, Offset, oneshot::Sender<Found>),
    /// Tasks below an offset in some states; and one past the last offset that has arrived, if the shard is active.
    List(
        Partition,
        Offset,
        usize,
        Vec<TaskState>,
        oneshot::Sender<(Vec<Found>, Option<Offset>)>,
    ),
    /// Says what happens to a task, or to all.
    Watch(Option<(Partition, Offset)>, mpsc::Sender<Watched>),
    /// How it fares.
    Status(oneshot::Sender<Status>),
    /// The pipeline was changed.
    Update(Arc<Pipeline>),
    /// The node goes down: no more leases, and answer once nothing runs.
    Drain(oneshot::Sender<()>),
}

/// How a pipeline fares on this node.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) counts: Counts,
    pub(crate) sessions: u64,
    /// One past the last offset that each active shard has taken from the log.
    pub(crate) tails: Vec<(Partition, Offset)>,
    /// What is wrong with shards, for people.
    pub(crate) problems: Vec<String>,
}

/// Where an actor is told things.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox(mpsc::Sender<Message>);

impl Mailbox {
    /// Tells it, waiting for room. Nothing is said if the actor is gone: the pipeline is deleted, or the node is down.
    pub(crate) async fn tell(&self, message: Message) -> bool {
        self.0.send(message).await.is_ok()
    }

    /// Asks it. `None` if the actor is gone.
    pub(crate) async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (send, answer) = oneshot::channel();
        self.tell(message(send)).await;
        answer.await.ok()
    }
}

/// What an actor needs of the node.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) node: scheduler_core::id::NodeId,
    pub(crate) grace: Duration,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) store: Arc<dyn CheckpointStore>,
    pub(crate) saver: mpsc::UnboundedSender<Order>,
}

/// The actor. See the [module](self).
#[derive(Debug)]
pub(crate) struct PipelineActor {
    world: World,
    mailbox: mpsc::WeakSender<Message>,
    pipeline: Arc<Pipeline>,
    machine: PipelineNode,
    hosted: BTreeMap<Partition, Hosted>,
    sessions: BTreeMap<SessionId, Telling>,
    polls: BTreeMap<SessionId, oneshot::Sender<Vec<Lease>>>,
    watchers: Watchers,
    draining: Option<oneshot::Sender<()>>,
    effects: Vec<Effect>,
}

/// A session's transport, and what it is told at the end of this batch.
#[derive(Debug)]
struct Telling {
    events: Events,
    batch: Vec<WorkerEvent>,
}

impl PipelineActor {
    /// Starts the actor of a pipeline. It ends when all mailboxes are gone.
    pub(crate) fn spawn(world: World, pipeline: Arc<Pipeline>) -> Mailbox {
        let (send, receive) = mpsc::channel(MAILBOX);
        let actor = Self {
            world,
            mailbox: send.downgrade(),
            machine: PipelineNode::new(Arc::new(pipeline.policy.clone()), pipeline.paused),
            pipeline,
            hosted: BTreeMap::new(),
            sessions: BTreeMap::new(),
            polls: BTreeMap::new(),
            watchers: Watchers::default(),
            draining: None,
            effects: Vec::new(),
        };
        tokio::spawn(actor.run(receive));
        Mailbox(send)
    }

    async fn run(mut self, mut receive: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mut armed = Some(Timestamp::ZERO);
        loop {
            let due = self.machine.next_deadline();
            if due != armed {
                if let Some(due) = due {
                    timer.as_mut().reset(self.world.clock.instant(due));
                }
                armed = due;
            }
            tokio::select! {
                biased;
                taken = receive.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = &mut timer, if armed.is_some() => armed = None,
            }
            let now = self.world.clock.now();
            for message in batch.drain(..) {
                self.take(now, message);
            }
            self.machine.handle(now, Event::Tick, &mut self.effects);
            self.machine.dispatch(now, &mut self.effects);
            self.carry_out(now);
            if self.watchers.nobody_watches_all() {
                self.event(now, Event::WatchAll(false));
            }
            self.read_on();
            self.tell_sessions();
            self.end_drain();
        }
    }

    fn take(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::Records(partition, records) => self.records(now, partition, records),
            Message::Commands(session, commands) => self.event(now, Event::Commands(session, commands)),
            Message::Saved(partition, id) => self.saved(now, partition, id),
            Message::Assign(partitions) => partitions
                .into_iter()
                .for_each(|partition| self.assign(partition)),
            Message::Revoke(partitions, released) => self.revoke(now, partitions, released),
            Message::Lose(partitions) => partitions
                .into_iter()
                .for_each(|partition| self.lose(now, partition)),
            Message::Claimed(partition, claimed) => self.claimed(partition, claimed),
            Message::Measured(partition, bounds) => self.measured(now, partition, bounds),
            Message::ReadFailed(partition, error) => self.read_failed(partition, &error),
            Message::Fenced(partition, stored) => self.fenced(now, partition, stored),
            Message::Unpark(partition, tasks, next_wake) => {
                self.event(now, Event::Shard(partition, Input::Unpark { tasks, next_wake }));
            }
            Message::Open(session, hello, events) => {
                self.sessions.insert(
                    session,
                    Telling {
                        events,
                        batch: Vec::new(),
                    },
                );
                self.event(now, Event::Open(session, hello));
                if self.draining.is_some() {
                    self.tell(session, WorkerEvent::GoAway);
                }
            }
            Message::Poll(session, worker, limit, reply) => {
                self.polls.insert(session, reply);
                self.event(
                    now,
                    Event::Poll {
                        session,
                        worker,
                        limit,
                    },
                );
            }
            Message::Close(session) => {
                self.sessions.remove(&session);
                self.polls.remove(&session);
                self.event(now, Event::Close(session));
            }
            Message::Report(worker, reports, reply) => self.report(now, worker, reports, reply),
            Message::Extend(leases, reply) => {
                let mut extend = |HeldLease {
                                      partition,
                                      offset,
                                      token,
                                  }: HeldLease| {
                    let input = Input::Extend {
                        offset,
                        token,
                        progress: None,
                    };
                    self.machine
                        .handle(now, Event::Shard(partition, input), &mut self.effects)
                };
                let answers = leases.into_iter().map(&mut extend).collect();
                let _ = reply.send(answers);
            }
            Message::Change(partition, input, reply) => {
                let answer = self
                    .machine
                    .handle(now, Event::Shard(partition, input), &mut self.effects);
                let durable = (answer == Answer::Done)
                    .then(|| self.durable(now, partition))
                    .flatten();
                let _ = reply.send((answer, durable));
            }
            Message::Find(partition, offset, reply) => {
                let _ = reply.send(self.find(partition, offset));
            }
            Message::List(partition, before, limit, states, reply) => {
                let wanted = |state| states.is_empty() || states.contains(&state);
                let shard = self.machine.shard(partition);
                let list = shard
                    .map(|shard| shard.list(before, limit, wanted))
                    .unwrap_or_default();
                let _ = reply.send((list, shard.map(scheduler_core::shard::Shard::tail)));
            }
            Message::Watch(what, watcher) => self.watch(now, what, watcher),
            Message::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Message::Update(pipeline) => self.update(now, pipeline),
            Message::Drain(reply) => {
                self.event(now, Event::Pause(true));
                for session in self.sessions.keys().copied().collect::<Vec<_>>() {
                    self.tell(session, WorkerEvent::GoAway);
                }
                self.draining = Some(reply);
            }
        }
    }

    fn event(&mut self, now: Timestamp, event: Event) {
        self.machine.handle(now, event, &mut self.effects);
    }

    fn find(&self, partition: Partition, offset: Offset) -> Found {
        self.machine
            .shard(partition)
            .map_or(Found::Ahead, |shard| shard.find(offset))
    }

    fn report(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        reports: Vec<Report>,
        reply: oneshot::Sender<(Vec<Answer>, Vec<Durable>)>,
    ) {
        let mut partitions: Vec<Partition> = reports.iter().map(|report| report.lease.partition).collect();
        let answers = reports.into_iter().map(|Report { lease, outcome }| {
            let HeldLease {
                partition,
                offset,
                token,
            } = lease;
            let input = Input::Report {
                worker,
                offset,
                token,
                outcome,
            };
            self.machine
                .handle(now, Event::Shard(partition, input), &mut self.effects)
        });
        let answers = answers.collect();
        partitions.sort_unstable();
        partitions.dedup();
        let durable = partitions
            .into_iter()
            .filter_map(|partition| self.durable(now, partition))
            .collect();
        let _ = reply.send((answers, durable));
    }

    fn update(&mut self, now: Timestamp, pipeline: Arc<Pipeline>) {
        if pipeline.definition != self.pipeline.definition {
            for session in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.tell(session, WorkerEvent::Definition(pipeline.definition.clone()));
            }
        }
        if pipeline.policy != self.pipeline.policy {
            self.event(now, Event::Policy(Arc::new(pipeline.policy.clone())));
        }
        self.event(now, Event::Pause(pipeline.paused || self.draining.is_some()));
        self.pipeline = pipeline;
    }

    fn status(&self) -> Status {
        let (counts, sessions) = self.machine.counts();
        let tails = self
            .machine
            .shards()
            .map(|shard| (shard.tenure().shard.partition, shard.tail()));
        let problems = self.hosted.values().filter_map(|hosted| hosted.problem.clone());
        Status {
            counts,
            sessions,
            tails: tails.collect(),
            problems: problems.collect(),
        }
    }

    /// Does what the machine wants done.
    fn carry_out(&mut self, now: Timestamp) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Tell(session, event) => self.tell(session, event),
                Effect::Answer(session, leases) => self.answer_poll(now, session, leases),
                Effect::End(session) => {
                    self.sessions.remove(&session);
                }
                Effect::Changed(partition, offset) => {
                    let found = self.find(partition, offset);
                    self.watchers.changed(self.shard_id(partition), offset, found);
                }
                Effect::Save(checkpoint) => {
                    if let Some(mailbox) = self.mailbox() {
                        // The saver lives as long as the node; what is not saved then is as after a crash.
                        let _ = self.world.saver.send((checkpoint, mailbox));
                    }
                }
                Effect::Truncate(partition, offset) => self.truncate(partition, offset),
                Effect::LoadParked {
                    partition,
                    after,
                    until,
                    limit,
                } => {
                    self.load_parked(partition, after, until, limit);
                }
            }
        }
        // What giving back leases has caused is done in the next turn, which a message or deadline brings; its buffer is kept.
        std::mem::swap(&mut self.effects, &mut effects);
        self.effects.append(&mut effects);
    }

    fn answer_poll(&mut self, now: Timestamp, session: SessionId, leases: Vec<Lease>) {
        let Some(reply) = self.polls.remove(&session) else {
            return;
        };
        let Err(leases) = reply.send(leases) else { return };
        // Whoever asked has gone: the leases go back at once.
        for Lease {
            partition,
            offset,
            token,
            ..
        } in leases
        {
            self.return_lease(now, partition, offset, token);
        }
    }

    fn return_lease(&mut self, now: Timestamp, partition: Partition, offset: Offset, token: LeaseToken) {
        self.machine
            .give_back(now, partition, WorkerId(0), offset, token, &mut self.effects);
    }

    fn tell(&mut self, session: SessionId, event: WorkerEvent) {
        if let Some(telling) = self.sessions.get_mut(&session) {
            telling.batch.push(event);
        }
    }

    /// Sends each session what has come together for it.
    fn tell_sessions(&mut self) {
        self.sessions.retain(|_, telling| {
            // A transport that is gone says so by closing the session.
            telling.batch.is_empty() || telling.events.send(std::mem::take(&mut telling.batch)).is_ok()
        });
    }

    fn end_drain(&mut self) {
        if self
            .draining
            .as_ref()
            .is_some_and(|_| self.machine.counts().0.running == 0)
            && let Some(reply) = self.draining.take()
        {
            let _ = reply.send(());
        }
    }

    fn shard_id(&self, partition: Partition) -> ShardId {
        ShardId::new(self.pipeline.id, partition)
    }

    fn mailbox(&self) -> Option<Mailbox> {
        self.mailbox.upgrade().map(Mailbox)
    }
}
