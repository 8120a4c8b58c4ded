//! A worker process: the SDK's machine, driven as the SDK's driver does, and tasks that end as it was drawn for them.

mod lines;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use scheduler_proto::worker::Lease;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_sdk::session::{Fleet, Input, LeaseKey, Located, Output, SessionConfig, Site};

use self::lines::{Line, Lines};
pub(crate) use self::lines::{Question, Routes};

use crate::clock::Clock;
use crate::coverage::Point;
use crate::net::ConnId;
use crate::world::{Happening, World};

/// How long the SDK waits for tasks to end, to be dropped and to be settled, before a drained worker ends all the same.
const DRAIN_TIMEOUT: u64 = 50_000;

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
    pub(crate) fleet: Fleet,
    lines: Lines,
    question: Question,
    inputs: VecDeque<Heard>,
    running: BTreeMap<LeaseKey, Running>,
    pub(crate) turn_at: Option<u64>,
    attempts: usize,
}

/// What waits for a worker's next turn.
#[derive(Debug)]
enum Heard {
    /// Over a connection.
    Over(ConnId, Input),
    Located(Located),
    Drain,
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
            fleet: fleet_of([0; 16], 1, 1),
            lines: BTreeMap::new(),
            question: Question::default(),
            inputs: VecDeque::new(),
            running: BTreeMap::new(),
            turn_at: None,
            attempts: 0,
        }
    }

    /// How many tasks it runs.
    pub(crate) fn runs(&self) -> usize {
        self.running.len()
    }

    /// Its connections, by where they lead.
    pub(crate) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.lines.values().filter_map(|line| line.conn)
    }
}

fn fleet_of(worker_id: [u8; 16], concurrency: u32, max_unsettled: usize) -> Fleet {
    Fleet::new(SessionConfig {
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
            fleet: fleet_of(id, self.plan.concurrency, self.plan.max_unsettled),
            attempts: self.rng.index(self.plan.all_nodes()),
            ..Worker::down()
        };
        self.trace.note(&[30, index as u64], || {
            format!("worker {index} starts, life {life}")
        });
        if self.plan.fleet == 0 {
            // It has one session, wherever that leads.
            let unknown = Heard::Located(Located::Unknown);
            self.workers[index].inputs.push_back(unknown);
        }
        self.wake_worker(index, self.now);
    }

    pub(crate) fn crash_worker(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let (life, conns) = (worker.life, worker.conns().collect::<Vec<_>>());
        *worker = Worker {
            life: life + 1,
            ..Worker::down()
        };
        self.trace
            .note(&[31, index as u64], || format!("worker {index} is gone"));
        for conn in conns {
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
        if !worker.is_up || worker.life != life || worker.conns().all(|open| open != conn) {
            return;
        }
        if self.plan.stubborn > 0 && matches!(told, Some(Told::Moved(_))) {
            return;
        }
        let input = told.map_or(Input::Disconnected, Input::Received);
        worker.inputs.push_back(Heard::Over(conn, input));
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
        // Without a question there is an answer before anything else.
        while let Some(Heard::Located(_)) = self.workers[index].inputs.front() {
            self.hear(index, &mut out);
        }
        self.follow(index);
        self.open_conns_due(index, &mut out);
        self.end_tasks(index, &mut out);
        while !self.workers[index].inputs.is_empty() {
            self.hear(index, &mut out);
        }
        self.ask_for_owners(index);
        let worker = &mut self.workers[index];
        let elapsed = worker.clock.elapsed(self.now);
        worker.fleet.flush(elapsed, &mut out);
        self.act(index, &mut out);
        self.follow(index);
        self.arm_worker(index);
    }

    /// Takes the next of what waits.
    fn hear(&mut self, index: usize, out: &mut Vec<(Site, Output)>) {
        match self.workers[index].inputs.pop_front() {
            Some(Heard::Over(conn, input)) => self.hear_over(index, conn, input, out),
            Some(Heard::Located(located)) => self.located(index, located, out),
            Some(Heard::Drain) => self.workers[index].fleet.drain(out),
            None => (),
        }
    }

    /// When the worker has something to do again.
    fn arm_worker(&mut self, index: usize) {
        let worker = &self.workers[index];
        if !worker.is_up {
            return;
        }
        let ends = worker.running.values().filter_map(|running| running.ends_at);
        let flush = worker
            .fleet
            .next_deadline()
            .map(|after| worker.clock.reaches_elapsed(after));
        let connect = worker.lines.values().filter_map(Line::due);
        let next = ends.chain(flush).chain(connect).chain(worker.asks_at()).min();
        if let Some(at) = next {
            self.wake_worker(index, at.max(self.now + 1));
        }
    }

    fn act(&mut self, index: usize, out: &mut Vec<(Site, Output)>) {
        for (site, output) in std::mem::take(out) {
            match output {
                Output::Send(said) => {
                    let line = self.workers[index].lines.get(&site);
                    if let Some(conn) = line.and_then(|line| line.conn) {
                        self.send_to_node(conn, said);
                    }
                }
                Output::Start(leases) => {
                    if let Some(line) = self.workers[index].lines.get_mut(&site) {
                        line.failures = 0;
                    }
                    for lease in leases {
                        if self.workers[index].is_up {
                            self.start_task(index, &lease);
                        }
                    }
                }
                Output::Stop(key) => self.stop_task(index, key),
                Output::Define(_) => (),
                Output::Reconnect(_) => self.lose_conn(index, &site),
                Output::Warn(what) => self.oracle.fail("protocol", format!("worker {index}: {what}")),
                Output::Drained => {
                    self.coverage.hit(Point::WorkerDrained);
                    for conn in self.workers[index].conns().collect::<Vec<_>>() {
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
        let long = self.rng.range(0, self.plan.tasks.longest());
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
        self.oracle_stopped(index, key);
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

    fn end_tasks(&mut self, index: usize, out: &mut Vec<(Site, Output)>) {
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
                .fleet
                .ended(Input::Ended { lease, outcome }, out);
        }
    }

    pub(crate) fn drain_worker(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if worker.is_up && !worker.is_paused {
            worker.inputs.push_back(Heard::Drain);
            self.coverage.hit(Point::WorkerDrain);
            let life = worker.life;
            let over = self.now + DRAIN_TIMEOUT;
            self.queue
                .push(over, Happening::EndWorker { worker: index, life });
            self.wake_worker(index, self.now);
        }
    }
}
