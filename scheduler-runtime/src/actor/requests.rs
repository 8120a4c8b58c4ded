//! What others ask of a pipeline's tasks, and what it is told of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::pipeline::Event;
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::gateway::{HeldLease, Report, WorkerEvent};
use scheduler_core::shard::{Answer, Input};
use scheduler_core::time::Timestamp;
use tokio::sync::oneshot;

use super::{Changed, Durable, PipelineActor, ReadAt, Status};

impl PipelineActor {
    pub(super) fn change(
        &mut self,
        now: Timestamp,
        partition: Partition,
        inputs: Vec<Input>,
        read_at: Option<ReadAt>,
        reply: oneshot::Sender<Changed>,
    ) {
        let epoch = self.machine.shard(partition).map(|shard| shard.tenure().epoch);
        if let (Some(epoch), Some(read_at)) = (epoch, read_at)
            && read_at.epoch > epoch
        {
            self.fenced(now, partition, read_at.epoch);
        }
        let mark = self.mark_of(partition);
        let is_fresh = read_at.is_none_or(|read_at| read_at.mark == mark);
        let answers = is_fresh.then(|| {
            let handle = |input| {
                let fetched = match &input {
                    Input::Fetch(task) => Some(task.offset),
                    _ => None,
                };
                let answer = self.input(now, partition, input);
                if let Some(offset) = fetched {
                    self.watch_again(now, (partition, offset));
                }
                answer
            };
            inputs.into_iter().map(handle).collect::<Vec<_>>()
        });
        let durable = answers
            .as_ref()
            .filter(|answers| answers.contains(&Answer::Done))
            .and_then(|_| self.durable(now, partition));
        let _ = reply.send(Changed {
            answers,
            mark,
            durable,
        });
    }

    pub(super) fn report(
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
            self.input(now, partition, input)
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

    pub(super) fn extend(
        &mut self,
        now: Timestamp,
        worker: WorkerId,
        leases: Vec<HeldLease>,
        reply: oneshot::Sender<Vec<Answer>>,
    ) {
        let mut extend = |lease: HeldLease| {
            let input = Input::Extend {
                worker,
                offset: lease.offset,
                token: lease.token,
                progress: None,
            };
            self.input(now, lease.partition, input)
        };
        let _ = reply.send(leases.into_iter().map(&mut extend).collect());
    }

    pub(super) fn update(&mut self, now: Timestamp, pipeline: Arc<Pipeline>) {
        if pipeline.definition != self.pipeline.definition {
            self.tell_all(&WorkerEvent::Definition(pipeline.definition.clone()));
        }
        if pipeline.policy != self.pipeline.policy {
            self.event(now, Event::Policy(Arc::new(pipeline.policy.clone())));
        }
        self.event(now, Event::Pause(pipeline.paused || self.draining));
        for partition in self.pipeline.partitions..pipeline.partitions {
            self.event(now, Event::Grow(Partition(partition)));
        }
        let is_resumed = self.pipeline.paused && !pipeline.paused;
        self.pipeline = pipeline;
        if is_resumed && !self.draining {
            self.try_again();
        }
    }

    pub(super) fn status(&self) -> Status {
        let (counts, sessions) = self.machine.counts();
        let tails = self
            .machine
            .shards()
            .map(|shard| (shard.tenure().shard.partition, shard.tail()));
        Status {
            counts,
            sessions,
            tails: tails.collect(),
            problems: self
                .crashes
                .problem(self.world.clock.now())
                .into_iter()
                .chain(self.troubles.values().map(|trouble| trouble.problem.clone()))
                .collect(),
            turn: (self.taken == 1).then(|| self.turns.load(Ordering::Relaxed)),
        }
    }
}
