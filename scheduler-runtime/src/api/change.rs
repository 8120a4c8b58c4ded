//! Changes of tasks: made by their shards, answered when they are saved.

use std::collections::BTreeMap;
use std::time::Duration;

use scheduler_core::id::{Offset, ShardId, TaskId};
use scheduler_core::outcome::DeadReason;
use scheduler_core::port::gateway::ApiError;
use scheduler_core::shard::{Answer, Input};

use super::LocalNode;
use super::{error, saved};
use crate::actor::{Mark, Message, ReadAt};
use crate::directory::Served;

/// Dead letters handled at once.
pub(super) const DEAD_PAGE: usize = 200;
/// How often what a shard is to take in is read, because it saved something meanwhile.
const MOST_READS: usize = 20;

impl LocalNode {
    /// Has a shard change tasks, and waits until that is saved. Nothing is done, and the answer is `Err` with the mark of now, if what the
    /// change stands on was read too early.
    async fn change_all(
        &self,
        served: &Served,
        shard: ShardId,
        inputs: Vec<Input>,
        read_at: Option<ReadAt>,
    ) -> Result<Result<Vec<Answer>, Mark>, ApiError> {
        let gone = || error::unavailable("the task's shard is moving to another node");
        let change = |reply| Message::Change(shard.partition, inputs, read_at, reply);
        let changed = served.mailbox.ask(change).await.ok_or_else(gone)?;
        let Some(answers) = changed.answers else {
            return Ok(Err(changed.mark));
        };
        if let Some(durable) = changed.durable {
            saved(durable).await?.map_err(|_| gone())?;
        }
        if answers.contains(&Answer::Full) {
            return Err(ApiError::Overloaded {
                problem: "the pipeline has as many live tasks as its window holds; some of what was asked may be done".into(),
                retry_after: Duration::from_secs(2),
            });
        }
        Ok(Ok(answers))
    }

    /// Has a shard change a task, and waits until the change is saved.
    pub(super) async fn change(
        &self,
        served: &Served,
        shard: ShardId,
        input: Input,
    ) -> Result<Answer, ApiError> {
        let answers = self.change_all(served, shard, vec![input], None).await?;
        let answer = answers.ok().and_then(|answers| answers.into_iter().next());
        Ok(answer.unwrap_or(Answer::Elsewhere))
    }

    /// Has a shard take in what the store has, which must not be older than what the shard has saved since. Answers what came of it, and the
    /// lowest offset that was read.
    async fn change_stored(
        &self,
        served: &Served,
        shard: ShardId,
        stored: &Stored,
    ) -> Result<(Vec<Answer>, Option<Offset>), ApiError> {
        // No shard has this mark, so the first time nothing is done.
        let (mut read_at, mut inputs, mut lowest) = (ReadAt::default(), Vec::new(), None);
        for _ in 0..=MOST_READS {
            match self.change_all(served, shard, inputs, Some(read_at)).await? {
                Ok(answers) => return Ok((answers, lowest)),
                Err(now) => read_at.mark = now,
            }
            (inputs, lowest) = self.read_stored(shard, stored).await?;
            read_at.epoch = self.inner.store.epoch(shard).await.map_err(error::of_store)?;
        }
        Err(error::unavailable("the task's shard is too busy for this now"))
    }

    async fn read_stored(
        &self,
        shard: ShardId,
        stored: &Stored,
    ) -> Result<(Vec<Input>, Option<Offset>), ApiError> {
        let store = &self.inner.store;
        let dead = match stored {
            Stored::Parked(id, input) => {
                let parked = store.parked_task(*id).await.map_err(error::of_store)?;
                let inputs = parked.map(|task| vec![Input::Fetch(task), input.clone()]);
                return Ok((inputs.unwrap_or_default(), None));
            }
            Stored::Dead(offsets) => {
                let mut dead = Vec::new();
                for offset in offsets {
                    dead.extend(
                        store
                            .dead_task(shard.task(*offset))
                            .await
                            .map_err(error::of_store)?,
                    );
                }
                dead
            }
            Stored::DeadBelow(before) => store
                .dead_tasks(shard, *before, DEAD_PAGE)
                .await
                .map_err(error::of_store)?,
        };
        let lowest = dead.last().map(|task| task.offset);
        // What is not a task cannot live again.
        let can_run = dead
            .into_iter()
            .filter(|task| task.reason != DeadReason::Undecodable);
        Ok((can_run.map(Input::Revive).collect(), lowest))
    }

    /// Has a shard change a task that may be parked.
    pub(super) async fn change_anywhere(
        &self,
        served: &Served,
        id: TaskId,
        input: Input,
    ) -> Result<Answer, ApiError> {
        let shard = Self::shard_of(served, id)?;
        let answer = self.change(served, shard, input.clone()).await?;
        if answer != Answer::Elsewhere {
            return Ok(answer);
        }
        let parked = Stored::Parked(id, input);
        let (answers, _) = self.change_stored(served, shard, &parked).await?;
        Ok(answers.last().copied().unwrap_or(Answer::Elsewhere))
    }

    /// Brings dead letters of one shard back to life; answers how many, and the lowest offset among them.
    pub(super) async fn revive(
        &self,
        served: &Served,
        shard: ShardId,
        which: Stored,
    ) -> Result<(u64, Option<Offset>), ApiError> {
        let (answers, lowest) = self.change_stored(served, shard, &which).await?;
        let revived = answers.iter().filter(|answer| **answer == Answer::Done);
        Ok((revived.count() as u64, lowest))
    }

    /// Has everything about the pipeline's shards here saved.
    pub(super) async fn flush_here(&self, served: &Served) -> Result<(), ApiError> {
        let flush = |shard| self.change(served, shard, Input::Flush);
        let all = self.shards_here(served).into_iter().map(flush);
        futures::future::try_join_all(all).await.map(drop)
    }
}

/// What a shard is to take in from the store.
pub(super) enum Stored {
    /// A parked task, to which something is to be done.
    Parked(TaskId, Input),
    /// These dead letters.
    Dead(Vec<Offset>),
    /// The highest dead letters below an offset, at most [`DEAD_PAGE`].
    DeadBelow(Offset),
}

/// The ids by the shards that they lie in.
pub(super) fn by_shard(ids: &[TaskId]) -> BTreeMap<ShardId, Vec<Offset>> {
    let mut shards: BTreeMap<ShardId, Vec<Offset>> = BTreeMap::new();
    for id in ids {
        shards.entry(id.shard).or_default().push(id.offset);
    }
    shards
}
