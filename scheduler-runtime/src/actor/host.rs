//! The shards that live here: how they come up, are saved, and let go.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;

use scheduler_core::activation::{Activation, Step};
use scheduler_core::id::{CheckpointId, Epoch, Offset, Partition, Tenure};
use scheduler_core::key::{MAX_KEYS, SeenKey};
use scheduler_core::pipeline::Event;
use scheduler_core::port::log::{Bounds, LogError};
use scheduler_core::port::store::{Claimed, StoreError};
use scheduler_core::shard::{Input, PageId, Shard};
use scheduler_core::time::Timestamp;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::forward::Forwarder;
use super::supervise::text_of;
use super::{Durable, Line, Mailbox, Mark, PipelineActor, Stay, Word};
use crate::directory::topic_of;
use crate::retry::{in_full, until_done};

/// Of those who wait for checkpoints, those who are gone are looked for when there are more.
const WAITING_SWEEP: usize = 64;

/// A shard that lives here, or is about to.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) activation: Activation,
    pub(super) forwarder: Option<Forwarder>,
    /// Whether the log's first records are in.
    pub(super) has_records: bool,
    truncating: Option<AbortHandle>,
    stay: Stay,
    /// Changes with each save.
    mark: Mark,
    /// Who waits for which checkpoint.
    waiting: Vec<(CheckpointId, oneshot::Sender<()>)>,
    /// Who waits for the release; answered by being dropped.
    released: Vec<Arc<Released>>,
    /// Ends with its stay here; whoever works for it goes by this.
    ended: CancellationToken,
    _life: DropGuard,
}

/// Answers when the last of several shards has let go of it.
#[derive(Debug)]
pub(super) struct Released(Option<oneshot::Sender<()>>);

impl Released {
    pub(super) fn new(reply: oneshot::Sender<()>) -> Arc<Self> {
        Arc::new(Self(Some(reply)))
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            let _ = reply.send(());
        }
    }
}

/// What is wrong with a partition.
#[derive(Debug)]
pub(super) struct Trouble {
    /// For people.
    pub(super) problem: String,
    /// Whether its shard was left alone here, and comes up again if somebody says so.
    can_try_again: bool,
}

impl Hosted {
    /// Answers when the shard is released.
    pub(super) fn wait_for_release(&mut self, released: Arc<Released>) {
        self.released.push(released);
    }
}

impl PipelineActor {
    pub(super) fn assign(&mut self, partition: Partition, insist: bool) {
        if self.hosted.contains_key(&partition) {
            return;
        }
        self.troubles.remove(&partition);
        let policy = Arc::new(self.pipeline.policy.clone());
        let (shard, node) = (self.shard_id(partition), self.world.node);
        let (activation, step) = Activation::begin(shard, node, policy, self.world.grace);
        let activation = if insist {
            activation.insisting()
        } else {
            activation
        };
        let activation = match self.recording_of(partition) {
            Some(limit) => activation.recording(limit),
            None => activation,
        };
        self.stay(partition, activation);
        self.step(self.world.clock.now(), partition, step);
    }

    /// Begins a stay of a shard.
    fn stay(&mut self, partition: Partition, activation: Activation) {
        let ended = self.world.ended.child_token();
        let hosted = Hosted {
            activation,
            forwarder: None,
            has_records: false,
            truncating: None,
            stay: Stay(self.next_mark()),
            mark: Mark(self.next_mark()),
            waiting: Vec::new(),
            released: Vec::new(),
            _life: ended.clone().drop_guard(),
            ended,
        };
        self.hosted.insert(partition, hosted);
    }

    /// Brings up again what was left alone for a reason that somebody says is no more.
    pub(super) fn try_again(&mut self) {
        let left: Vec<Partition> = self
            .troubles
            .iter()
            .filter(|(_, trouble)| trouble.can_try_again)
            .map(|(partition, _)| *partition)
            .collect();
        for partition in left {
            self.assign(partition, true);
        }
    }

    /// Takes what was said to one stay of a shard.
    pub(super) fn hear(&mut self, now: Timestamp, partition: Partition, stay: Stay, word: Word) {
        if self
            .hosted
            .get(&partition)
            .is_none_or(|hosted| hosted.stay != stay)
        {
            return;
        }
        match word {
            Word::Records(records) => self.records(now, partition, records),
            Word::Saved(id) => self.saved(now, partition, id),
            Word::Claimed(claimed) => self.claimed(now, partition, claimed),
            Word::Measured(bounds, keys) => self.measured(now, partition, bounds, keys),
            Word::Unpark(page, tasks, next_wake) => {
                let offsets: Vec<Offset> = tasks.iter().map(|task| task.offset).collect();
                let input = Input::Unpark {
                    page,
                    tasks,
                    next_wake,
                };
                self.input(now, partition, input);
                for offset in offsets {
                    self.watch_again(now, (partition, offset));
                }
            }
            Word::Fenced(stored) => self.fenced(now, partition, stored),
            Word::Due => {
                if let Some(hosted) = self.hosted.get_mut(&partition) {
                    let step = hosted.activation.due(now);
                    self.step(now, partition, step);
                }
            }
            Word::Missing(missing, start) => {
                self.input(now, partition, Input::Lost(start));
                self.warn_of(
                    partition,
                    &format!("its log has lost {missing} records before their time"),
                );
            }
            Word::ReadFailed(problem) => self.read_failed(partition, &problem),
            Word::NoParked(problem) => {
                self.warn_of(
                    partition,
                    &format!("its parked tasks do not come back: {problem}"),
                );
            }
            Word::Broken(problem) => {
                self.lose(now, partition);
                self.leave_alone(partition, &problem);
            }
        }
    }

    fn claimed(&mut self, now: Timestamp, partition: Partition, claimed: Claimed) {
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            let step = hosted.activation.claimed(claimed);
            self.step(now, partition, step);
        }
    }

    fn measured(&mut self, now: Timestamp, partition: Partition, bounds: Bounds, keys: Vec<SeenKey>) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        match hosted.activation.measured(now, bounds) {
            Ok(step) => {
                self.step(now, partition, step);
                // The forwarder's first records come after this.
                self.input(now, partition, Input::Keys(keys));
            }
            Err(damage) => {
                self.give_up(
                    now,
                    partition,
                    &format!("its saved state cannot be read: {damage}"),
                );
            }
        }
    }

    /// Does what an activation wants done.
    fn step(&mut self, now: Timestamp, partition: Partition, step: Step) {
        let shard = self.shard_id(partition);
        match step {
            Step::Claim => {
                let (store, node) = (self.world.store.clone(), self.world.node);
                let turn = self.world.activating.clone();
                self.spawn_for(partition, async move |line| {
                    let _turn = turn.acquire().await;
                    let claimed = until_done("claiming a shard", || store.claim(shard, node)).await;
                    line.tell(claimed.map_or_else(
                        |problem| Word::Broken(format!("it cannot be claimed: {}", in_full(&problem))),
                        Word::Claimed,
                    ))
                    .await;
                });
            }
            Step::Measure => {
                let (log, topic) = (self.world.log.clone(), topic_of(&self.pipeline));
                let store = self.world.store.clone();
                let turn = self.world.activating.clone();
                self.spawn_for(partition, async move |line| {
                    let _turn = turn.acquire().await;
                    let measure = || async {
                        log.ensure(&topic).await?;
                        log.bounds(shard).await
                    };
                    let load = || store.keys(shard, MAX_KEYS);
                    let word = match until_done("measuring a log", measure).await {
                        Ok(bounds) => match until_done("loading idempotency keys", load).await {
                            Ok(keys) => Word::Measured(bounds, keys),
                            Err(problem) => {
                                Word::Broken(format!("its keys cannot be read: {}", in_full(&problem)))
                            }
                        },
                        Err(problem) => {
                            Word::Broken(format!("its log cannot be read: {}", in_full(&problem)))
                        }
                    };
                    line.tell(word).await;
                });
            }
            Step::Run {
                shard: machine,
                from,
                missing,
                log_end,
            } => self.bring_up(now, partition, machine, from, missing, log_end),
            Step::Leave => {
                if let Some(hosted) = self.hosted.get_mut(&partition) {
                    hosted.forwarder = None;
                }
                self.input(now, partition, Input::Leave);
            }
            Step::Flush => {
                self.input(now, partition, Input::Flush);
            }
            Step::Release(tenure) => self.release(now, partition, tenure),
            Step::Quarantine { owners } => {
                let problem = format!(
                    "it is quarantined, because its last {owners} owners died before they saved anything"
                );
                self.give_up(now, partition, &problem);
            }
            Step::Retreat(until) => self.retreat(now, partition, until),
            Step::Drop => self.lose(now, partition),
            Step::Nothing => (),
        }
    }

    /// Drops a shard that another node has taken, and comes back to it later.
    fn retreat(&mut self, now: Timestamp, partition: Partition, until: Timestamp) {
        let Some(hosted) = self.hosted.remove(&partition) else {
            return;
        };
        self.deactivate(now, partition);
        self.stay(partition, hosted.activation);
        let at = self.world.clock.instant(until);
        self.spawn_for(partition, async move |line| {
            tokio::time::sleep_until(at).await;
            line.tell(Word::Due).await;
        });
    }

    fn bring_up(
        &mut self,
        now: Timestamp,
        partition: Partition,
        machine: Box<Shard>,
        from: Offset,
        missing: u64,
        log_end: Offset,
    ) {
        let (shard, epoch) = (self.shard_id(partition), machine.tenure().epoch.0);
        let line = self.line(partition);
        let (Some(hosted), Some(line)) = (self.hosted.get_mut(&partition), line) else {
            return;
        };
        let is_leaving = hosted.activation.is_leaving();
        if !is_leaving {
            let forwarder = Forwarder::spawn(&self.world.tasks, self.world.log.clone(), shard, from, line);
            hosted.forwarder = Some(forwarder);
        }
        self.troubles.remove(&partition);
        self.event(now, Event::Activate(machine));
        if missing > 0 {
            error!(%shard, missing, "the log has lost records before their time");
            self.warn_of(
                partition,
                &format!("its log has lost {missing} records before their time"),
            );
        }
        info!(%shard, epoch, from = from.0, "shard is active");
        if is_leaving {
            self.let_go(now, partition);
        } else if from >= log_end {
            // There is nothing that it could die of, so the store may know at once that it lives.
            self.input(now, partition, Input::Flush);
        }
        // Tasks that are watched may have ended or been parked before.
        self.watch_arrived(now, partition);
    }

    fn release(&mut self, now: Timestamp, partition: Partition, tenure: Tenure) {
        self.deactivate(now, partition);
        let Some(hosted) = self.hosted.remove(&partition) else {
            return;
        };
        let (store, ended) = (self.world.store.clone(), self.world.ended.clone());
        self.world.tasks.spawn(async move {
            let release = until_done("releasing a shard", || store.release(tenure));
            match ended.run_until_cancelled(release).await {
                Some(Ok(())) => info!(shard = %tenure.shard, epoch = tenure.epoch.0, "shard is released"),
                Some(Err(problem)) => {
                    error!(shard = %tenure.shard, error = &problem as &dyn std::error::Error, "shard is not released");
                }
                None => (),
            }
            drop(hosted);
        });
    }

    pub(super) fn revoke(&mut self, now: Timestamp, partitions: Vec<Partition>, reply: oneshot::Sender<()>) {
        let released = Released::new(reply);
        for partition in partitions {
            let was_in_trouble = self.troubles.remove(&partition).is_some();
            if let Some(hosted) = self.hosted.get_mut(&partition) {
                hosted.released.push(released.clone());
                self.let_go(now, partition);
            } else if was_in_trouble {
                // It was left alone here, and workers wait for it in their sessions.
                self.deactivate(now, partition);
            }
        }
    }

    /// Has a shard leave as soon as all of it is saved.
    pub(super) fn let_go(&mut self, now: Timestamp, partition: Partition) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.revoke();
        self.step(now, partition, step);
        if self.machine.shard(partition).is_some_and(Shard::is_saved) {
            self.after_save(now, partition);
        }
    }

    pub(super) fn lose(&mut self, now: Timestamp, partition: Partition) {
        let was_in_trouble = self.troubles.remove(&partition).is_some();
        let hosted = self.hosted.remove(&partition);
        let was_here = hosted.is_some();
        if let Some(mut hosted) = hosted {
            hosted.activation.lose();
        }
        if was_here || was_in_trouble {
            self.deactivate(now, partition);
        }
    }

    pub(super) fn fenced(&mut self, now: Timestamp, partition: Partition, stored: Epoch) {
        let shard = self.shard_id(partition);
        warn!(%shard, epoch = stored.0, "shard has another owner");
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.fenced(now);
        self.step(now, partition, step);
        if self.hosted.contains_key(&partition) {
            let problem = format!(
                "shard {shard} does not run here: another node has taken it, with epoch {}; it is claimed again soon",
                stored.0
            );
            let trouble = Trouble {
                problem,
                can_try_again: false,
            };
            self.troubles.insert(partition, trouble);
        }
    }

    fn deactivate(&mut self, now: Timestamp, partition: Partition) {
        self.event(now, Event::Deactivate(partition));
        self.watchers.forget(partition);
    }

    fn saved(&mut self, now: Timestamp, partition: Partition, id: CheckpointId) {
        let mark = Mark(self.next_mark());
        self.input(now, partition, Input::Saved(id));
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        hosted.mark = mark;
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
        self.input(now, partition, Input::Flush);
        let waiting = &mut self.hosted.get_mut(&partition)?.waiting;
        // While nothing can be saved, those who ask come and go.
        if waiting.len() >= WAITING_SWEEP && waiting.len() == waiting.capacity() {
            waiting.retain(|(_, reply)| !reply.is_closed());
        }
        waiting.push((wanted, send));
        Some(durable)
    }

    pub(super) fn mark_of(&self, partition: Partition) -> Mark {
        self.hosted
            .get(&partition)
            .map_or(Mark::default(), |hosted| hosted.mark)
    }

    fn read_failed(&mut self, partition: Partition, problem: &LogError) {
        if let Some(hosted) = self.hosted.get_mut(&partition) {
            hosted.forwarder = None;
        }
        self.warn_of(
            partition,
            &format!("it takes no new tasks from its log: {}", in_full(problem)),
        );
    }

    /// Shows what is wrong with a shard that runs all the same.
    fn warn_of(&mut self, partition: Partition, problem: &str) {
        let shard = self.shard_id(partition);
        error!(%shard, problem, "something is wrong with a shard");
        let trouble = Trouble {
            problem: format!("shard {shard}: {problem}"),
            can_try_again: false,
        };
        self.troubles.insert(partition, trouble);
    }

    /// Does not bring a shard up.
    fn give_up(&mut self, now: Timestamp, partition: Partition, problem: &str) {
        let hosted = self.hosted.remove(&partition);
        if hosted.is_some_and(|hosted| hosted.activation.is_leaving()) {
            // It was to go while it came up: it is the next owner's trouble, and workers that have come for it hear that it has gone.
            self.deactivate(now, partition);
        } else {
            self.leave_alone(partition, problem);
        }
    }

    /// Shows why a shard does not run.
    fn leave_alone(&mut self, partition: Partition, problem: &str) {
        let shard = self.shard_id(partition);
        error!(%shard, problem, "shard is left alone");
        let trouble = Trouble {
            problem: format!(
                "shard {shard} does not run: {problem}; once that is mended, pause and resume the pipeline to try again"
            ),
            can_try_again: true,
        };
        self.troubles.insert(partition, trouble);
    }

    pub(super) fn truncate(&mut self, partition: Partition, before: Offset) {
        let (log, shard) = (self.world.log.clone(), self.shard_id(partition));
        let task = self.spawn_for(partition, async move |_| {
            if let Err(problem) = until_done("truncating a log", || log.truncate(shard, before)).await {
                warn!(%shard, error = &problem as &dyn std::error::Error, "the log is not truncated");
            }
        });
        if let Some(hosted) = self.hosted.get_mut(&partition)
            && let Some(older) = std::mem::replace(&mut hosted.truncating, task)
        {
            // It asks for less.
            older.abort();
        }
    }

    pub(super) fn load_parked(
        &self,
        partition: Partition,
        number: PageId,
        after: Option<(Timestamp, Offset)>,
        until: Timestamp,
        limit: usize,
    ) {
        let Some(Tenure { shard, epoch }) = self.machine.shard(partition).map(Shard::tenure) else {
            return;
        };
        let store = self.world.store.clone();
        self.spawn_for(partition, async move |line| {
            let page = || async {
                let tasks = store.parked(shard, until, after, limit).await?;
                let last = tasks.last().map(|task| (task.wake_at, task.offset)).or(after);
                let next = store.parked(shard, Timestamp::MAX, last, 1).await?;
                let next_wake = next.first().map_or(Timestamp::MAX, |task| task.wake_at);
                Ok::<_, StoreError>((tasks, next_wake, store.epoch(shard).await?))
            };
            let word = match until_done("loading parked tasks", page).await {
                Ok((.., stored)) if stored != epoch => Word::Fenced(stored),
                Ok((tasks, next_wake, _)) => Word::Unpark(number, tasks, next_wake),
                Err(problem) => Word::NoParked(in_full(&problem)),
            };
            line.tell(word).await;
        });
    }

    pub(super) fn line(&self, partition: Partition) -> Option<Line> {
        let hosted = self.hosted.get(&partition)?;
        let send = self.mailbox.upgrade()?;
        Some(Line {
            mailbox: Mailbox {
                send,
                turns: self.turns.clone(),
            },
            partition,
            stay: hosted.stay,
        })
    }

    /// Does something for a shard that takes time, while the shard is here.
    fn spawn_for<F>(&self, partition: Partition, work: impl FnOnce(Line) -> F) -> Option<AbortHandle>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (hosted, line) = (self.hosted.get(&partition)?, self.line(partition)?);
        let (ended, work) = (hosted.ended.clone(), work(line.clone()));
        let guarded = async move {
            // Nobody else would notice that the shard waits for an answer that never comes.
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                line.tell(Word::Broken(format!("it has crashed: {}", text_of(&*panic))))
                    .await;
            }
        };
        let task = self
            .world
            .tasks
            .spawn(async move { ended.run_until_cancelled(guarded).await });
        Some(task.abort_handle())
    }
}
