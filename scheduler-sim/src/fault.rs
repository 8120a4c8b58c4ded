//! What goes wrong, and when.

use std::sync::Arc;

use scheduler_core::id::{Offset, Partition};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::log::Bounds;

use crate::coverage::Point;
use crate::node::{Change, Mail};
use crate::placement::Step as PlacementStep;
use crate::plan;
use crate::world::{Happening, World};

/// A kind of fault, or of something that people do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    NodeCrash,
    NodePause,
    Rolling,
    WorkerCrash,
    WorkerPause,
    WorkerDrain,
    Cut,
    Silence,
    Rebalance,
    StoreOutage,
    StoreSlowness,
    LogOutage,
    Leap,
    Cancel,
    Hasten,
    Redrive,
    Policy,
    PipelinePause,
    Growth,
    Loss,
    Panic,
    Damage,
}

/// More partitions than so many the pipeline does not get.
const MOST_PARTITIONS: u32 = 6;

impl Fault {
    const ALL: [Self; 22] = [
        Self::NodeCrash,
        Self::NodePause,
        Self::Rolling,
        Self::WorkerCrash,
        Self::WorkerPause,
        Self::WorkerDrain,
        Self::Cut,
        Self::Silence,
        Self::Rebalance,
        Self::StoreOutage,
        Self::StoreSlowness,
        Self::Leap,
        Self::LogOutage,
        Self::Cancel,
        Self::Hasten,
        Self::Redrive,
        Self::Policy,
        Self::PipelinePause,
        Self::Growth,
        Self::Loss,
        Self::Panic,
        Self::Damage,
    ];
}

impl World {
    pub(crate) fn arrange_faults(&mut self) {
        for fault in Fault::ALL {
            self.arrange(fault);
        }
    }

    /// Arranges for the next fault of a kind.
    fn arrange(&mut self, fault: Fault) {
        let every = &self.plan.every;
        let mean = match fault {
            Fault::NodeCrash => every.node_crash,
            Fault::NodePause => every.node_pause,
            Fault::Rolling => every.rolling,
            Fault::WorkerCrash => every.worker_crash,
            Fault::WorkerPause => every.worker_pause,
            Fault::WorkerDrain => every.worker_drain,
            Fault::Cut => every.cut,
            Fault::Silence => every.partition,
            // Of the two at most one is drawn.
            Fault::Rebalance => every.rebalance.max(every.moves),
            Fault::StoreOutage => every.store_outage,
            Fault::LogOutage => every.log_outage,
            Fault::StoreSlowness => every.store_slowness,
            Fault::Leap => every.leap,
            Fault::Cancel => every.cancel,
            Fault::Hasten => every.hasten,
            Fault::Redrive => every.redrive,
            Fault::Policy => every.policy,
            Fault::PipelinePause => every.pipeline_pause,
            Fault::Growth => every.growth,
            Fault::Loss => every.loss,
            Fault::Panic => every.panic,
            Fault::Damage => every.damage,
        };
        if mean > 0 {
            let at = self.now + self.rng.range(1, mean * 2);
            if at < self.plan.heal_at {
                self.queue.push(at, Happening::Fault(fault));
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of fault")]
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.arrange(fault);
        match fault {
            Fault::NodeCrash => {
                if let Some(index) = self.some_node() {
                    self.coverage.hit(Point::NodeCrash);
                    self.crash_node(index);
                    let longest = if self.plan.strict { 3_000 } else { 15_000 };
                    let back = self.now + self.rng.skewed(10, longest);
                    self.queue.push(back, Happening::StartNode(index));
                }
            }
            Fault::NodePause => {
                if let Some(index) = self.some_node() {
                    self.coverage.hit(Point::NodePause);
                    let node = &mut self.nodes[index];
                    let life = node.life;
                    node.is_paused = true;
                    node.resumes_at = self.now + self.rng.skewed(10, 40_000);
                    self.trace
                        .note(&[3, index as u64], || format!("node {index} is paused"));
                    self.queue
                        .push(node.resumes_at, Happening::ResumeNode { node: index, life });
                    let noticed = self.now + self.plan.session_timeout;
                    let step = PlacementStep::Leave((index, life));
                    self.queue.push(noticed, Happening::Placement(step));
                    self.node_is_silent(index);
                }
            }
            Fault::Rolling => {
                if let Some(index) = self.some_node() {
                    let life = self.nodes[index].life;
                    self.mail(index, life, Mail::Drain);
                }
            }
            Fault::WorkerCrash => {
                if let Some(index) = self.some_worker() {
                    self.coverage.hit(Point::WorkerCrash);
                    self.crash_worker(index);
                }
            }
            Fault::WorkerPause => {
                if let Some(index) = self.some_worker() {
                    self.coverage.hit(Point::WorkerPause);
                    let worker = &mut self.workers[index];
                    worker.is_paused = true;
                    let life = worker.life;
                    let resumes = self.now + self.rng.skewed(10, 40_000);
                    self.queue
                        .push(resumes, Happening::ResumeWorker { worker: index, life });
                }
            }
            Fault::WorkerDrain => {
                if let Some(index) = self.some_worker() {
                    self.drain_worker(index);
                }
            }
            Fault::Cut | Fault::Silence => {
                let conns = self.open_conns();
                if !conns.is_empty() {
                    let conn = *self.rng.pick(&conns);
                    if fault == Fault::Cut {
                        self.cut(conn);
                    } else {
                        self.silence(conn);
                    }
                }
            }
            Fault::Rebalance => self.placement_step(PlacementStep::Rebalance),
            Fault::StoreOutage => {
                self.coverage.hit(Point::StoreOutage);
                self.store_away_until = self.now + self.rng.skewed(100, 20_000);
            }
            Fault::StoreSlowness => {
                self.coverage.hit(Point::StoreSlowness);
                self.store_slow_until = self.now + self.rng.skewed(500, 20_000);
            }
            Fault::Leap => {
                if let Some(index) = self.some_node() {
                    self.coverage.hit(Point::ClockLeap);
                    let ahead = self.rng.skewed(10, 60_000);
                    self.nodes[index].clock.leap(ahead);
                    self.trace.note(&[9, index as u64, ahead], || {
                        format!("the clock of node {index} goes ahead by {ahead} ms")
                    });
                    self.wake_node(index, self.now);
                }
            }
            Fault::LogOutage => {
                self.coverage.hit(Point::LogOutage);
                self.log_away_until = self.now + self.rng.skewed(100, 20_000);
            }
            Fault::Cancel => self.change_something(Change::Cancel),
            Fault::Hasten => self.change_something(Change::Hasten),
            Fault::Redrive => self.change_something(Change::Redrive),
            Fault::Policy => {
                self.coverage.hit(Point::PolicyChanged);
                // Timeouts stay: the oracle has to know when a lease is over.
                let drawn = plan::policy(&mut self.rng, false);
                let timeouts = self.policy.timeouts.clone();
                self.policy = Arc::new(PipelinePolicy { timeouts, ..drawn });
                self.oracle.policy_changed(&self.policy);
                self.tell_nodes(|world| Mail::Policy(world.policy.clone()));
            }
            Fault::PipelinePause => {
                self.coverage.hit(Point::PipelinePaused);
                self.pipeline_is_paused = !self.pipeline_is_paused;
                self.tell_nodes(|world| Mail::Pause(world.pipeline_is_paused));
            }
            Fault::Growth => {
                if self.partitions < MOST_PARTITIONS {
                    self.coverage.hit(Point::Grown);
                    self.partitions += 1;
                    self.trace.note(&[12, self.partitions.into()], || {
                        format!("the pipeline has {} partitions now", self.partitions)
                    });
                    self.placement_step(PlacementStep::Look);
                }
            }
            Fault::Loss => self.lose_records(),
            Fault::Panic => {
                if let Some(index) = self.some_node() {
                    self.coverage.hit(Point::Panicked);
                    self.panic_node(index);
                }
            }
            Fault::Damage => {
                let partition = self.some_partition();
                self.store_damaged_until
                    .insert(partition, self.now + self.rng.skewed(500, 20_000));
            }
        }
    }

    /// The log drops records that somebody still needs, as one does whose retention is too short.
    fn lose_records(&mut self) {
        let partition = self.some_partition();
        let Bounds { start, end } = self.log.bounds(partition);
        if start == end {
            return;
        }
        let before = Offset(self.rng.range(start.0 + 1, end.0));
        self.trace.note(&[13, partition.0.into(), before.0], || {
            format!("the log of {partition:?} loses what is before {before:?}")
        });
        self.coverage.hit(Point::LogLost);
        self.log.truncate(partition, before);
        self.oracle.records_are_lost(partition, before);
    }

    fn tell_nodes(&mut self, mail: impl Fn(&Self) -> Mail) {
        for index in 0..self.nodes.len() {
            let life = self.nodes[index].life;
            let mail = mail(self);
            self.mail(index, life, mail);
        }
    }

    fn some_partition(&mut self) -> Partition {
        Partition(u32::try_from(self.rng.index(self.partitions as usize)).unwrap_or(0))
    }

    fn some_node(&mut self) -> Option<usize> {
        let index = self.rng.index(self.nodes.len());
        let node = &self.nodes[index];
        (node.is_up && !node.is_paused).then_some(index)
    }

    fn some_worker(&mut self) -> Option<usize> {
        let index = self.rng.index(self.workers.len());
        let worker = &self.workers[index];
        (worker.is_up && !worker.is_paused).then_some(index)
    }

    pub(crate) fn resume_node(&mut self, index: usize, life: u32) {
        let node = &mut self.nodes[index];
        if node.is_paused && node.life == life {
            node.is_paused = false;
            node.turn_at = None;
            self.trace
                .note(&[4, index as u64], || format!("node {index} goes on"));
            self.wake_node(index, self.now);
        }
    }

    pub(crate) fn resume_worker(&mut self, index: usize, life: u32) {
        let worker = &mut self.workers[index];
        if worker.is_paused && worker.life == life {
            worker.is_paused = false;
            worker.turn_at = None;
            self.wake_worker(index, self.now);
        }
    }

    /// Faults stop: what is away comes back, and connections begin anew.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        self.trace.note(&[5], || "all is well from now on".into());
        self.store_away_until = 0;
        self.store_slow_until = 0;
        self.store_damaged_until.clear();
        self.log_away_until = 0;
        if std::mem::take(&mut self.pipeline_is_paused) {
            self.tell_nodes(|_| Mail::Pause(false));
        }
        for index in 0..self.nodes.len() {
            let life = self.nodes[index].life;
            self.resume_node(index, life);
        }
        for index in 0..self.workers.len() {
            let life = self.workers[index].life;
            self.resume_worker(index, life);
        }
        for conn in self.open_conns() {
            self.cut(conn);
        }
        self.queue.push(self.now + 500, Happening::Check);
    }
}
