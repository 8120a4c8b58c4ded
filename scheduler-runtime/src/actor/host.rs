//! The shards that live here: how they come up, are saved, and let go.

use scheduler_core::activation::{Activation, Step};
use scheduler_core::id::{CheckpointId, Tenure};
use scheduler_core::port::store::StoreError;
use tracing::{error, info, warn};

use super::{
    Bounds, Claimed, Durable, Epoch, Event, Forwarder, Input, LogError, Offset, Partition, PipelineActor,
    Timestamp, oneshot,
};
use crate::retry::until_done;

/// A shard that lives here, or is about to.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) activation: Activation,
    pub(super) forwarder: Option<Forwarder>,
    /// What is wrong, for people.
    pub(super) problem: Option<String>,
    /// Who waits for which checkpoint.
    waiting: Vec<(CheckpointId, oneshot::Sender<()>)>,
    /// Who waits for the release; answered by being dropped.
    released: Vec<std::sync::Arc<Released>>,
}

/// Answers when the last of several shards has let go of it.
#[derive(Debug)]
pub(super) struct Released(Option<oneshot::Sender<()>>);

impl Drop for Released {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            let _ = reply.send(());
        }
    }
}

impl PipelineActor {
    pub(super) fn assign(&mut self, partition: Partition) {
        if self.hosted.contains_key(&partition) {
            return;
        }
        let policy = std::sync::Arc::new(self.pipeline.policy.clone());
        let (activation, step) = Activation::begin(self.shard_id(partition), policy, self.world.grace);
        let hosted = Hosted {
            activation,
            forwarder: None,
            problem: None,
            waiting: Vec::new(),
            released: Vec::new(),
        };
        self.hosted.insert(partition, hosted);
        self.step(Timestamp::ZERO, partition, step);
    }

    pub(super) fn claimed(&mut self, partition: Partition, claimed: Claimed) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.claimed(claimed);
        self.step(Timestamp::ZERO, partition, step);
    }

    pub(super) fn measured(&mut self, now: Timestamp, partition: Partition, bounds: Bounds) {
        let shard = self.shard_id(partition);
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        match hosted.activation.measured(now, bounds) {
            Ok(step) => self.step(now, partition, step),
            Err(damage) => {
                error!(%shard, error = &damage as &dyn std::error::Error, "the saved state cannot be read");
                hosted.problem = Some(format!(
                    "shard {shard} does not run: its saved state cannot be read: {damage}"
                ));
            }
        }
    }

    /// Does what an activation wants done.
    fn step(&mut self, now: Timestamp, partition: Partition, step: Step) {
        let shard = self.shard_id(partition);
        match step {
            Step::Claim => {
                let (store, node) = (self.world.store.clone(), self.world.node);
                self.spawn_for(move |mailbox| async move {
                    let claim = || store.claim(shard, node);
                    let claimed = until_done("claiming a shard", claim).await;
                    mailbox.tell(super::Message::Claimed(partition, claimed)).await;
                });
            }
            Step::Measure => {
                let log = self.world.log.clone();
                self.spawn_for(move |mailbox| async move {
                    let bounds = until_done("measuring a log", || log.bounds(shard)).await;
                    mailbox.tell(super::Message::Measured(partition, bounds)).await;
                });
            }
            Step::Run {
                shard: machine,
                from,
                missing,
            } => {
                let Some(mailbox) = self.mailbox() else { return };
                if missing > 0 {
                    error!(%shard, missing, "the log has lost records before their time");
                }
                let hosted = self.hosted.get_mut(&partition);
                if let Some(hosted) = hosted {
                    hosted.problem = (missing > 0).then(|| {
                        format!("the log of shard {shard} has lost {missing} records before their time")
                    });
                    hosted.forwarder = Some(Forwarder::spawn(self.world.log.clone(), shard, from, mailbox));
                }
                info!(%shard, epoch = machine.tenure().epoch.0, from = from.0, "shard is active");
                self.event(now, Event::Activate(machine));
            }
            Step::Flush => self.event(now, Event::Shard(partition, Input::Flush)),
            Step::Release(tenure) => self.release(now, partition, tenure),
            Step::Quarantine { owners } => {
                error!(%shard, owners, "shard is quarantined: its last owners died before they saved anything");
                if let Some(hosted) = self.hosted.get_mut(&partition) {
                    hosted.problem = Some(format!(
                        "shard {shard} is quarantined: its last {owners} owners died before they saved anything"
                    ));
                }
            }
            Step::Nothing => (),
        }
    }

    fn release(&mut self, now: Timestamp, partition: Partition, tenure: Tenure) {
        self.event(now, Event::Deactivate(partition));
        let Some(hosted) = self.hosted.remove(&partition) else {
            return;
        };
        let store = self.world.store.clone();
        tokio::spawn(async move {
            until_done("releasing a shard", || store.release(tenure)).await;
            info!(shard = %tenure.shard, epoch = tenure.epoch.0, "shard is released");
            drop(hosted);
        });
    }

    pub(super) fn revoke(&mut self, now: Timestamp, partitions: Vec<Partition>, reply: oneshot::Sender<()>) {
        let released = std::sync::Arc::new(Released(Some(reply)));
        for partition in partitions {
            let Some(hosted) = self.hosted.get_mut(&partition) else {
                continue;
            };
            hosted.released.push(released.clone());
            hosted.forwarder = None;
            let step = hosted.activation.revoke();
            let active = hosted.activation.tenure().is_some();
            self.step(now, partition, step);
            if !active {
                self.hosted.remove(&partition);
            } else if self
                .machine
                .shard(partition)
                .is_some_and(scheduler_core::shard::Shard::is_saved)
            {
                self.after_save(now, partition);
            }
        }
    }

    pub(super) fn lose(&mut self, now: Timestamp, partition: Partition) {
        if let Some(mut hosted) = self.hosted.remove(&partition) {
            hosted.activation.fenced();
            self.event(now, Event::Deactivate(partition));
        }
    }

    pub(super) fn fenced(&mut self, now: Timestamp, partition: Partition, stored: Epoch) {
        let shard = self.shard_id(partition);
        warn!(%shard, epoch = stored.0, "shard has another owner");
        self.lose(now, partition);
    }

    pub(super) fn saved(&mut self, now: Timestamp, partition: Partition, id: CheckpointId) {
        self.event(now, Event::Shard(partition, Input::Saved(id)));
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        for (_, reply) in hosted.waiting.extract_if(.., |(wanted, _)| *wanted <= id) {
            let _ = reply.send(());
        }
        self.after_save(now, partition);
    }

    fn after_save(&mut self, now: Timestamp, partition: Partition) {
        let Some(shard) = self.machine.shard(partition) else {
            return;
        };
        let rest = (!shard.is_saved()).then(|| shard.covering());
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.saved(rest);
        self.step(now, partition, step);
    }

    /// Asks for a checkpoint of everything so far, and says when it is saved. `None` if the shard is not here.
    pub(super) fn durable(&mut self, now: Timestamp, partition: Partition) -> Option<Durable> {
        let shard = self.machine.shard(partition)?;
        let (send, durable) = oneshot::channel();
        if shard.is_saved() {
            let _ = send.send(());
            return Some(durable);
        }
        let wanted = shard.covering();
        self.event(now, Event::Shard(partition, Input::Flush));
        self.hosted.get_mut(&partition)?.waiting.push((wanted, send));
        Some(durable)
    }

    pub(super) fn read_failed(&mut self, partition: Partition, problem: &LogError) {
        let shard = self.shard_id(partition);
        error!(%shard, error = problem as &dyn std::error::Error, "the log cannot be read on");
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.forwarder = None;
            hosted.problem = Some(format!("shard {shard} takes no new tasks: {problem}"));
        }
    }

    pub(super) fn truncate(&self, partition: Partition, before: Offset) {
        let (log, shard) = (self.world.log.clone(), self.shard_id(partition));
        tokio::spawn(async move {
            // Not done this time, it is done with the next checkpoint.
            if let Err(problem) = log.truncate(shard, before).await {
                warn!(%shard, error = &problem as &dyn std::error::Error, "the log is not truncated");
            }
        });
    }

    pub(super) fn load_parked(
        &self,
        partition: Partition,
        after: Option<(Timestamp, Offset)>,
        until: Timestamp,
        limit: usize,
    ) {
        let (store, shard) = (self.world.store.clone(), self.shard_id(partition));
        self.spawn_for(move |mailbox| async move {
            // One more than is wanted tells when the next is due.
            let page = || async {
                let mut tasks = store.parked(shard, until, after, limit).await?;
                let last = tasks.last().map(|task| (task.wake_at, task.offset)).or(after);
                let next = store.parked(shard, Timestamp::MAX, last, 1).await?;
                let next_wake = next.first().map_or(Timestamp::MAX, |task| task.wake_at);
                tasks.shrink_to_fit();
                Ok::<_, StoreError>((tasks, next_wake))
            };
            let (tasks, next_wake) = until_done("loading parked tasks", page).await;
            mailbox
                .tell(super::Message::Unpark(partition, tasks, next_wake))
                .await;
        });
    }

    /// Does something that takes time and answers into the mailbox, unless the actor is ending.
    fn spawn_for<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(super::Mailbox) -> F) {
        if let Some(mailbox) = self.mailbox() {
            tokio::spawn(work(mailbox));
        }
    }
}
