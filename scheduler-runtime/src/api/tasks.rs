//! Tasks: taken in, shown, watched, changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use scheduler_core::id::{Offset, Partition, ShardId, TaskId};
use scheduler_core::key::KeyHash;
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::gateway::{
    ApiError, DeadSelection, Page, PageCursor, TaskApi, TaskFilter, TaskState, TaskStream, TaskView, Waiting,
};
use scheduler_core::shard::{Answer, Input};
use scheduler_core::task::TaskSpec;
use scheduler_pipeline::{ParamError, Params};
use tokio::sync::mpsc;

use super::LocalNode;
use super::change::{DEAD_PAGE, Stored, by_shard};
use super::error;
use crate::actor::{Message, Watched};
use crate::directory::Served;

/// Changes of one task that a watcher may be behind.
const WATCHED_TASK: usize = 16;
/// Changes of a pipeline's tasks that a watcher may be behind.
const WATCHED_PIPELINE: usize = 1_024;

impl LocalNode {
    /// Tasks that run already for the keys of these: by the index of the task, the first one's id.
    async fn known_keys(&self, served: &Served, tasks: &[TaskSpec]) -> BTreeMap<usize, TaskId> {
        let mut asked: BTreeMap<Partition, Vec<(usize, KeyHash)>> = BTreeMap::new();
        for (index, task) in tasks.iter().enumerate() {
            if let Some(key) = key_of(task) {
                let partition = served.pipeline.partition_of(key);
                asked.entry(partition).or_default().push((index, key));
            }
        }
        let mut known = BTreeMap::new();
        for (partition, keys) in asked {
            let shard = ShardId::new(served.pipeline.id, partition);
            let hashes = keys.iter().map(|(_, key)| *key).collect();
            let found = served
                .mailbox
                .ask(|reply| Message::FindKeys(partition, hashes, reply))
                .await;
            for ((index, _), offset) in keys.into_iter().zip(found.unwrap_or_default()) {
                known.extend(offset.map(|offset| (index, shard.task(offset))));
            }
        }
        known
    }

    /// Whether tasks can be taken in.
    pub(crate) fn check_all(&self, served: &Served, tasks: &[TaskSpec]) -> Result<(), ApiError> {
        if tasks.len() > self.inner.config.max_batch {
            let problem = format!(
                "has {} tasks; at most {} are taken at once",
                tasks.len(),
                self.inner.config.max_batch
            );
            return Err(ApiError::invalid("tasks", problem));
        }
        for (index, task) in tasks.iter().enumerate() {
            self.check(served, task).map_err(|(field, problem)| {
                ApiError::invalid(
                    if tasks.len() > 1 {
                        format!("[{index}].{field}")
                    } else {
                        field
                    },
                    problem,
                )
            })?;
        }
        Ok(())
    }

    fn check(&self, served: &Served, task: &TaskSpec) -> Result<(), (String, String)> {
        let limit = self.inner.config.max_params;
        if task.params.len() > limit {
            let problem = format!("has {} bytes; at most {limit} are taken", task.params.len());
            return Err(("params".into(), problem));
        }
        let Some(definition) = &served.definition else {
            return Ok(());
        };
        let check =
            || -> Result<(), ParamError> { definition.check(Params::from_json(&task.params)?).map(drop) };
        check().map_err(|problem| {
            let field = problem
                .param()
                .map_or("params".into(), |param| format!("params.{param}"));
            (field, problem.to_string())
        })
    }

    /// Takes in tasks that are as they should be, also those whose keys another node knows: then their shard finds out what is a duplicate.
    pub(crate) async fn take(&self, served: &Served, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let (partitions, pipeline) = (served.pipeline.partitions.max(1), served.pipeline.id);
        let append = async |partition, tasks| {
            let shard = ShardId::new(pipeline, partition);
            let offsets = self.inner.log.append(shard, tasks).await.map_err(error::of_log)?;
            Ok::<_, ApiError>(offsets.into_iter().map(move |offset| shard.task(offset)))
        };
        if tasks.iter().all(|task| key_of(task).is_none()) {
            let turn = served.turn.fetch_add(1, Ordering::Relaxed) % partitions;
            return Ok(append(Partition(turn), tasks).await?.collect());
        }
        // Whoever submits a task again gets the one that it is already.
        let known = self.known_keys(served, &tasks).await;
        // Each to the partition of its key; then the ids back into the order of the tasks.
        let mut parts: BTreeMap<Partition, (Vec<usize>, Vec<TaskSpec>)> = BTreeMap::new();
        for (index, task) in tasks.into_iter().enumerate() {
            if known.contains_key(&index) {
                continue;
            }
            let turn = || Partition(served.turn.fetch_add(1, Ordering::Relaxed) % partitions);
            let partition = key_of(&task).map_or_else(turn, |key| served.pipeline.partition_of(key));
            let part = parts.entry(partition).or_default();
            part.0.push(index);
            part.1.push(task);
        }
        let append = async |(partition, (places, tasks)): (Partition, (Vec<usize>, Vec<TaskSpec>))| {
            let ids = append(partition, tasks).await.map_err(|problem| match problem {
                // Others may have been taken, so this is not to be mended and sent again as a whole.
                ApiError::Invalid { field, problem } => ApiError::Conflict(format!("{field}: {problem}")),
                problem => problem,
            })?;
            Ok::<_, ApiError>(places.into_iter().zip(ids))
        };
        // Together, so that one sync of the log may serve all of them.
        let parts = futures::future::try_join_all(parts.into_iter().map(append)).await?;
        let mut ids: Vec<(usize, TaskId)> = parts.into_iter().flatten().chain(known).collect();
        ids.sort_unstable_by_key(|(place, _)| *place);
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }

    /// The partitions of the pipeline that live here, in order.
    pub(super) fn partitions_here(&self, served: &Served) -> Vec<Partition> {
        self.shards_here(served)
            .into_iter()
            .map(|shard| shard.partition)
            .collect()
    }
}

pub(crate) fn key_of(task: &TaskSpec) -> Option<KeyHash> {
    let key = task.options.as_ref()?.idempotency_key.as_ref()?;
    Some(KeyHash::of(key))
}

#[async_trait]
impl TaskApi for LocalNode {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        if self.inner.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let served = self.served(path)?;
        self.check_all(&served, &tasks)?;
        for key in tasks.iter().filter_map(key_of) {
            let partition = served.pipeline.partition_of(key);
            self.check_here(ShardId::new(served.pipeline.id, partition))?;
        }
        self.take(&served, tasks).await
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path)?;
        self.check_here(Self::shard_of(&served, id)?)?;
        let mut view = self.look_up(&served, id).await?;
        view.waiting = match view.state {
            // It may be in the store, of which its shard knows nothing.
            TaskState::Delayed => Some(Waiting::NotDue),
            TaskState::Queued => {
                let explain = |reply| Message::Explain(id.shard.partition, id.offset, reply);
                served.mailbox.ask(explain).await.flatten()
            }
            _ => None,
        };
        Ok(view)
    }

    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        let end = async {
            loop {
                // A stream that ends before its task does has lost its shard, or fell behind: look again.
                let mut changes = self.watch(path, Some(id)).await?;
                while let Some(view) = changes.next().await {
                    if view.state.is_final() {
                        return Ok::<_, ApiError>(view);
                    }
                }
            }
        };
        let Ok(ended) = tokio::time::timeout(patience, end).await else {
            return self.task(path, id).await;
        };
        let view = ended?;
        // Whoever is told how a task ended may build on it: it is saved before it is said.
        let served = self.served(path)?;
        let shard = Self::shard_of(&served, id)?;
        self.change(&served, shard, Input::Flush).await?;
        self.check_here(shard)?;
        Ok(view)
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let served = self.served(path)?;
        let partitions = match filter.partition {
            Some(partition) if partition.0 >= served.pipeline.partitions => Vec::new(),
            Some(partition) => {
                self.check_here(ShardId::new(served.pipeline.id, partition))?;
                vec![partition]
            }
            None => self.partitions_here(&served),
        };
        self.list(&served, partitions, filter, after, limit.max(1)).await
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
        if self.served(path).is_err() {
            // It may have been made on another node just now, and nothing of it is to be missed here.
            self.inner.look_again().await;
        }
        let served = self.served(path)?;
        let gone = || error::unavailable("the pipeline is going away");
        let Some(id) = id else {
            let (send, receive) = mpsc::channel(WATCHED_PIPELINE);
            served
                .mailbox
                .tell(Message::Watch(None, send))
                .await
                .then_some(())
                .ok_or_else(gone)?;
            let views = futures::stream::unfold(receive, async |mut receive| {
                loop {
                    if let Watched::Now(view) = receive.recv().await? {
                        return Some((*view, receive));
                    }
                }
            });
            return Ok(Box::pin(views));
        };
        let shard = Self::shard_of(&served, id)?;
        self.check_here(shard)?;
        let now = self.look_up(&served, id).await?;
        if now.state.is_final() {
            return Ok(Box::pin(futures::stream::iter([now])));
        }
        let (send, receive) = mpsc::channel(WATCHED_TASK);
        let what = Some((shard.partition, id.offset));
        served
            .mailbox
            .tell(Message::Watch(what, send))
            .await
            .then_some(())
            .ok_or_else(gone)?;
        // The shard says how the task is as it takes the watcher in, so nothing is missed in between.
        let watching = Watching {
            node: self.clone(),
            served,
            id,
            receive,
            last: None,
        };
        let changes = futures::stream::unfold(watching, async |mut watching| {
            let view = watching.next().await?;
            Some((view, watching))
        });
        let first = futures::stream::iter([now.clone()]);
        let changes = changes.filter(move |view| futures::future::ready(*view != now));
        Ok(Box::pin(first.chain(changes)))
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path)?;
        self.check_here(Self::shard_of(&served, id)?)?;
        match self
            .change_anywhere(&served, id, Input::Cancel(id.offset))
            .await?
        {
            Answer::Done => self.look_up(&served, id).await,
            Answer::Late | Answer::Elsewhere | Answer::Full => {
                let view = self.look_up(&served, id).await?;
                match view.state {
                    TaskState::Cancelled => Ok(view),
                    state if state.is_final() => Err(ApiError::Conflict(format!(
                        "task {id} has ended already; only a live task can be cancelled"
                    ))),
                    _ => Err(error::unavailable(format!("task {id} is not loaded yet"))),
                }
            }
        }
    }

    async fn retry(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path)?;
        let shard = Self::shard_of(&served, id)?;
        self.check_here(shard)?;
        let view = self.look_up(&served, id).await?;
        match view.state {
            TaskState::Delayed => {
                self.change_anywhere(&served, id, Input::Hasten(id.offset))
                    .await?;
            }
            TaskState::Dead => {
                // It may be dead in memory only; the store has it with the next checkpoint.
                self.change(&served, shard, Input::Flush).await?;
                let is_dead = self.look_up(&served, id).await?.state == TaskState::Dead;
                let (revived, _) = self.revive(&served, shard, Stored::Dead(vec![id.offset])).await?;
                if revived == 0 && is_dead {
                    let problem =
                        format!("task {id} is not a task that can run: its record could not be read");
                    return Err(ApiError::Conflict(problem));
                }
            }
            TaskState::Queued | TaskState::Running => {
                return Err(ApiError::Conflict(format!(
                    "task {id} is queued or running already"
                )));
            }
            TaskState::Succeeded | TaskState::Cancelled | TaskState::Expired => {
                let problem = format!("task {id} has ended for good; submit a new one to run it again");
                return Err(ApiError::Conflict(problem));
            }
        }
        self.look_up(&served, id).await
    }

    async fn dead(
        &self,
        path: &PipelinePath,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        let served = self.served(path)?;
        self.flush_here(&served).await?;
        let here = self.partitions_here(&served);
        self.list_dead(&served, here, after, limit.max(1)).await
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path)?;
        self.flush_here(&served).await?;
        let mut revived = 0;
        match which {
            DeadSelection::Ids(ids) => {
                for id in &ids {
                    self.check_here(Self::shard_of(&served, *id)?)?;
                    let dead = self.inner.store.dead_task(*id).await.map_err(error::of_store)?;
                    if dead.is_none() {
                        return Err(ApiError::not_found("dead letter", id));
                    }
                }
                for (shard, offsets) in by_shard(&ids) {
                    for page in offsets.chunks(DEAD_PAGE) {
                        revived += self.revive(&served, shard, Stored::Dead(page.to_vec())).await?.0;
                    }
                }
            }
            DeadSelection::All => {
                for shard in self.shards_here(&served) {
                    // Downwards from the highest, so that what dies again meanwhile is not met a second time.
                    let mut before = Some(Offset(u64::MAX));
                    while let Some(below) = before {
                        let (count, lowest) = self.revive(&served, shard, Stored::DeadBelow(below)).await?;
                        revived += count;
                        before = lowest;
                    }
                }
            }
        }
        Ok(revived)
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path)?;
        self.flush_here(&served).await?;
        let here = self.partitions_here(&served);
        self.purge_stored(&served, here, which).await
    }
}

impl LocalNode {
    /// Deletes dead letters of the store; all of them are of these partitions.
    pub(crate) async fn purge_stored(
        &self,
        served: &Served,
        partitions: Vec<Partition>,
        which: DeadSelection,
    ) -> Result<u64, ApiError> {
        let mut purged = 0;
        match which {
            DeadSelection::Ids(ids) => {
                for id in &ids {
                    Self::shard_of(served, *id)?;
                }
                purged += self.inner.store.purge(&ids).await.map_err(error::of_store)?;
            }
            DeadSelection::All => {
                for partition in partitions {
                    let shard = ShardId::new(served.pipeline.id, partition);
                    let mut before = Offset(u64::MAX);
                    loop {
                        let dead = self
                            .inner
                            .store
                            .dead_tasks(shard, before, DEAD_PAGE)
                            .await
                            .map_err(error::of_store)?;
                        let Some(last) = dead.last() else { break };
                        before = last.offset;
                        let ids: Vec<TaskId> = dead.iter().map(|task| shard.task(task.offset)).collect();
                        purged += self.inner.store.purge(&ids).await.map_err(error::of_store)?;
                    }
                }
            }
        }
        Ok(purged)
    }
}

/// One who watches a task.
struct Watching {
    node: LocalNode,
    served: Arc<Served>,
    id: TaskId,
    receive: mpsc::Receiver<Watched>,
    last: Option<TaskView>,
}

impl Watching {
    /// How the task is once it is different; `None` after its end, or when the watch is over.
    async fn next(&mut self) -> Option<TaskView> {
        loop {
            if self.last.as_ref().is_some_and(|last| last.state.is_final()) {
                return None;
            }
            let view = match self.receive.recv().await? {
                Watched::Now(view) => *view,
                Watched::LookElsewhere => self.node.look_up(&self.served, self.id).await.ok()?,
            };
            if self.last.as_ref() != Some(&view) {
                self.last = Some(view.clone());
                return Some(view);
            }
        }
    }
}
