//! The actor of a pipeline: the one task that drives its [`Host`].
//!
//! It never waits for anything but its mailbox and its next deadline: what takes time (claims, reads, saves) is done by others, who answer into
//! the mailbox. So everybody may wait for room in the mailbox without a deadlock.
//!
//! | file | idea |
//! | --- | --- |
//! | `line.rs` | the way to a shard for those who work for it |
//! | `shell.rs`, `trouble.rs` | what the host wants done for the shards that live here |
//! | `forward.rs` | from the log into a shard |
//! | `sessions.rs`, `outbox.rs` | from a shard to workers |
//! | `requests.rs` | what others ask of tasks |
//! | `supervise.rs` | what becomes of it if it panics |
//! | `watch.rs` | those who want to know what happens to tasks |

mod forward;
mod line;
mod outbox;
mod record;
mod requests;
mod sessions;
mod shell;
mod supervise;
mod trouble;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::host::{Effects, Host, HostConfig, Stay, Word};
pub(crate) use scheduler_core::host::{Mark, ReadAt};
use scheduler_core::id::{Offset, Partition, ShardId, WorkerId};
use scheduler_core::key::KeyHash;
use scheduler_core::pipeline::{Effect, Event};
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{
    HeldLease, Lease, Report, TaskState, Waiting, WorkerCommand, WorkerEvent, WorkerHello,
};
use scheduler_core::port::log::TaskLog;
use scheduler_core::port::store::CheckpointStore;
use scheduler_core::saver::Order;
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Account, Answer, Counts, Found, Input, Shard};
use scheduler_core::time::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::line::Line;
pub(crate) use self::outbox::{Events, Outbox, Teller};
use self::record::Recorder;
use self::sessions::{Polling, Telling};
use self::shell::{Asker, Crew, Released};
pub(crate) use self::supervise::text_of;
use self::supervise::{Crashes, Inbox};
pub(crate) use self::watch::Watched;
use self::watch::Watchers;
use crate::clock::Clock;

/// Messages that wait for an actor; more senders wait for room.
const MAILBOX: usize = 1_024;
/// Messages taken together, so that what they bring meets at one dispatch.
const BATCH: usize = 256;
/// Room for messages that an idle actor keeps.
const IDLE_BATCH: usize = 16;

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
    /// For one stay of a shard.
    Shard(Stay, Word),
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
    /// Why a task does not run, if it does not.
    Explain(Partition, Offset, oneshot::Sender<Option<Waiting>>),
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
    pub(crate) saver: mpsc::UnboundedSender<Order<Line>>,
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
    host: Host<Asker, Arc<Released>>,
    /// Those who work for shards.
    crews: BTreeMap<Partition, Crew>,
    /// Each truncates a log.
    truncating: BTreeMap<Partition, AbortHandle>,
    crashes: Crashes,
    recorders: BTreeMap<Partition, Recorder>,
    sessions: BTreeMap<SessionId, Telling>,
    /// Those of them that have been told something in this turn.
    told: Vec<SessionId>,
    polls: BTreeMap<SessionId, Polling>,
    watchers: Watchers,
    /// Who waits until nothing runs here.
    drained: Vec<oneshot::Sender<()>>,
    is_stopped: bool,
    effects: Effects<Asker, Arc<Released>>,
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
        let config = HostConfig {
            pipeline: pipeline.id,
            node: world.node,
            grace: world.grace,
        };
        Self {
            world,
            mailbox,
            turns,
            taken: 0,
            host: Host::new(config, Arc::new(pipeline.policy.clone()), pipeline.paused),
            pipeline,
            crews: BTreeMap::new(),
            truncating: BTreeMap::new(),
            crashes: Crashes::default(),
            recorders: BTreeMap::new(),
            sessions: BTreeMap::new(),
            told: Vec::new(),
            polls: BTreeMap::new(),
            watchers: Watchers::default(),
            drained: Vec::new(),
            is_stopped: false,
            effects: Effects::default(),
        }
    }

    /// An actor in place of this one, which has panicked: nothing of it is to be trusted but what it was told.
    fn afresh(self) -> Self {
        let mut other = Self::new(self.world, self.mailbox, self.turns, self.pipeline);
        other.host = self.host.afresh();
        other.crashes = self.crashes;
        other
    }

    async fn run(&mut self, inbox: &mut Inbox) {
        let Inbox { receive, batch } = inbox;
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mut armed = Some(Timestamp::ZERO);
        while !self.is_stopped {
            let due = self.host.next_deadline();
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
                self.act(now);
            }
            self.event(now, Event::Tick);
            loop {
                self.host.dispatch(now, &mut self.effects);
                while !self.effects.pipeline.is_empty() {
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
            self.host.read_on(&mut self.effects);
            self.act(now);
            self.end_drain();
        }
    }

    fn take(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::Shard(stay, word) => self.hear(now, stay, word),
            Message::Commands(session, commands) => self.event(now, Event::Commands(session, commands)),
            Message::Assign(partitions) => self.host.assign(now, &partitions, &mut self.effects),
            Message::Revoke(partitions, released) => {
                let released = Released::new(released);
                self.host.revoke(now, &partitions, &released, &mut self.effects);
            }
            Message::Lose(partitions) => self.host.lose(now, &partitions, &mut self.effects),
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
            Message::Explain(partition, offset, reply) => {
                let _ = reply.send(self.host.pipeline().waiting(partition, offset));
            }
            Message::Find(partition, offsets, reply) => {
                let find = |offset| self.find(partition, offset);
                let _ = reply.send(offsets.into_iter().map(find).collect());
            }
            Message::FindKeys(partition, keys, reply) => {
                let shard = self.host.pipeline().shard(partition);
                let find = |key| shard.and_then(|shard| shard.task_of_key(key));
                let _ = reply.send(keys.into_iter().map(find).collect());
            }
            Message::List(partition, before, limit, states, reply) => {
                let wanted = |state| states.is_empty() || states.contains(&state);
                let shard = self.host.pipeline().shard(partition);
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
                let accounts = self.host.pipeline().shards().map(|shard| {
                    let partition = shard.tenure().shard.partition;
                    (partition, shard.account(), self.host.mark_of(partition))
                });
                let _ = reply.send(accounts.collect());
            }
            Message::Record(partition, limit, send, reply) => {
                let _ = reply.send(self.record(now, partition, limit, send));
            }
            Message::ComeBack(partition) => self.host.come_back(now, partition, &mut self.effects),
            Message::Update(pipeline) => self.update(now, pipeline),
            Message::Drain(reply) => {
                self.drained.push(reply);
                self.host.drain(now, &mut self.effects);
            }
            Message::Stop => self.is_stopped = true,
        }
    }

    fn event(&mut self, now: Timestamp, event: Event) {
        self.host.event(now, event, &mut self.effects);
    }

    fn input(&mut self, now: Timestamp, partition: Partition, input: Input) -> Answer {
        self.host.tell(now, partition, input, &mut self.effects)
    }

    fn find(&self, partition: Partition, offset: Offset) -> Found {
        self.host
            .pipeline()
            .shard(partition)
            .map_or(Found::Ahead, |shard| shard.find(offset))
    }

    /// Does what the pipeline wants done.
    fn carry_out(&mut self, now: Timestamp) {
        let mut effects = std::mem::take(&mut self.effects.pipeline);
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
                    let stay = self.host.stay_of(checkpoint.tenure.shard.partition);
                    if let Some(line) = stay.and_then(|stay| self.line(stay)) {
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
        std::mem::swap(&mut self.effects.pipeline, &mut effects);
        self.effects.pipeline.append(&mut effects);
    }

    /// Nobody gets leases any more, and there is nothing to wait for; what was answered already may still come back.
    fn go_away(&mut self) {
        self.tell_all(&WorkerEvent::GoAway);
        self.polls
            .retain(|_, polling| matches!(polling, Polling::Answered(_)));
    }

    fn end_drain(&mut self) {
        if !self.drained.is_empty() && self.host.is_drained() {
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
}
