//! Does what the host wants done for the shards that live here: calls of log and store, whose answers come back to the stay they were made for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use scheduler_core::host::{Effect, Stay, Trouble, Waiter, Word};
use scheduler_core::id::{Offset, Partition, Tenure};
use scheduler_core::key::MAX_KEYS;
use scheduler_core::port::store::StoreError;
use scheduler_core::shard::PageId;
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::forward::{Forwarder, Read, forward};
use super::supervise::text_of;
use super::trouble;
use super::{Durable, Line, Mailbox, PipelineActor};
use crate::directory::topic_of;
use crate::retry::{in_full, until_done};

/// Somebody who waits for a checkpoint.
#[derive(Debug)]
pub(super) struct Asker(oneshot::Sender<()>);

impl Asker {
    pub(super) fn new() -> (Self, Durable) {
        let (send, durable) = oneshot::channel();
        (Self(send), durable)
    }
}

impl Waiter for Asker {
    fn has_gone(&self) -> bool {
        self.0.is_closed()
    }
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

/// What works for one stay of a shard, and ends with it.
#[derive(Debug)]
pub(super) struct Crew {
    stay: Stay,
    forwarder: Option<Forwarder>,
    ended: CancellationToken,
    _life: DropGuard,
}

impl PipelineActor {
    /// Does what the host wants done.
    pub(super) fn act(&mut self, now: Timestamp) {
        while !self.effects.host.is_empty() {
            let mut effects = std::mem::take(&mut self.effects.host);
            for effect in effects.drain(..) {
                self.act_on(now, effect);
            }
            if self.effects.host.is_empty() {
                self.effects.host = effects;
            }
        }
    }

    fn act_on(&mut self, now: Timestamp, effect: Effect<Asker, Arc<Released>>) {
        match effect {
            Effect::Claim(stay) => self.claim(stay),
            Effect::Measure(stay) => self.measure(stay),
            Effect::Wake(stay, until) => {
                let at = self.world.clock.instant(until);
                self.spawn_for(stay, async move |line| {
                    tokio::time::sleep_until(at).await;
                    line.tell(Word::Due).await;
                });
            }
            Effect::Active {
                stay, tenure, from, ..
            } => {
                info!(shard = %tenure.shard, epoch = tenure.epoch.0, from = from.0, "shard is active");
                // Tasks that are watched may have ended or been parked before.
                self.watch_arrived(now, stay.partition);
            }
            Effect::Read {
                stay,
                from,
                limit,
                pause,
            } => self.read(stay, Read { from, limit, pause }),
            Effect::StopReading(stay) => self.crew(stay).forwarder = None,
            Effect::Release {
                stay,
                tenure,
                waiting,
            } => self.release(stay, tenure, waiting),
            Effect::Over(stay) => {
                self.crews.remove(&stay.partition);
            }
            // They are answered by being dropped.
            Effect::LetGo(partition, _) => info!(shard = %self.shard_id(partition), "shard is let go"),
            Effect::Saved(Asker(reply)) => {
                let _ = reply.send(());
            }
            Effect::Left { partition, .. } => self.watchers.forget(partition),
            Effect::Troubled(partition) => self.show_trouble(partition),
            Effect::GoAway => self.go_away(),
        }
    }

    /// Takes what was said to one stay of a shard.
    pub(super) fn hear(&mut self, now: Timestamp, stay: Stay, word: Word) {
        let (brings_records, unparked) = match &word {
            Word::Records(_) => (true, Vec::new()),
            Word::Unpark { tasks, .. } => (false, tasks.iter().map(|task| task.offset).collect()),
            _ => (false, Vec::new()),
        };
        if !self.host.hear(now, stay, word, &mut self.effects) {
            return;
        }
        if brings_records {
            self.watch_arrived(now, stay.partition);
        }
        for offset in unparked {
            self.watch_again(now, (stay.partition, offset));
        }
    }

    fn claim(&mut self, stay: Stay) {
        let (shard, store, node) = (
            self.shard_id(stay.partition),
            self.world.store.clone(),
            self.world.node,
        );
        let turn = self.world.activating.clone();
        self.spawn_for(stay, async move |line| {
            let _turn = turn.acquire().await;
            let claimed = until_done("claiming a shard", || store.claim(shard, node)).await;
            line.tell(claimed.map_or_else(
                |problem| Word::Broken(format!("it cannot be claimed: {}", in_full(&problem))),
                Word::Claimed,
            ))
            .await;
        });
    }

    fn measure(&mut self, stay: Stay) {
        let (log, topic) = (self.world.log.clone(), topic_of(&self.pipeline));
        let (shard, store) = (self.shard_id(stay.partition), self.world.store.clone());
        let turn = self.world.activating.clone();
        self.spawn_for(stay, async move |line| {
            let _turn = turn.acquire().await;
            let measure = || async {
                log.ensure(&topic).await?;
                log.bounds(shard).await
            };
            let load = || store.keys(shard, MAX_KEYS);
            let word = match until_done("measuring a log", measure).await {
                Ok(bounds) => match until_done("loading idempotency keys", load).await {
                    Ok(keys) => Word::Measured(bounds, keys),
                    Err(problem) => Word::Broken(format!("its keys cannot be read: {}", in_full(&problem))),
                },
                Err(problem) => Word::Broken(format!("its log cannot be read: {}", in_full(&problem))),
            };
            line.tell(word).await;
        });
    }

    fn read(&mut self, stay: Stay, read: Read) {
        if self.crew(stay).forwarder.is_none() {
            let (log, shard) = (self.world.log.clone(), self.shard_id(stay.partition));
            let (reads, receive) = mpsc::channel(1);
            let task = self.spawn_for(stay, |line| forward(log, shard, receive, line));
            self.crew(stay).forwarder = task.map(|task| Forwarder { reads, task });
        }
        if let Some(forwarder) = &self.crew(stay).forwarder {
            // It has answered the last one, so there is room for this.
            let _ = forwarder.reads.try_send(read);
        }
    }

    fn release(&mut self, stay: Stay, tenure: Tenure, waiting: Vec<Arc<Released>>) {
        let crew = self.crews.remove(&stay.partition);
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
            drop((crew, waiting));
        });
    }

    /// Asks for a checkpoint of everything so far, and says when it is saved. `None` if the shard is not here.
    pub(super) fn durable(&mut self, now: Timestamp, partition: Partition) -> Option<Durable> {
        let (asker, durable) = Asker::new();
        let is_here = self.host.when_saved(now, partition, asker, &mut self.effects);
        is_here.then_some(durable)
    }

    fn show_trouble(&self, partition: Partition) {
        let Some(found) = self.host.trouble(partition) else {
            return;
        };
        let shard = self.shard_id(partition);
        let problem = trouble::text(shard, found);
        match found {
            Trouble::Taken(_) => warn!(%shard, problem, "shard has another owner"),
            _ if found.is_left_alone() => error!(%shard, problem, "shard is left alone"),
            _ => error!(%shard, problem, "something is wrong with a shard"),
        }
    }

    pub(super) fn truncate(&mut self, partition: Partition, before: Offset) {
        let (log, shard) = (self.world.log.clone(), self.shard_id(partition));
        let ended = self.world.ended.clone();
        let task = self.world.tasks.spawn(async move {
            let truncate = until_done("truncating a log", || log.truncate(shard, before));
            if let Some(Err(problem)) = ended.run_until_cancelled(truncate).await {
                warn!(%shard, error = &problem as &dyn std::error::Error, "the log is not truncated");
            }
        });
        if let Some(older) = self.truncating.insert(partition, task.abort_handle()) {
            // It asks for less.
            older.abort();
        }
    }

    pub(super) fn load_parked(
        &mut self,
        partition: Partition,
        number: PageId,
        after: Option<(Timestamp, Offset)>,
        until: Timestamp,
        limit: usize,
    ) {
        let Some(stay) = self.host.stay_of(partition) else {
            return;
        };
        let (shard, store) = (self.shard_id(partition), self.world.store.clone());
        self.spawn_for(stay, async move |line| {
            let page = || async {
                let tasks = store.parked(shard, until, after, limit).await?;
                let last = tasks.last().map(|task| (task.wake_at, task.offset)).or(after);
                let next = store.parked(shard, Timestamp::MAX, last, 1).await?;
                let next_wake = next.first().map_or(Timestamp::MAX, |task| task.wake_at);
                Ok::<_, StoreError>((tasks, next_wake, store.epoch(shard).await?))
            };
            let word = match until_done("loading parked tasks", page).await {
                Ok((tasks, next_wake, epoch)) => Word::Unpark {
                    page: number,
                    tasks,
                    next_wake,
                    epoch,
                },
                Err(problem) => Word::NoParked(in_full(&problem)),
            };
            line.tell(word).await;
        });
    }

    pub(super) fn line(&self, stay: Stay) -> Option<Line> {
        let send = self.mailbox.upgrade()?;
        Some(Line {
            mailbox: Mailbox {
                send,
                turns: self.turns.clone(),
            },
            stay,
        })
    }

    /// Those who work for a stay.
    fn crew(&mut self, stay: Stay) -> &mut Crew {
        let world = &self.world;
        let new = || {
            let ended = world.ended.child_token();
            Crew {
                stay,
                forwarder: None,
                _life: ended.clone().drop_guard(),
                ended,
            }
        };
        let crew = self.crews.entry(stay.partition).or_insert_with(new);
        if crew.stay != stay {
            *crew = new();
        }
        crew
    }

    /// Does something for a shard that takes time, while its stay lasts.
    fn spawn_for<F>(&mut self, stay: Stay, work: impl FnOnce(Line) -> F) -> Option<AbortHandle>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let line = self.line(stay)?;
        let (ended, work) = (self.crew(stay).ended.clone(), work(line.clone()));
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
