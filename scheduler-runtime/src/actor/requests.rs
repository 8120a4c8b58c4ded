//! What others ask of a pipeline's tasks, and what it is told of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use scheduler_core::id::{Offset, Partition, WorkerId};
use scheduler_core::pipeline::Event;
use scheduler_core::port::catalog::Pipeline;
use scheduler_core::port::gateway::{HeldLease, Report, WorkerEvent};
use scheduler_core::shard::{Answer, Input};
use scheduler_core::time::Timestamp;
use tokio::sync::oneshot;

use super::shell::Asker;
use super::{Changed, Durable, PipelineActor, ReadAt, Status, trouble};

impl PipelineActor {
    pub(super) fn change(
        &mut self,
        now: Timestamp,
        partition: Partition,
        inputs: Vec<Input>,
        read_at: Option<ReadAt>,
        reply: oneshot::Sender<Changed>,
    ) {
        let fetched = inputs.iter().filter_map(|input| match input {
            Input::Fetch(task) => Some(task.offset),
            _ => None,
        });
        let fetched: Vec<Offset> = fetched.collect();
        let (asker, durable) = Asker::new();
        let changed = self
            .host
            .change(now, partition, inputs, read_at, |_| asker, &mut self.effects);
        let answers = changed.answers;
        if answers.is_some() {
            for offset in fetched {
                self.watch_again(now, (partition, offset));
            }
        }
        let is_done = answers
            .as_ref()
            .is_some_and(|answers| answers.contains(&Answer::Done));
        let _ = reply.send(Changed {
            answers,
            mark: changed.mark,
            durable: is_done.then_some(durable),
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
            let policy = Arc::new(pipeline.policy.clone());
            self.host.set_policy(now, policy, &mut self.effects);
        }
        for partition in self.pipeline.partitions..pipeline.partitions {
            self.event(now, Event::Grow(Partition(partition)));
        }
        self.host.pause(now, pipeline.paused, &mut self.effects);
        self.pipeline = pipeline;
    }

    pub(super) fn status(&self) -> Status {
        let pipeline = self.host.pipeline();
        let (counts, sessions) = pipeline.counts();
        let tails = pipeline
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
                .chain(
                    self.host
                        .troubles()
                        .map(|(shard, found)| trouble::text(shard, found)),
                )
                .collect(),
            turn: (self.taken == 1).then(|| self.turns.load(Ordering::Relaxed)),
        }
    }
}
