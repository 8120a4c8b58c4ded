//! A worker process: the SDK's session machine, driven as the SDK's driver does, and tasks that end as it was drawn for them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use scheduler_proto::worker::Lease;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_sdk::session::{Input, LeaseKey, Output, Session, SessionConfig};

use crate::clock::Clock;
use crate::coverage::Point;
use crate::net::ConnId;
use crate::world::{Happening, World};

/// How long a worker waits for a node that does not answer at all.
const CONNECT_TIMEOUT: u64 = 5_000;
/// How long the SDK waits for tasks to end, to be dropped and to be settled, before a drained worker ends all the same.
const DRAIN_TIMEOUT: u64 = 50_000;
const KEEP_ALIVE: u64 = 20_000;

/// What a task does to the worker that runs it: the first byte of its params.
pub(crate) mod kind {
    pub(crate) const QUICK: u8 = 0;
    pub(crate) const LONG: u8 = 1;
    pub(crate) const FLAKY: u8 = 2;
    pub(crate) const FAILING: u8 = 3;
    pub(crate) const REJECTING: u8 = 4;
    pub(crate) const POISON: u8 = 5;
    pub(crate) const HANGING: u8 = 6;
    pub(crate) const DEAF: u8 = 7;
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) life: u32,
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    clock: Clock,
    pub(crate) session: Session,
    pub(crate) conn: Option<ConnId>,
    inputs: VecDeque<Input>,
    failures: u32,
    welcome_since: Option<u64>,
    running: BTreeMap<LeaseKey, Running>,
    pub(crate) turn_at: Option<u64>,
    connect_at: Option<u64>,
    attempts: usize,
}

#[derive(Debug)]
struct Running {
    ends_at: Option<u64>,
    outcome: Outcome,
    heeds: bool,
}

impl Worker {
    pub(crate) fn down() -> Self {
        Self {
            life: 0,
            is_up: false,
            is_paused: false,
            clock: Clock::new(0, 0, 1_000_000),
            session: session_of([0; 16], 1, 1),
            conn: None,
            inputs: VecDeque::new(),
            failures: 0,
            welcome_since: None,
            running: BTreeMap::new(),
            turn_at: None,
            connect_at: None,
            attempts: 0,
        }
    }
}

fn session_of(worker_id: [u8; 16], concurrency: u32, max_unsettled: usize) -> Session {
    Session::new(SessionConfig {
        application: "sim".into(),
        pipeline: "sim".into(),
        worker_id,
        name: String::new(),
        concurrency,
        max_unsettled,
        max_unsettled_bytes: 1 << 20,
    })
}

impl World {
    pub(crate) fn start_worker(&mut self, index: usize) {
        let life = self.workers[index].life + 1;
        let id = self.rng.u128().to_be_bytes();
        let clock = self.draw_clock();
        self.workers[index] = Worker {
            life,
            is_up: true,
            clock,
            session: session_of(id, self.plan.concurrency, self.plan.max_unsettled),
            connect_at: Some(self.now),
            attempts: self.rng.index(self.plan.nodes),
            ..Worker::down()
        };
        self.trace.note(&[30, index as u64], || {
            format!("worker {index} starts, life {life}")
        });
        self.wake_worker(index, self.now);
    }

    pub(crate) fn crash_worker(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let (life, conn) = (worker.life, worker.conn);
        *worker = Worker {
            life: life + 1,
            ..Worker::down()
        };
        self.trace
            .note(&[31, index as u64], || format!("worker {index} is gone"));
        if let Some(conn) = conn {
            if self.rng.chance(700) {
                self.cut(conn);
            } else {
                self.silence(conn);
            }
        }
        let back = self.now + self.rng.range(100, 5_000);
        self.queue.push(back, Happening::StartWorker(index));
    }

    pub(crate) fn wake_worker(&mut self, index: usize, at: u64) {
        let worker = &mut self.workers[index];
        if worker.turn_at.is_none_or(|turn| at < turn) {
            worker.turn_at = Some(at);
            let life = worker.life;
            self.queue.push(at, Happening::WorkerTurn { worker: index, life });
        }
    }

    /// Something comes over a connection; `None`: it is gone.
    pub(crate) fn worker_hears(&mut self, index: usize, life: u32, conn: ConnId, told: Option<Told>) {
        let worker = &mut self.workers[index];
        if !worker.is_up || worker.life != life || worker.conn != Some(conn) {
            return;
        }
        worker
            .inputs
            .push_back(told.map_or(Input::Disconnected, Input::Received));
        if !worker.is_paused {
            self.wake_worker(index, self.now);
        }
    }

    pub(crate) fn worker_turn(&mut self, index: usize, life: u32) {
        let worker = &mut self.workers[index];
        if !worker.is_up || worker.is_paused || worker.life != life || worker.turn_at != Some(self.now) {
            return;
        }
        worker.turn_at = None;
        let mut out = Vec::new();
        if worker.conn.is_none() && worker.connect_at.is_some_and(|at| at <= self.now) {
            self.open_conn(index, &mut out);
        }
        self.end_tasks(index, &mut out);
        while let Some(input) = self.workers[index].inputs.pop_front() {
            if input == Input::Disconnected {
                if self.workers[index].conn.is_none() {
                    continue;
                }
                self.lose_conn(index);
            }
            let worker = &mut self.workers[index];
            worker.session.handle(input, &mut out);
            if worker.session.is_open() && worker.welcome_since.is_none() {
                worker.welcome_since = Some(self.now);
            }
        }
        let worker = &mut self.workers[index];
        let elapsed = worker.clock.elapsed(self.now);
        worker.session.flush(elapsed, &mut out);
        self.act(index, &mut out);
        self.arm_worker(index);
    }

    /// When the worker has something to do again.
    fn arm_worker(&mut self, index: usize) {
        let worker = &self.workers[index];
        if !worker.is_up {
            return;
        }
        let ends = worker.running.values().filter_map(|running| running.ends_at);
        let flush = worker
            .session
            .next_deadline()
            .map(|after| worker.clock.reaches_elapsed(after));
        let connect = worker.connect_at.filter(|_| worker.conn.is_none());
        let next = ends.chain(flush).chain(connect).min();
        if let Some(at) = next {
            self.wake_worker(index, at.max(self.now + 1));
        }
    }

    fn open_conn(&mut self, index: usize, out: &mut Vec<Output>) {
        self.workers[index].connect_at = None;
        let Some(node) = self.choose_node(index) else {
            return self.retry_conn(index, 0);
        };
        if !self.nodes[node].is_up {
            return self.retry_conn(index, 0);
        }
        let conn = self.connect(index, node);
        let life = self.workers[index].life;
        if self.nodes[node].is_paused {
            let at = self.now + CONNECT_TIMEOUT;
            let frame = crate::net::Frame::WorkerHears;
            self.queue.push(at, Happening::Frame(conn, frame));
        }
        self.trace.note(&[32, index as u64, node as u64], || {
            format!("worker {index} life {life} connects to node {node}")
        });
        let worker = &mut self.workers[index];
        worker.conn = Some(conn);
        worker.session.handle(Input::Connected, out);
    }

    /// Where a worker connects: its servers in turn; with several nodes something in front sends it where work is.
    fn choose_node(&mut self, index: usize) -> Option<usize> {
        let worker = &mut self.workers[index];
        worker.attempts += 1;
        let owning: Vec<usize> = self
            .placement
            .owning()
            .into_iter()
            .filter(|(node, life)| self.nodes[*node].is_up && self.nodes[*node].life == *life)
            .map(|(node, _)| node)
            .collect();
        if owning.is_empty() {
            return Some(worker.attempts % self.nodes.len());
        }
        if self.rng.chance(300) {
            return Some(*self.rng.pick(&owning));
        }
        let conns = &self.conns;
        let workers = &self.workers;
        let busy = |node: usize| {
            let open = workers.iter().filter_map(|worker| worker.conn);
            open.filter(|conn| conns[*conn].node == node).count()
        };
        owning.into_iter().min_by_key(|node| busy(*node))
    }

    /// The connection is gone: another is tried after a pause that grows.
    fn lose_conn(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if let Some(conn) = worker.conn.take() {
            self.leave_conn(conn);
        }
        let worker = &mut self.workers[index];
        let longest = self.plan.backoff.1;
        if worker
            .welcome_since
            .take()
            .is_some_and(|since| self.now - since > longest)
        {
            worker.failures = 0;
        }
        self.retry_conn(index, 0);
    }

    fn retry_conn(&mut self, index: usize, least: u64) {
        let (first, longest) = self.plan.backoff;
        let worker = &mut self.workers[index];
        let full = (first << worker.failures.min(20)).min(longest);
        worker.failures += 1;
        let pause = self.rng.range(full / 2, full).max(least);
        self.workers[index].connect_at = Some(self.now + pause);
    }

    fn act(&mut self, index: usize, out: &mut Vec<Output>) {
        for output in std::mem::take(out) {
            match output {
                Output::Send(said) => {
                    if let Some(conn) = self.workers[index].conn {
                        self.send_to_node(conn, said);
                    }
                }
                Output::Start(lease) => self.start_task(index, &lease),
                Output::Stop(key) => self.stop_task(index, key),
                Output::Define(_) => (),
                Output::Reconnect(_) => self.lose_conn(index),
                Output::Warn(what) => self.oracle.fail("protocol", format!("worker {index}: {what}")),
                Output::Drained => {
                    self.coverage.hit(Point::WorkerDrained);
                    if let Some(conn) = self.workers[index].conn.take() {
                        self.leave_conn(conn);
                    }
                    let life = self.workers[index].life;
                    self.workers[index] = Worker {
                        life,
                        ..Worker::down()
                    };
                    let back = self.now + self.rng.range(100, 5_000);
                    self.queue.push(back, Happening::StartWorker(index));
                }
            }
            if !self.workers[index].is_up {
                return;
            }
        }
    }

    fn start_task(&mut self, index: usize, lease: &Lease) {
        let Some(key) = lease.r#ref.map(LeaseKey::from) else {
            return;
        };
        self.workers[index].failures = 0;
        let what = lease.params.first().copied().unwrap_or(kind::QUICK);
        self.trace.note(
            &[
                33,
                index as u64,
                key.partition.into(),
                key.offset,
                key.epoch.into(),
                key.attempt.into(),
            ],
            || format!("worker {index} starts {key:?}, kind {what}"),
        );
        self.oracle_started(index, key);
        let quick = self.rng.range(0, 200);
        let long = self.rng.range(0, self.plan.tasks.longest);
        let succeeded = Outcome::Succeeded(Bytes::from_static(b"1"));
        let failed = Outcome::Failed("as drawn".into());
        let (takes, outcome, heeds) = match what {
            kind::POISON => {
                self.coverage.hit(Point::Poisoned);
                return self.crash_worker(index);
            }
            kind::LONG => (Some(long), succeeded, true),
            kind::FLAKY => (
                Some(quick),
                if self.rng.chance(500) { succeeded } else { failed },
                true,
            ),
            kind::FAILING => (Some(quick), failed, true),
            kind::REJECTING => (Some(quick), Outcome::Rejected("as drawn".into()), true),
            kind::HANGING => (None, failed, true),
            kind::DEAF => (Some(long), succeeded, false),
            _ => (Some(quick), succeeded, true),
        };
        let ends_at = takes.map(|takes| self.now + takes);
        let running = Running {
            ends_at,
            outcome,
            heeds,
        };
        self.workers[index].running.insert(key, running);
    }

    fn stop_task(&mut self, index: usize, key: LeaseKey) {
        self.coverage.hit(Point::Stopped);
        let soon = self.now + self.rng.range(0, 500);
        let finishes = self.rng.chance(100);
        if let Some(running) = self.workers[index].running.get_mut(&key)
            && running.heeds
        {
            running.ends_at = Some(running.ends_at.map_or(soon, |at| at.min(soon)));
            if !finishes {
                running.outcome = Outcome::Failed("stopped".into());
            }
        }
    }

    fn end_tasks(&mut self, index: usize, out: &mut Vec<Output>) {
        let now = self.now;
        let is_over = |_: &LeaseKey, running: &mut Running| running.ends_at.is_some_and(|at| at <= now);
        let ended: Vec<_> = self.workers[index].running.extract_if(.., is_over).collect();
        for (lease, Running { outcome, .. }) in ended {
            self.trace.note(
                &[
                    34,
                    index as u64,
                    lease.partition.into(),
                    lease.offset,
                    lease.attempt.into(),
                ],
                || format!("worker {index} ended {lease:?}: {outcome:?}"),
            );
            self.oracle_ended(index, lease, &outcome);
            self.workers[index]
                .session
                .handle(Input::Ended { lease, outcome }, out);
        }
    }

    pub(crate) fn drain_worker(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if worker.is_up && !worker.is_paused {
            worker.inputs.push_back(Input::Drain);
            self.coverage.hit(Point::WorkerDrain);
            let life = worker.life;
            let over = self.now + DRAIN_TIMEOUT;
            self.queue
                .push(over, Happening::EndWorker { worker: index, life });
            self.wake_worker(index, self.now);
        }
    }

    /// A paused node answers nobody: those who wait for it give up by and by.
    pub(crate) fn node_is_silent(&mut self, node: usize) {
        let resumes = self.nodes[node].resumes_at;
        let conns: Vec<ConnId> = self.open_conns();
        for conn in conns {
            if self.conns[conn].node == node && resumes > self.now + KEEP_ALIVE {
                self.silence(conn);
            }
        }
    }
}
