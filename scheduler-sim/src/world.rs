//! The world: everything there is in one history, and the loop that lets it happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler_core::id::Partition;
use scheduler_core::policy::PipelinePolicy;
use scheduler_sdk::session::Located;

use crate::calls::{LogCall, StoreCall};
use crate::client::Submission;
use crate::clock::Clock;
use crate::coverage::{Coverage, Point};
use crate::fault::Fault;
use crate::log::Log;
use crate::net::{Conn, ConnId, Frame};
use crate::node::{Mail, Node, PollCall};
use crate::oracle::Oracle;
use crate::placement::{Placement, Step as PlacementStep};
use crate::plan::Plan;
use crate::poller::{PollAnswer, Poller};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::shrink::Changes;
use crate::store::Store;
use crate::trace::Trace;
use crate::worker::Worker;

/// What clocks say when a history begins, in milliseconds.
pub(crate) const BEGINNING: u64 = 1_000_000_000;
/// More steps than any history needs that goes on as it should.
const MOST_STEPS: u64 = 20_000_000;
/// How often it is looked whether all has ended.
const CHECK_EVERY: u64 = 500;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    NodeTurn {
        node: usize,
        life: u32,
    },
    Mail {
        node: usize,
        life: u32,
        mail: Mail,
    },
    StartNode(usize),
    ResumeNode {
        node: usize,
        life: u32,
    },
    WorkerTurn {
        worker: usize,
        life: u32,
    },
    StartWorker(usize),
    ResumeWorker {
        worker: usize,
        life: u32,
    },
    EndWorker {
        worker: usize,
        life: u32,
    },
    PollerTurn {
        poller: usize,
        life: u32,
    },
    StartPoller(usize),
    Polled(PollCall, PollAnswer),
    Frame(ConnId, Frame),
    StoreCall(StoreCall),
    LogCall {
        node: usize,
        life: u32,
        call: LogCall,
    },
    /// A worker asks a node who owns what.
    Ask {
        worker: usize,
        life: u32,
        node: usize,
    },
    Located {
        worker: usize,
        life: u32,
        located: Located,
    },
    Compose,
    Append(Submission),
    Placement(PlacementStep),
    Fault(Fault),
    Heal,
    Check,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    /// Milliseconds since the beginning.
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) queue: Queue<Happening>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) pollers: Vec<Poller>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) placement: Placement,
    /// How many the pipeline has by now.
    pub(crate) partitions: u32,
    pub(crate) log: Log,
    pub(crate) log_waiters: BTreeMap<Partition, Vec<(usize, u32, LogCall)>>,
    pub(crate) log_away_until: u64,
    pub(crate) store: Store,
    pub(crate) store_away_until: u64,
    pub(crate) store_slow_until: u64,
    /// Of which shards nothing can be saved, and until when.
    pub(crate) store_damaged_until: BTreeMap<Partition, u64>,
    pub(crate) policy: Arc<PipelinePolicy>,
    pub(crate) pipeline_is_paused: bool,
    pub(crate) submissions_open: u64,
    pub(crate) is_healed: bool,
    is_over: bool,
    steps: u64,
    pub(crate) oracle: Oracle,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
}

impl World {
    /// The conditions of a seed's history, with some of them changed.
    pub(crate) fn plan_of(seed: u64, changes: &Changes) -> Plan {
        Self::begin(seed, changes).1
    }

    fn begin(seed: u64, changes: &Changes) -> (Rng, Plan) {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng);
        plan.draw_later(&mut Rng::new(!seed));
        let patience = plan.end_by - plan.heal_at;
        changes.apply(&mut plan);
        plan.end_by = plan.heal_at + patience;
        plan.conclude();
        (rng, plan)
    }

    pub(crate) fn new(seed: u64, changes: &Changes, with_trace: bool) -> Self {
        let (rng, plan) = Self::begin(seed, changes);
        let policy = plan.policy.clone();
        let mut trace = Trace::new(with_trace);
        trace.note(&[seed], || format!("seed {seed}: {plan:#?}"));
        Self {
            now: 0,
            rng,
            queue: Queue::new(),
            nodes: (0..plan.all_nodes())
                .map(|_| Node::down(policy.clone()))
                .collect(),
            workers: (0..plan.workers).map(|_| Worker::down()).collect(),
            pollers: (0..plan.pollers).map(|_| Poller::down()).collect(),
            conns: Vec::new(),
            placement: Placement::default(),
            partitions: plan.partitions,
            log: Log::default(),
            log_waiters: BTreeMap::new(),
            log_away_until: 0,
            store: Store::default(),
            store_away_until: 0,
            store_slow_until: 0,
            store_damaged_until: BTreeMap::new(),
            pipeline_is_paused: false,
            submissions_open: 0,
            is_healed: false,
            is_over: false,
            steps: 0,
            oracle: Oracle::new(&plan),
            coverage: Coverage::default(),
            trace,
            policy,
            plan,
        }
    }

    /// Lets everything happen until all has ended, or something is wrong.
    pub(crate) fn run(&mut self) {
        for node in 0..self.nodes.len() {
            self.start_node(node);
        }
        for worker in 0..self.workers.len() {
            self.start_worker(worker);
        }
        for poller in 0..self.pollers.len() {
            self.start_poller(poller);
        }
        self.arrange_submissions();
        self.arrange_faults();
        self.queue.push(self.plan.heal_at, Happening::Heal);
        while let Some((at, happening)) = self.queue.pop() {
            self.steps += 1;
            self.now = at;
            self.trace.at(at);
            self.happen(happening);
            if self.steps > MOST_STEPS {
                self.oracle
                    .fail("rest", format!("{MOST_STEPS} steps were not enough"));
            }
            if self.is_over || self.oracle.has_failed() {
                return;
            }
        }
        self.oracle.fail("liveness", "nothing happens any more".into());
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::NodeTurn { node, life } => self.node_turn(node, life),
            Happening::Mail { node, life, mail } => self.mail(node, life, mail),
            Happening::WorkerTurn { worker, life } => self.worker_turn(worker, life),
            Happening::Frame(conn, frame) => self.frame(conn, frame),
            Happening::StoreCall(call) => self.store_call(call),
            Happening::LogCall { node, life, call } => self.log_call(node, life, call),
            Happening::Ask { worker, life, node } => self.asked(worker, life, node),
            Happening::Located {
                worker,
                life,
                located,
            } => self.answered(worker, life, located),
            Happening::Compose => self.compose(),
            Happening::Append(submission) => self.append(submission),
            Happening::Placement(step) => self.placement_step(step),
            Happening::StartNode(node) => {
                if !self.nodes[node].is_up {
                    self.start_node(node);
                }
            }
            Happening::ResumeNode { node, life } => self.resume_node(node, life),
            Happening::StartWorker(worker) => {
                if !self.workers[worker].is_up {
                    self.start_worker(worker);
                }
            }
            Happening::ResumeWorker { worker, life } => self.resume_worker(worker, life),
            Happening::EndWorker { worker, life } => {
                if self.workers[worker].is_up && self.workers[worker].life == life {
                    self.crash_worker(worker);
                }
            }
            Happening::PollerTurn { poller, life } => self.poller_turn(poller, life),
            Happening::StartPoller(poller) => self.start_poller(poller),
            Happening::Polled(call, answer) => self.polled(call, answer),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal => self.heal(),
            Happening::Check => self.check_end(),
        }
    }

    fn check_end(&mut self) {
        if self.submissions_open == 0 && self.all_has_ended() {
            self.check_accounts();
            self.is_over = true;
            return;
        }
        if self.now > self.plan.end_by {
            let why = self.why_not_ended();
            return self.oracle.fail("liveness", why);
        }
        // Somebody looks after shards that were left alone: they pause and resume the pipeline.
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            self.mail(node, life, Mail::TryAgain);
        }
        // Where workers do not know of owners, something in front of several nodes does not keep a connection for ever.
        if self.plan.fleet == 0 && self.nodes.len() > 1 && self.rng.chance(50) {
            let conns = self.open_conns();
            if !conns.is_empty() {
                let conn = *self.rng.pick(&conns);
                self.cut(conn);
            }
        }
        self.queue.push(self.now + CHECK_EVERY, Happening::Check);
    }

    pub(crate) fn draw_clock(&mut self) -> Clock {
        let mut ahead = BEGINNING + self.rng.range(0, self.plan.clock_skew);
        if self.now > 0 && self.plan.earlier > 0 && !self.is_healed && self.rng.chance(300) {
            self.coverage.hit(Point::EarlierClock);
            ahead -= self.rng.range(1, self.plan.earlier);
        }
        let drift = self.plan.clock_drift;
        let pace = 1_000_000 - drift + self.rng.range(0, 2 * drift);
        Clock::new(self.now, ahead, pace)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }
}
