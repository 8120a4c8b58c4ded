//! The actor of a pipeline: the one task that drives its [`PipelineNode`].
//!
//! It never waits for anything but its mailbox and its next deadline: what takes time (claims, reads, saves) is done by others, who answer into
//! the mailbox. So everybody may wait for room in the mailbox without a deadlock.
//!
//! | file | idea |
//! | --- | --- |
//! | `line.rs` | what is told to a shard by those who work for it |
//! | `host.rs` | the shards that live here: how they come up, are saved, and let go |
//! | `forward.rs` | from the log into a shard |
//! | `sessions.rs`, `outbox.rs` | from a shard to workers |
//! | `requests.rs` | what others ask of tasks |
//! | `supervise.rs` | what becomes of it if it panics |
//! | `watch.rs` | those who want to know what happens to tasks |

mod forward;
mod host;
mod line;
mod outbox;
mod record;
mod requests;
mod sessions;
mod supervise;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::{Epoch, Offset, Partition, ShardId, WorkerId};
use scheduler_core::key::KeyHash;
use scheduler_core::pipeline::{Effect, Event, PipelineNode};
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{
    HeldLease, Lease, Report, TaskState, WorkerCommand, WorkerEvent, WorkerHello,
};
use scheduler_core::port::log::TaskLog;
use scheduler_core::port::store::CheckpointStore;
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Account, Answer, Counts, Found, Input, Shard};
use scheduler_core::time::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::host::{Hosted, Trouble};
pub(crate) use self::line::{Line, Stay, Word};
pub(crate) use self::outbox::{Events, Outbox, Teller};
use self::record::Recorder;
use self::sessions::{Polling, Telling};
use self::supervise::{Crashes, Inbox};
pub(crate) use self::watch::Watched;
use self::watch::Watchers;
use crate::clock::Clock;
use crate::saver::Order;

/// Messages that wait for an actor; more senders wait for room.
const MAILBOX: usize = 1_024;
/// Messages taken together, so that what they bring meets at one dispatch.
const BATCH: usize = 256;
/// Room for messages that an idle actor keeps.
const IDLE_BATCH: usize = 16;

/// Says when a change is in the store. If it ends without a word, the shard has left this node.
pub(crate) type Durable = oneshot::Receiver<()>;

/// When something was read from the store, as a shard counts: what was read at an earlier mark may be older than what it has saved since.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Mark(u64);

/// Where what was read from the store belongs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadAt {
    /// The shard's mark before the reading.
    pub(crate) mark: Mark,
    /// The shard's epoch after it, as the store has it.
    pub(crate) epoch: Epoch,
}

/// What can be said to an actor.
#[derive(Debug)]
pub(crate) enum Message {
    /// These partitions live here now.
    Assign(Vec<Partition>),
    /// These go elsewhere: answer when they are released.
    Revoke(Vec<Partition>, oneshot::Sender<()>),
    /// These are elsewhere already.
    Lose(Vec<Partition>),
    /// For one stay of a shard.
    Shard(Partition, Stay, Word),
    /// Opens a session, whose worker was told this definition.
    Open(SessionId, WorkerHello, Teller, Bytes),
    /// Asks for leases once.
    Poll(SessionId, WorkerId, u32, oneshot::Sender<Vec<Lease>>),
    /// A session or a poll is over; whether a poll has got what it was answered.
    Close(SessionId, bool),
    /// A worker has spoken in its session.
    Commands(SessionId, Vec<WorkerCommand>),
    /// A worker reports without a session. For each shard that had a report: when it is saved.
    Report(
        WorkerId,
        Vec<Report>,
        oneshot::Sender<(Vec<Answer>, Vec<Durable>)>,
    ),
    /// A worker gives signs of life without a session.
    Extend(WorkerId, Vec<HeldLease>, oneshot::Sender<Vec<Answer>>),
    /// Somebody changes tasks of a partition: nothing of it, if what it stands on was read at another mark than the shard's, or under another owner.
    Change(Partition, Vec<Input>, Option<ReadAt>, oneshot::Sender<Changed>),
    /// What is known of tasks.
    Find(Partition, Vec<Offset>, oneshot::Sender<Vec<Found>>),
    /// Which tasks run for idempotency keys.
    FindKeys(Partition, Vec<KeyHash>, oneshot::Sender<Vec<Option<Offset>>>),
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
    /// Which workers have tasks.
    Busy(oneshot::Sender<Vec<BusyWorker>>),
    /// Where every offset of the shards here is, with the shards' marks.
    Account(oneshot::Sender<Vec<(Partition, Account, Mark)>>),
    /// Records what a shard is told, up to so many bytes; answers whether it is here.
    Record(Partition, usize, mpsc::Sender<Bytes>, oneshot::Sender<bool>),
    /// A shard that was released to be recorded comes up again.
    ComeBack(Partition),
    /// The pipeline was changed.
    Update(Arc<Pipeline>),
    /// The node goes down: no more leases, and answer once nothing runs.
    Drain(oneshot::Sender<()>),
    /// It is over: sessions, polls and watches end, shards are dropped as they are, and nothing is heard any more.
    Stop,
}

/// The answer to [`Message::Change`].
#[derive(Debug)]
pub(crate) struct Changed {
    /// One for each input; none if what they stand on is too old.
    pub(crate) answers: Option<Vec<Answer>>,
    /// The mark of now.
    pub(crate) mark: Mark,
    /// When all of it is saved; `None` if nothing was done.
    pub(crate) durable: Option<Durable>,
}

/// How a pipeline fares on this node.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) counts: Counts,
    pub(crate) sessions: u64,
    /// One past the last offset that each active shard has taken from the log, by partition.
    pub(crate) tails: BTreeMap<Partition, Offset>,
    /// What is wrong with shards, for people.
    pub(crate) problems: Vec<String>,
    /// The actor's turn, if it had nothing else to do in it; see [`Mailbox::turns`].
    pub(crate) turn: Option<u64>,
}

/// Where an actor is told things.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    send: mpsc::Sender<Message>,
    turns: Arc<AtomicU64>,
}

impl Mailbox {
    /// Tells it, waiting for room. Nothing is said if the actor is gone: the pipeline is deleted, or the node is down.
    pub(crate) async fn tell(&self, message: Message) -> bool {
        self.send.send(message).await.is_ok()
    }

    /// Asks it. `None` if the actor is gone.
    pub(crate) async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (send, answer) = oneshot::channel();
        self.tell(message(send)).await;
        answer.await.ok()
    }

    /// Stops the actor, and waits until it has.
    pub(crate) async fn stop(&self) {
        self.tell(Message::Stop).await;
        self.send.closed().await;
    }

    /// How often the actor has done anything: while that stays the same, so does everything about it.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
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
    /// Bounded by the number of shards: each has one checkpoint under way at most.
    pub(crate) saver: mpsc::UnboundedSender<Order>,
    /// Bounds how many shards come up at once.
    pub(crate) activating: Arc<Semaphore>,
    /// Every task of the node.
    pub(crate) tasks: TaskTracker,
    /// The end of the node, however it comes.
    pub(crate) ended: CancellationToken,
}

/// The actor. See the [module](self).
#[derive(Debug)]
pub(crate) struct PipelineActor {
    world: World,
    mailbox: mpsc::WeakSender<Message>,
    turns: Arc<AtomicU64>,
    /// Messages of this turn.
    taken: usize,
    pipeline: Arc<Pipeline>,
    machine: PipelineNode,
    /// What placement says is ours.
    assigned: BTreeSet<Partition>,
    /// Whether placement has taken away all that it had given.
    has_left: bool,
    hosted: BTreeMap<Partition, Hosted>,
    /// What is wrong with partitions, whether their shards are here or not.
    troubles: BTreeMap<Partition, Trouble>,
    crashes: Crashes,
    recorders: BTreeMap<Partition, Recorder>,
    sessions: BTreeMap<SessionId, Telling>,
    /// Those of them that have been told something in this turn.
    told: Vec<SessionId>,
    polls: BTreeMap<SessionId, Polling>,
    watchers: Watchers,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
    is_stopped: bool,
    effects: Vec<Effect>,
    /// The last mark or stay that was given out.
    last_mark: u64,
}

impl PipelineActor {
    /// Starts the actor of a pipeline. It ends with the node, when it is told to, or when all mailboxes are gone.
    pub(crate) fn spawn(world: World, pipeline: Arc<Pipeline>) -> Mailbox {
        let (send, receive) = mpsc::channel(MAILBOX);
        let (tasks, ended) = (world.tasks.clone(), world.ended.clone());
        let turns = Arc::new(AtomicU64::new(0));
        let actor = Self::new(world, send.downgrade(), turns.clone(), pipeline);
        tasks.spawn(async move { ended.run_until_cancelled(actor.run_supervised(receive)).await });
        Mailbox { send, turns }
    }

    fn new(
        world: World,
        mailbox: mpsc::WeakSender<Message>,
        turns: Arc<AtomicU64>,
        pipeline: Arc<Pipeline>,
    ) -> Self {
        Self {
            world,
            mailbox,
            turns,
            taken: 0,
            machine: PipelineNode::new(Arc::new(pipeline.policy.clone()), pipeline.paused),
            pipeline,
            assigned: BTreeSet::new(),
            has_left: false,
            hosted: BTreeMap::new(),
            troubles: BTreeMap::new(),
            crashes: Crashes::default(),
            recorders: BTreeMap::new(),
            sessions: BTreeMap::new(),
            told: Vec::new(),
            polls: BTreeMap::new(),
            watchers: Watchers::default(),
            draining: false,
            drained: Vec::new(),
            is_stopped: false,
            effects: Vec::new(),
            last_mark: 0,
        }
    }

    /// An actor in place of this one, which has panicked: nothing of it is to be trusted but what it was told.
    fn afresh(self) -> Self {
        let mut other = Self::new(self.world, self.mailbox, self.turns, self.pipeline);
        other.assigned = self.assigned;
        other.has_left = self.has_left;
        other.crashes = self.crashes;
        other.draining = self.draining;
        // What is still on its way to an earlier stay of a shard is not for a later one.
        other.last_mark = self.last_mark;
        let paused = other.pipeline.paused || other.draining;
        other.event(other.world.clock.now(), Event::Pause(paused));
        other
    }

    async fn run(&mut self, inbox: &mut Inbox) {
        let Inbox { receive, batch } = inbox;
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mut armed = Some(Timestamp::ZERO);
        while !self.is_stopped {
            let due = self.machine.next_deadline();
            if due != armed {
                if let Some(due) = due {
                    timer.as_mut().reset(self.world.clock.instant(due));
                }
                armed = due;
            }
            tokio::select! {
                biased;
                taken = receive.recv_many(batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    if batch.capacity() > IDLE_BATCH && taken < batch.capacity() / 4 {
                        // A burst is over; ten thousand idle actors are to cost little.
                        batch.shrink_to(batch.capacity() / 2);
                    }
                }
                () = &mut timer, if armed.is_some() => armed = None,
            }
            self.taken = batch.len();
            self.next_turn();
            let now = self.world.clock.now();
            batch.reverse();
            while let Some(message) = batch.pop() {
                self.take(now, message);
            }
            self.event(now, Event::Tick);
            loop {
                self.machine.dispatch(now, &mut self.effects);
                while !self.effects.is_empty() {
                    self.carry_out(now);
                }
                // Whoever does not listen gives back leases, which others may want.
                if !self.tell_sessions(now) {
                    break;
                }
            }
            if self.watchers.nobody_watches_all() {
                self.event(now, Event::WatchAll(false));
            }
            self.send_recorded();
            self.read_on();
            self.end_drain();
        }
    }

    fn take(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::Shard(partition, stay, word) => self.hear(now, partition, stay, word),
            Message::Commands(session, commands) => self.event(now, Event::Commands(session, commands)),
            Message::Assign(partitions) => {
                self.assigned.extend(&partitions);
                self.has_left = false;
                for partition in partitions {
                    self.assign(partition, false);
                }
            }
            Message::Revoke(partitions, released) => {
                self.unassign(&partitions);
                self.revoke(now, partitions, released);
            }
            Message::Lose(partitions) => {
                self.unassign(&partitions);
                for partition in partitions {
                    self.lose(now, partition);
                }
            }
            Message::Open(session, hello, teller, definition) => {
                self.open(now, session, hello, teller, &definition);
            }
            Message::Poll(session, worker, limit, reply) => self.poll(now, session, worker, limit, reply),
            Message::Close(session, complete) => self.close(now, session, complete),
            Message::Report(worker, reports, reply) => self.report(now, worker, reports, reply),
            Message::Extend(worker, leases, reply) => self.extend(now, worker, leases, reply),
            Message::Change(partition, inputs, read_at, reply) => {
                self.change(now, partition, inputs, read_at, reply);
            }
            Message::Find(partition, offsets, reply) => {
                let find = |offset| self.find(partition, offset);
                let _ = reply.send(offsets.into_iter().map(find).collect());
            }
            Message::FindKeys(partition, keys, reply) => {
                let shard = self.machine.shard(partition);
                let find = |key| shard.and_then(|shard| shard.task_of_key(key));
                let _ = reply.send(keys.into_iter().map(find).collect());
            }
            Message::List(partition, before, limit, states, reply) => {
                let wanted = |state| states.is_empty() || states.contains(&state);
                let shard = self.machine.shard(partition);
                let list = shard
                    .map(|shard| shard.list(before, limit, wanted))
                    .unwrap_or_default();
                let _ = reply.send((list, shard.map(Shard::tail)));
            }
            Message::Watch(what, watcher) => self.watch(now, what, watcher),
            Message::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Message::Busy(reply) => {
                let _ = reply.send(self.busy());
            }
            Message::Account(reply) => {
                let accounts = self.machine.shards().map(|shard| {
                    let partition = shard.tenure().shard.partition;
                    (partition, shard.account(), self.mark_of(partition))
                });
                let _ = reply.send(accounts.collect());
            }
            Message::Record(partition, limit, send, reply) => {
                let _ = reply.send(self.record(now, partition, limit, send));
            }
            Message::ComeBack(partition) => {
                if self.assigned.contains(&partition) {
                    self.assign(partition, false);
                }
            }
            Message::Update(pipeline) => self.update(now, pipeline),
            Message::Drain(reply) => {
                self.draining = true;
                self.drained.push(reply);
                self.event(now, Event::Pause(true));
                self.tell_all(&WorkerEvent::GoAway);
                // There is nothing to wait for any more; what was answered already may still come back.
                self.polls
                    .retain(|_, polling| matches!(polling, Polling::Answered(_)));
            }
            Message::Stop => self.is_stopped = true,
        }
    }

    fn event(&mut self, now: Timestamp, event: Event) {
        self.machine.handle(now, event, &mut self.effects);
    }

    fn input(&mut self, now: Timestamp, partition: Partition, input: Input) -> Answer {
        self.machine
            .handle(now, Event::Shard(partition, input), &mut self.effects)
    }

    pub(super) fn unassign(&mut self, partitions: &[Partition]) {
        self.assigned.retain(|partition| !partitions.contains(partition));
        self.has_left = self.assigned.is_empty();
    }

    fn find(&self, partition: Partition, offset: Offset) -> Found {
        self.machine
            .shard(partition)
            .map_or(Found::Ahead, |shard| shard.find(offset))
    }

    /// Does what the machine wants done.
    fn carry_out(&mut self, now: Timestamp) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Tell(session, event) => self.tell(session, event),
                Effect::Answer(session, leases) => self.answer_poll(now, session, leases),
                Effect::End(session) => self.end_session(session),
                Effect::Changed(partition, offset) => {
                    let found = self.find(partition, offset);
                    self.watchers.changed(self.shard_id(partition), offset, found);
                }
                Effect::Save(checkpoint) => {
                    if let Some(line) = self.line(checkpoint.tenure.shard.partition) {
                        // The saver lives as long as the node; what is not saved then is as after a crash.
                        let _ = self.world.saver.send((checkpoint, line));
                    }
                }
                Effect::Truncate(partition, offset) => self.truncate(partition, offset),
                Effect::LoadParked {
                    partition,
                    page,
                    after,
                    until,
                    limit,
                } => {
                    self.load_parked(partition, page, after, until, limit);
                }
            }
        }
        // What this has caused comes next; the buffer is kept.
        std::mem::swap(&mut self.effects, &mut effects);
        self.effects.append(&mut effects);
    }

    fn end_drain(&mut self) {
        if !self.drained.is_empty() && self.machine.counts().0.running == 0 {
            for reply in self.drained.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    fn shard_id(&self, partition: Partition) -> ShardId {
        ShardId::new(self.pipeline.id, partition)
    }

    fn next_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn next_mark(&mut self) -> u64 {
        self.last_mark += 1;
        self.last_mark
    }
}
