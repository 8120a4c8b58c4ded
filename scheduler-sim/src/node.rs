//! A scheduler process: the driver of the core's machines, as thin as scheduler-runtime's actor and of the same shape.
//!
//! One turn takes what mail has come, lets the host dispatch, and does what it says. Mail carries what the runtime's messages carry, so
//! that what goes wrong with them there goes wrong here.

mod host;
mod panic;
mod poll;
mod save;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::host::{Effects, Host, HostConfig, Stay};
use scheduler_core::id::{NodeId, Offset, Partition, PipelineId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::{Effect, Event, PipelineNode};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{HeldLease, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_core::port::log::{Bounds, ReadLimit};
use scheduler_core::saver::Saver;
use scheduler_core::session::SessionId;
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;

use self::host::{Seen, Waiter};
pub(crate) use self::poll::PollCall;
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
    /// The time has come for which a stay of a shard wanted to be told.
    Due(Stay),
    /// The store's answer; `None` if it has failed.
    Stored(StoreCall, Option<StoreAnswer>),
    /// A call that failed is to be made again.
    Again(StoreCall),
    Measured(Stay, Option<Bounds>),
    Measure(Stay),
    Records(Stay, Result<Vec<Record>, ReadError>),
    /// The log was left alone for long enough.
    Read(Stay, Offset, ReadLimit),
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
    /// The pause after a panic is over.
    ComeUp,
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
    /// Whether it has begun to let go of everything.
    drained: bool,
    /// Whether it has panicked, and does nothing for a while.
    lies_low: bool,
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) host: Host<Waiter, ()>,
    /// What the oracle has to know of the shards' last stays.
    pub(crate) seen: BTreeMap<Partition, Seen>,
    /// For whom the log is read.
    reading: BTreeSet<Stay>,
    /// One past the last record of shards that have just left.
    pub(crate) left: BTreeMap<Partition, Offset>,
    sessions: BTreeMap<SessionId, Telling>,
    /// Who waits for tasks without a session.
    pub(crate) polls: BTreeMap<SessionId, PollCall>,
    next_session: u64,
    mail: VecDeque<Mail>,
    pub(crate) turn_at: Option<u64>,
    restless: u32,
    pub(crate) effects: Effects<Waiter, ()>,
    /// How many of the pipeline's effects the oracle has seen.
    pub(crate) watched: usize,
    saver: Saver<Stay>,
    pub(crate) policy: Arc<PipelinePolicy>,
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
            drained: false,
            lies_low: false,
            id: NodeId(0),
            clock: Clock::new(0, 0, 1_000_000),
            host: host(NodeId(0), Duration::ZERO, policy.clone(), false),
            seen: BTreeMap::new(),
            reading: BTreeSet::new(),
            left: BTreeMap::new(),
            sessions: BTreeMap::new(),
            polls: BTreeMap::new(),
            next_session: 0,
            mail: VecDeque::new(),
            turn_at: None,
            restless: 0,
            effects: Effects::default(),
            watched: 0,
            saver: Saver::default(),
            policy,
            placement_mail_at: 0,
            routes: Routes::default(),
        }
    }
}

fn host(node: NodeId, grace: Duration, policy: Arc<PipelinePolicy>, paused: bool) -> Host<Waiter, ()> {
    let config = HostConfig {
        pipeline: PipelineId(1),
        node,
        grace,
    };
    Host::new(config, policy, paused)
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
            host: host(id, self.plan.grace(), policy.clone(), self.pipeline_is_paused),
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
            match self.nodes[index].mail.pop_front() {
                Some(mail) if self.nodes[index].lies_low => self.take_low(index, now, mail),
                Some(mail) => self.take(index, now, mail),
                None => (),
            }
            // What the oracle is to see, it sees mail by mail.
            self.watch_effects(index, now);
        }
        self.event(index, now, Event::Tick);
        let node = &mut self.nodes[index];
        node.host.dispatch(now, &mut node.effects);
        self.watch_effects(index, now);
        while !self.nodes[index].effects.pipeline.is_empty() {
            self.carry_out(index);
            self.watch_effects(index, now);
        }
        self.tell_sessions(index);
        self.with_host(index, now, Host::read_on);
        self.end_drain(index);
        self.check_memory(index);

        let node = &mut self.nodes[index];
        if !node.is_up {
            return;
        }
        if !node.mail.is_empty() {
            self.wake_node(index, self.now);
        } else if let Some(due) = node.host.next_deadline() {
            // As the runtime's timer, never at once.
            let at = node.clock.reaches(due).max(self.now + 1);
            self.wake_node(index, at);
        }
    }

    fn take(&mut self, index: usize, now: Timestamp, mail: Mail) {
        match mail {
            Mail::Records(stay, records) => self.records(index, now, stay, records),
            Mail::Read(stay, from, limit) => {
                if self.nodes[index].reading.contains(&stay) {
                    self.call_log(index, LogCall::Read { stay, from, limit });
                }
            }
            Mail::Commands(session, commands) => {
                self.trace
                    .note(&[6, index as u64, session.0, commands.len() as u64], || {
                        format!("node {index} hears from {session:?}: {commands:?}")
                    });
                self.oracle_commands(index, now, session, &commands);
                self.event(index, now, Event::Commands(session, commands));
            }
            Mail::Open(session, hello) => self.open(index, now, session, hello),
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
            Mail::Measured(stay, bounds) => self.bounds_read(index, stay, bounds),
            Mail::Measure(stay) => {
                if self.nodes[index].host.is_here(stay) {
                    self.call_log(index, LogCall::Bounds(stay));
                }
            }
            // A process that has let go of everything is about to end.
            Mail::Assign(_) if self.nodes[index].drained => (),
            Mail::Assign(partitions) => self.with_host(index, now, |host, effects| {
                host.assign(now, &partitions, effects);
            }),
            Mail::Due(stay) => self.due(index, now, stay),
            Mail::Revoke(partitions) => self.take_away(index, now, &partitions, |host, effects| {
                host.revoke(now, &partitions, &(), effects);
            }),
            Mail::Lose(partitions) => self.take_away(index, now, &partitions, |host, effects| {
                host.lose(now, &partitions, effects);
            }),
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
                self.with_host(index, now, |host, effects| host.set_policy(now, policy, effects));
            }
            Mail::Pause(paused) => {
                self.with_host(index, now, |host, effects| host.pause(now, paused, effects));
            }
            Mail::TryAgain => self.with_host(index, now, |host, effects| host.try_again(now, effects)),
            Mail::Drain => self.begin_drain(index, now),
            Mail::DrainIsOver => self.drain_is_over(index, now),
            Mail::ComeUp => (),
        }
    }

    fn open(&mut self, index: usize, now: Timestamp, session: SessionId, hello: WorkerHello) {
        self.trace.note(&[7, index as u64, session.0], || {
            format!("node {index} opens {session:?}: {hello:?}")
        });
        if !self.nodes[index].host.pipeline().is_overtaken(&hello) {
            self.oracle_hello(index, now, session, &hello);
        }
        let is_open = self.with_host(index, now, |host, effects| {
            host.open(now, session, hello, effects)
        });
        if !is_open {
            self.oracle.session_over(index, session);
            if let Some(telling) = self.nodes[index].sessions.remove(&session) {
                self.hang_up(telling.conn);
            }
        }
    }

    /// No more leases: running tasks may end, then shards are let go.
    fn begin_drain(&mut self, index: usize, now: Timestamp) {
        self.with_host(index, now, |host, effects| host.drain(now, effects));
        let life = self.nodes[index].life;
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
        if !node.host.is_draining() || std::mem::replace(&mut node.drained, true) {
            return;
        }
        let all: Vec<Partition> = node.host.hosted().collect();
        self.with_host(index, now, |host, effects| host.revoke(now, &all, &(), effects));
    }

    fn end_drain(&mut self, index: usize) {
        let node = &self.nodes[index];
        if !node.drained {
            if node.host.is_drained() {
                let now = node.clock.now(self.now);
                self.drain_is_over(index, now);
            }
            return;
        }
        if node.host.hosted().next().is_none() && node.saver.is_idle() {
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
        node.host.event(now, event, &mut node.effects);
    }

    /// Does what the machine wants done.
    fn carry_out(&mut self, index: usize) {
        let mut effects = std::mem::take(&mut self.nodes[index].effects.pipeline);
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
        std::mem::swap(&mut self.nodes[index].effects.pipeline, &mut effects);
        self.nodes[index].effects.pipeline.append(&mut effects);
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
        if node.host.is_draining() || !node.host.has_assigned() {
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
