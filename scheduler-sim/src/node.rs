//! A scheduler process: the driver of the core's machines, as thin as scheduler-runtime's actor and of the same shape.
//!
//! One turn takes what mail has come, lets the machine dispatch, and does what it says. Mail carries what the runtime's messages carry, so
//! that what goes wrong with them there goes wrong here.

mod forward;
mod host;
mod poll;
mod save;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use scheduler_core::id::{NodeId, Offset, Partition, PipelineId, ShardId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::{Effect, Event, PipelineNode};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{HeldLease, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_core::port::log::Bounds;
use scheduler_core::session::SessionId;
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;

pub(crate) use self::forward::MOST_RECORDS;
pub(crate) use self::host::Hosted;
pub(crate) use self::poll::PollCall;
pub(crate) use self::save::Saver;
pub(crate) use self::tasks::{Change, Request, Stage};
use crate::calls::{LogCall, StoreAnswer, StoreCall};
use crate::clock::Clock;
use crate::coverage::Point;
use crate::net::ConnId;
use crate::placement::Step as PlacementStep;
use crate::wire;
use crate::worker::Routes;
use crate::world::{Happening, World};

/// Messages taken together.
const BATCH: usize = 256;
/// Turns without mail that follow each other at once: more is a machine that never rests.
const RESTLESS: u32 = 2_000;

/// What is said to a node's driver.
#[derive(Debug)]
pub(crate) enum Mail {
    Assign(Vec<Partition>),
    Revoke(Vec<Partition>),
    Lose(Vec<Partition>),
    /// A fenced owner that is still assigned tries again, in this stay.
    Reclaim(Partition, u64),
    /// The store's answer; `None` if it has failed.
    Stored(StoreCall, Option<StoreAnswer>),
    /// A call that failed is to be made again.
    Again(StoreCall),
    Measured(Partition, u64, Option<Bounds>),
    Measure(Partition, u64),
    Records(Partition, u64, Result<Vec<Record>, ReadError>),
    ReadAgain(Partition, u64),
    Open(SessionId, WorkerHello),
    Close(SessionId),
    Commands(SessionId, Vec<WorkerCommand>),
    /// A worker without a session asks for tasks.
    Poll(PollCall, u32),
    PollOver(SessionId),
    PolledReport(PollCall, HeldLease, AttemptOutcome),
    PolledExtend(PollCall, HeldLease),
    Change(Request),
    Policy(Arc<PipelinePolicy>),
    Pause(bool),
    /// Shards that were left alone are to come up all the same.
    TryAgain,
    /// Shutdown begins, goes on, ends.
    Drain,
    DrainIsOver,
}

/// Why the log has not given records.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadError {
    Unavailable,
    Truncated { start: Offset },
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a process may be in many ways")]
pub(crate) struct Node {
    pub(crate) life: u32,
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    /// When it goes on, if it is paused.
    pub(crate) resumes_at: u64,
    pub(crate) is_stopping: bool,
    drained: bool,
    /// Shards that were left alone here.
    quarantined: BTreeSet<Partition>,
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) machine: PipelineNode,
    pub(crate) hosted: BTreeMap<Partition, Hosted>,
    /// What placement says is ours.
    assigned: BTreeSet<Partition>,
    /// Whether placement has taken away all that it had given.
    has_left: bool,
    sessions: BTreeMap<SessionId, Telling>,
    /// Who waits for tasks without a session.
    pub(crate) polls: BTreeMap<SessionId, PollCall>,
    next_session: u64,
    mail: VecDeque<Mail>,
    pub(crate) turn_at: Option<u64>,
    restless: u32,
    pub(crate) effects: Vec<Effect>,
    /// How many of the effects the oracle has seen.
    pub(crate) watched: usize,
    saver: Saver,
    pub(crate) policy: Arc<PipelinePolicy>,
    paused: bool,
    /// The last number of a stay, mark or forwarder that was given out.
    last_mark: u64,
    pub(crate) placement_mail_at: u64,
    /// Who owns what, as it tells workers.
    pub(crate) routes: Routes,
}

#[derive(Debug)]
struct Telling {
    conn: ConnId,
    batch: Vec<WorkerEvent>,
}

impl Node {
    /// A process that has not started.
    pub(crate) fn down(policy: Arc<PipelinePolicy>) -> Self {
        Self {
            life: 0,
            is_up: false,
            is_paused: false,
            resumes_at: 0,
            is_stopping: false,
            drained: false,
            quarantined: BTreeSet::new(),
            id: NodeId(0),
            clock: Clock::new(0, 0, 1_000_000),
            machine: PipelineNode::new(policy.clone(), false),
            hosted: BTreeMap::new(),
            assigned: BTreeSet::new(),
            has_left: false,
            sessions: BTreeMap::new(),
            polls: BTreeMap::new(),
            next_session: 0,
            mail: VecDeque::new(),
            turn_at: None,
            restless: 0,
            effects: Vec::new(),
            watched: 0,
            saver: Saver::default(),
            policy,
            paused: false,
            last_mark: 0,
            placement_mail_at: 0,
            routes: Routes::default(),
        }
    }
}

pub(crate) fn shard_id(partition: Partition) -> ShardId {
    ShardId::new(PipelineId(1), partition)
}

impl World {
    pub(crate) fn start_node(&mut self, index: usize) {
        let clock = self.draw_clock();
        let life = self.nodes[index].life + 1;
        let id = NodeId(self.rng.u128());
        let policy = self.policy.clone();
        self.nodes[index] = Node {
            life,
            is_up: true,
            id,
            clock,
            machine: PipelineNode::new(policy.clone(), self.pipeline_is_paused),
            paused: self.pipeline_is_paused,
            ..Node::down(policy)
        };
        self.trace
            .note(&[1, index as u64], || format!("node {index} starts, life {life}"));
        let joins = self.now + self.rng.range(10, 1_000);
        self.queue
            .push(joins, Happening::Placement(PlacementStep::Join((index, life))));
    }

    /// The process is gone with all it knew.
    pub(crate) fn crash_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let life = node.life;
        let sessions: Vec<ConnId> = node.sessions.values().map(|telling| telling.conn).collect();
        let policy = self.policy.clone();
        *node = Node {
            life: life + 1,
            ..Node::down(policy)
        };
        self.trace
            .note(&[2, index as u64], || format!("node {index} is gone"));
        self.oracle.node_gone(index);
        for conn in sessions {
            self.cut(conn);
        }
        let noticed = self.now + self.plan.session_timeout;
        self.queue
            .push(noticed, Happening::Placement(PlacementStep::Leave((index, life))));
    }

    /// Something arrives at a node's mailbox.
    pub(crate) fn mail(&mut self, index: usize, life: u32, mail: Mail) {
        let node = &mut self.nodes[index];
        if !node.is_up || node.life != life {
            return;
        }
        node.mail.push_back(mail);
        if !node.is_paused {
            self.wake_node(index, self.now);
        }
    }

    pub(crate) fn wake_node(&mut self, index: usize, at: u64) {
        let node = &mut self.nodes[index];
        if node.turn_at.is_none_or(|turn| at < turn) {
            node.turn_at = Some(at);
            let life = node.life;
            self.queue.push(at, Happening::NodeTurn { node: index, life });
        }
    }

    pub(crate) fn node_turn(&mut self, index: usize, life: u32) {
        let node = &mut self.nodes[index];
        if !node.is_up || node.is_paused || node.life != life || node.turn_at != Some(self.now) {
            return;
        }
        node.turn_at = None;
        let now = node.clock.now(self.now);
        self.oracle.clock(now);
        let node = &mut self.nodes[index];
        let taken = node.mail.len().min(BATCH);
        node.restless = if taken == 0 { node.restless + 1 } else { 0 };
        if node.restless > RESTLESS {
            return self
                .oracle
                .fail("rest", format!("node {index} wakes up all the time"));
        }
        for _ in 0..taken {
            if let Some(mail) = self.nodes[index].mail.pop_front() {
                self.take(index, now, mail);
            }
            // What the oracle is to see, it sees mail by mail.
            self.watch_effects(index, now);
        }
        self.event(index, now, Event::Tick);
        let node = &mut self.nodes[index];
        node.machine.dispatch(now, &mut node.effects);
        self.watch_effects(index, now);
        while !self.nodes[index].effects.is_empty() {
            self.carry_out(index);
            self.watch_effects(index, now);
        }
        self.tell_sessions(index);
        self.read_on(index);
        self.end_drain(index);
        self.check_memory(index);

        let node = &mut self.nodes[index];
        if !node.is_up {
            return;
        }
        if !node.mail.is_empty() {
            self.wake_node(index, self.now);
        } else if let Some(due) = node.machine.next_deadline() {
            // As the runtime's timer, never at once.
            let at = node.clock.reaches(due).max(self.now + 1);
            self.wake_node(index, at);
        }
    }

    fn take(&mut self, index: usize, now: Timestamp, mail: Mail) {
        match mail {
            Mail::Records(partition, forwarder, records) => {
                self.records(index, now, partition, forwarder, records);
            }
            Mail::ReadAgain(partition, forwarder) => self.read_again(index, partition, forwarder),
            Mail::Commands(session, commands) => {
                self.trace
                    .note(&[6, index as u64, session.0, commands.len() as u64], || {
                        format!("node {index} hears from {session:?}: {commands:?}")
                    });
                self.oracle_commands(index, now, session, &commands);
                self.event(index, now, Event::Commands(session, commands));
            }
            // Its last shard has left since the session was asked for.
            Mail::Open(session, _) if self.nodes[index].has_left && self.nodes[index].hosted.is_empty() => {
                if let Some(telling) = self.nodes[index].sessions.remove(&session) {
                    self.hang_up(telling.conn);
                }
            }
            Mail::Open(session, hello) => {
                self.trace.note(&[7, index as u64, session.0], || {
                    format!("node {index} opens {session:?}: {hello:?}")
                });
                if !self.nodes[index].machine.is_overtaken(&hello) {
                    self.oracle_hello(index, now, session, &hello);
                }
                self.event(index, now, Event::Open(session, hello));
                if self.nodes[index].is_stopping {
                    self.tell(index, session, WorkerEvent::GoAway);
                }
            }
            Mail::Close(session) => {
                self.trace.note(&[8, index as u64, session.0], || {
                    format!("node {index} closes {session:?}")
                });
                self.nodes[index].sessions.remove(&session);
                self.oracle.session_over(index, session);
                self.event(index, now, Event::Close(session));
            }
            Mail::Stored(call, answer) => self.stored(index, now, call, answer),
            Mail::Again(call) => self.call_store(call),
            Mail::Measured(partition, stay, bounds) => self.bounds_read(index, partition, stay, bounds),
            Mail::Measure(partition, stay) => {
                if self.stays(index, partition, stay) {
                    self.call_log(index, LogCall::Bounds(partition, stay));
                }
            }
            // A process that has let go of everything is about to end.
            Mail::Assign(_) if self.nodes[index].drained => (),
            Mail::Assign(partitions) => {
                self.nodes[index].has_left = false;
                for partition in partitions {
                    self.nodes[index].assigned.insert(partition);
                    self.assign(index, partition, false);
                }
            }
            Mail::Reclaim(partition, stay) => self.due(index, now, partition, stay),
            Mail::Revoke(partitions) => {
                for partition in partitions {
                    self.unassign(index, partition);
                    self.revoke(index, now, partition);
                }
            }
            Mail::Lose(partitions) => {
                for partition in partitions {
                    self.unassign(index, partition);
                    self.lose(index, now, partition);
                }
            }
            Mail::Poll(call, limit) => self.poll(index, now, call, limit),
            Mail::PollOver(session) => self.poll_is_over(index, now, session),
            Mail::PolledReport(call, lease, outcome) => {
                self.polled_report(index, now, call, lease, outcome);
            }
            Mail::PolledExtend(call, lease) => self.polled_extend(index, now, call, lease),
            Mail::Change(request) => self.change(index, now, request),
            Mail::Policy(policy) => {
                // A checkpoint made before, as when the shard was told to leave, is right by the old policy.
                self.watch_effects(index, now);
                self.nodes[index].policy = policy.clone();
                self.event(index, now, Event::Policy(policy));
            }
            Mail::Pause(paused) => {
                let node = &mut self.nodes[index];
                node.paused = paused;
                let paused = paused || node.is_stopping;
                self.event(index, now, Event::Pause(paused));
            }
            // Nor does one that ends take anything up again.
            Mail::TryAgain if self.nodes[index].is_stopping => (),
            Mail::TryAgain => {
                for partition in std::mem::take(&mut self.nodes[index].quarantined) {
                    self.assign(index, partition, true);
                }
            }
            Mail::Drain => self.begin_drain(index, now),
            Mail::DrainIsOver => self.drain_is_over(index, now),
        }
    }

    fn unassign(&mut self, index: usize, partition: Partition) {
        let node = &mut self.nodes[index];
        node.assigned.remove(&partition);
        node.has_left = node.assigned.is_empty();
    }

    /// No more leases: running tasks may end, then shards are let go.
    fn begin_drain(&mut self, index: usize, now: Timestamp) {
        self.event(index, now, Event::Pause(true));
        let node = &mut self.nodes[index];
        node.is_stopping = true;
        for telling in node.sessions.values_mut() {
            telling.batch.push(WorkerEvent::GoAway);
        }
        let life = node.life;
        let patience = self.now + self.rng.range(100, 20_000);
        let mail = Mail::DrainIsOver;
        self.queue.push(
            patience,
            Happening::Mail {
                node: index,
                life,
                mail,
            },
        );
    }

    /// Nothing runs any more, or patience is over: what is hosted is let go, then the process ends.
    fn drain_is_over(&mut self, index: usize, now: Timestamp) {
        let node = &mut self.nodes[index];
        if !node.is_stopping || std::mem::replace(&mut node.drained, true) {
            return;
        }
        for partition in node.hosted.keys().copied().collect::<Vec<_>>() {
            self.unassign(index, partition);
            self.revoke(index, now, partition);
        }
    }

    fn end_drain(&mut self, index: usize) {
        let node = &self.nodes[index];
        if !node.is_stopping {
            return;
        }
        if !node.drained {
            if node.machine.counts().0.running == 0 {
                let now = node.clock.now(self.now);
                self.drain_is_over(index, now);
            }
            return;
        }
        if node.hosted.is_empty() && node.saver.is_idle() {
            let life = node.life;
            self.coverage.hit(Point::RollingRestart);
            self.crash_node(index);
            self.queue
                .push(self.now, Happening::Placement(PlacementStep::Bye((index, life))));
            let back = self.now + self.rng.range(100, 3_000);
            self.queue.push(back, Happening::StartNode(index));
        }
    }

    pub(crate) fn event(&mut self, index: usize, now: Timestamp, event: Event) {
        let node = &mut self.nodes[index];
        node.machine.handle(now, event, &mut node.effects);
    }

    /// Does what the machine wants done.
    fn carry_out(&mut self, index: usize) {
        let mut effects = std::mem::take(&mut self.nodes[index].effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Tell(session, event) => self.tell(index, session, event),
                Effect::Answer(session, leases) => self.answer_poll(index, session, leases),
                Effect::Changed(..) => (),
                Effect::End(session) => {
                    self.coverage.hit(Point::SessionSwept);
                    if let Some(telling) = self.nodes[index].sessions.remove(&session) {
                        self.hang_up(telling.conn);
                    }
                }
                Effect::Save(checkpoint) => self.order_save(index, checkpoint),
                Effect::Truncate(partition, before) => {
                    self.call_log(index, LogCall::Truncate(partition, before));
                }
                Effect::LoadParked {
                    partition,
                    page,
                    after,
                    until,
                    limit,
                } => self.load_parked(index, partition, page, (after, until, limit)),
            }
        }
        std::mem::swap(&mut self.nodes[index].effects, &mut effects);
        self.nodes[index].effects.append(&mut effects);
        self.nodes[index].watched = 0;
    }

    fn tell(&mut self, index: usize, session: SessionId, event: WorkerEvent) {
        if let Some(telling) = self.nodes[index].sessions.get_mut(&session) {
            telling.batch.push(event);
        }
    }

    fn tell_sessions(&mut self, index: usize) {
        let mut told = Vec::new();
        for telling in self.nodes[index].sessions.values_mut() {
            for event in telling.batch.drain(..) {
                told.push((telling.conn, event));
            }
        }
        for (conn, event) in told {
            self.send_to_worker(conn, wire::event(event));
        }
    }

    /// A worker has said hello on a connection: its session opens, and it is welcomed. `None` if the node takes no sessions.
    pub(crate) fn attach(&mut self, index: usize, conn: ConnId, hello: WorkerHello) -> Option<SessionId> {
        let node = &mut self.nodes[index];
        if node.is_stopping || node.assigned.is_empty() {
            return None;
        }
        let session = SessionId(node.next_session);
        node.next_session += 1;
        node.sessions.insert(
            session,
            Telling {
                conn,
                batch: Vec::new(),
            },
        );
        let heartbeat = PipelineNode::heartbeat_of(&node.policy);
        let life = node.life;
        self.mail(index, life, Mail::Open(session, hello));
        let heartbeat_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
        self.send_to_worker(conn, wire::welcome(heartbeat_ms));
        Some(session)
    }
}
