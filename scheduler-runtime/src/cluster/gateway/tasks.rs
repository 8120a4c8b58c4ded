//! Tasks: asked of the owners of their shards; taken in by the log, wherever they are submitted.

use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{Partition, TaskId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::gateway::{
    ApiError, DeadSelection, Page, PageCursor, TaskApi, TaskFilter, TaskState, TaskStream, TaskView, Waiting,
};
use scheduler_core::task::TaskSpec;
use tokio::time::Instant;

use super::super::owner::{LONGEST_CHANGE, LONGEST_READ};
use super::ClusterNode;
use crate::api::{LocalNode, error, key_of};
use crate::directory::Served;

/// Before a wait goes on with the next owner of its shard.
const PAUSE: Duration = Duration::from_millis(100);
/// A node has the answer to a wait within its patience, and this.
const WAY_BACK: Duration = Duration::from_secs(20);

impl ClusterNode {
    /// Has everything saved, on all nodes.
    async fn flush(&self, served: &Served) -> Result<(), ApiError> {
        let path = &served.pipeline.path;
        let flushed = self.ask_everybody(
            served,
            LONGEST_CHANGE,
            |node| async move { node.flush(path).await },
        );
        flushed.await.map(drop)
    }

    /// A task whose shard nobody has just now: what the store says of it is true all the same.
    async fn stored(&self, id: TaskId, problem: ApiError) -> Result<TaskView, ApiError> {
        match self.local.look_up_stored(id).await? {
            Some(mut view) => {
                view.waiting = match view.state {
                    TaskState::Delayed => Some(Waiting::NotDue),
                    TaskState::Queued => Some(Waiting::ShardIsAway),
                    _ => None,
                };
                Ok(view)
            }
            None => Err(problem),
        }
    }
}

#[async_trait]
impl TaskApi for ClusterNode {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        if self.inner.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let served = self.served(path).await?;
        self.local.check_all(&served, &tasks)?;
        let (mut plain, mut keyed) = (Vec::new(), Vec::new());
        for (index, task) in tasks.into_iter().enumerate() {
            match key_of(&task) {
                Some(key) => keyed.push((served.pipeline.partition_of(key), (index, task))),
                None => plain.push((index, task)),
            }
        }
        if keyed.is_empty() {
            let tasks = plain.into_iter().map(|(_, task)| task).collect();
            return self.local.take(&served, tasks).await;
        }
        let (indices, plain): (Vec<usize>, Vec<TaskSpec>) = plain.into_iter().unzip();
        let of_keys: Vec<usize> = keyed.iter().map(|(_, (index, _))| *index).collect();
        let specs: Vec<_> = keyed
            .into_iter()
            .map(|(partition, (_, task))| (partition, task))
            .collect();
        // The shards of keys know which tasks are there already.
        let asked = self.ask_owners(&served, specs.clone(), LONGEST_READ, |owner, tasks| async move {
            owner.submit(path, tasks).await.map_err(of_some)
        });
        let ids = match asked.await {
            // Nobody knows the keys now: the log takes them, and their shard finds out what is a duplicate.
            Err(ApiError::Unavailable { .. }) => {
                let tasks = specs.into_iter().map(|(_, task)| task).collect();
                self.local.take(&served, tasks).await?
            }
            answer => answer?,
        };
        let others = self.local.take(&served, plain).await?;
        let mut all: Vec<(usize, TaskId)> = of_keys
            .into_iter()
            .zip(ids)
            .chain(indices.into_iter().zip(others))
            .collect();
        all.sort_unstable_by_key(|(index, _)| *index);
        Ok(all.into_iter().map(|(_, id)| id).collect())
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path).await?;
        let shard = LocalNode::shard_of(&served, id)?;
        let asked = self.ask_owner(&served, shard, LONGEST_READ, |owner| async move {
            owner.task(path, id).await
        });
        match asked.await {
            Err(problem @ ApiError::Unavailable { .. }) => self.stored(id, problem).await,
            answer => answer,
        }
    }

    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        let served = self.served(path).await?;
        let shard = LocalNode::shard_of(&served, id)?;
        let deadline = Instant::now() + patience;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let asked = self.ask_owner(
                &served,
                shard,
                rest.saturating_add(WAY_BACK),
                |owner| async move { owner.wait(path, id, rest).await },
            );
            match asked.await {
                Err(problem @ ApiError::Unavailable { .. }) => {
                    match self.local.look_up_stored(id).await? {
                        Some(view) if view.state.is_final() => return Ok(view),
                        Some(view) if Instant::now() >= deadline => return Ok(view),
                        None if Instant::now() >= deadline => return Err(problem),
                        // Its shard may come back before patience ends.
                        _ => tokio::time::sleep(PAUSE).await,
                    }
                    self.local.served(path)?;
                }
                answer => return answer,
            }
        }
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let served = self.served(path).await?;
        self.list(&served, filter, after, limit.max(1)).await
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        let served = self.served(path).await?;
        match id {
            Some(id) => self.watch_one(served, id).await,
            None => self.watch_all(served).await,
        }
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path).await?;
        let shard = LocalNode::shard_of(&served, id)?;
        self.ask_owner(&served, shard, LONGEST_CHANGE, |owner| async move {
            owner.cancel(path, id).await
        })
        .await
    }

    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path).await?;
        let shard = LocalNode::shard_of(&served, id)?;
        self.ask_owner(&served, shard, LONGEST_CHANGE, |owner| async move {
            owner.retry(path, id).await
        })
        .await
    }

    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        let served = self.served(path).await?;
        self.flush(&served).await?;
        let all = (0..served.pipeline.partitions).map(Partition).collect();
        self.local.list_dead(&served, all, after, limit.max(1)).await
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path).await?;
        match which {
            DeadSelection::Ids(ids) => {
                self.flush(&served).await?;
                let mut items = Vec::new();
                for id in ids {
                    let shard = LocalNode::shard_of(&served, id)?;
                    let dead = self.inner.store.dead_task(id).await.map_err(error::of_store)?;
                    if dead.is_none() {
                        return Err(ApiError::not_found("dead letter", id));
                    }
                    items.push((shard.partition, id));
                }
                // One answer for each id, though a node answers with a sum.
                let asked = self.ask_owners(&served, items, LONGEST_CHANGE, |owner, ids| async move {
                    let count = ids.len();
                    let revived = owner.redrive(path, DeadSelection::Ids(ids)).await?;
                    let mut answers = vec![0; count];
                    if let Some(first) = answers.first_mut() {
                        *first = revived;
                    }
                    Ok(answers)
                });
                Ok(asked.await?.into_iter().sum())
            }
            DeadSelection::All => {
                let asked = self.ask_everybody(&served, LONGEST_CHANGE, |node| async move {
                    node.redrive(path, DeadSelection::All).await
                });
                Ok(asked.await?.into_iter().sum())
            }
        }
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path).await?;
        self.flush(&served).await?;
        let all = (0..served.pipeline.partitions).map(Partition).collect();
        self.local.purge_stored(&served, all, which).await
    }
}

/// Some of what was submitted together may be taken, so it is not to be mended and sent again as a whole.
fn of_some(problem: ApiError) -> ApiError {
    match problem {
        ApiError::Invalid { field, problem } => ApiError::Conflict(format!("{field}: {problem}")),
        problem => problem,
    }
}
