//! Tasks: taken in, found, watched, changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use scheduler_core::id::{Offset, Partition, ShardId, TaskId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::{DeadReason, DeadTask};
use scheduler_core::port::gateway::{
    ApiError, DeadSelection, Page, PageCursor, TaskApi, TaskFilter, TaskState, TaskStream, TaskView,
};
use scheduler_core::port::log::{LogError, ReadLimit};
use scheduler_core::shard::{Answer, Found, Input};
use scheduler_core::task::TaskSpec;
use scheduler_pipeline::{ParamError, Params};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{error, view};
use crate::actor::{Message, Watched};
use crate::directory::Served;
use crate::node::Node;

/// Changes of one task that a watcher may be behind.
const WATCHED_TASK: usize = 16;
/// Changes of a pipeline's tasks that a watcher may be behind.
const WATCHED_PIPELINE: usize = 1_024;
/// Dead letters handled at once.
const DEAD_PAGE: usize = 500;

impl Node {
    /// The pipeline of a path, if it takes requests.
    pub(crate) fn served(&self, path: &PipelinePath) -> Result<Arc<Served>, ApiError> {
        let served = self
            .inner
            .directory
            .pipeline(path)
            .filter(|served| !served.pipeline.deleting);
        let name = || format!("{} in application {}", path.pipeline, path.application);
        served.ok_or_else(|| ApiError::not_found("pipeline", name()))
    }

    /// The shard of a task, which must be one of the pipeline.
    fn shard_of(served: &Served, id: TaskId) -> Result<ShardId, ApiError> {
        let pipeline = &served.pipeline;
        let is_ours = id.shard.pipeline == pipeline.id && id.shard.partition.0 < pipeline.partitions;
        if is_ours {
            Ok(id.shard)
        } else {
            Err(ApiError::not_found("task", id))
        }
    }

    /// The task wherever it is: in its shard, in the store, or in the log.
    async fn look_up(&self, served: &Served, id: TaskId) -> Result<TaskView, ApiError> {
        let shard = Self::shard_of(served, id)?;
        let find = |reply| Message::Find(shard.partition, id.offset, reply);
        // A task may be on its way from one place to the next: what is in none is looked for once more.
        for _ in 0..2 {
            let found = served.mailbox.ask(find).await.unwrap_or(Found::Ahead);
            let is_ahead = found == Found::Ahead;
            if let Some(view) = view::of_found(shard, found) {
                return Ok(view);
            }
            if let Some(view) = self.look_up_stored(id).await? {
                return Ok(view);
            }
            if is_ahead && let Some(view) = self.look_up_logged(id).await? {
                return Ok(view);
            }
        }
        Err(ApiError::not_found(
            "task",
            format!("{id}; it never was, or its result has expired"),
        ))
    }

    async fn look_up_stored(&self, id: TaskId) -> Result<Option<TaskView>, ApiError> {
        let store = &self.inner.store;
        if let Some(task) = store.result(id).await.map_err(error::of_store)? {
            return Ok(Some(view::of_finished(id.shard, task)));
        }
        if let Some(task) = store.dead_task(id).await.map_err(error::of_store)? {
            return Ok(Some(view::of_dead(id.shard, task)));
        }
        let parked = store.parked_task(id).await.map_err(error::of_store)?;
        Ok(parked.map(|task| view::of_parked(id.shard, task)))
    }

    async fn look_up_logged(&self, id: TaskId) -> Result<Option<TaskView>, ApiError> {
        let bounds = self.inner.log.bounds(id.shard).await.map_err(error::of_log)?;
        if !(bounds.start..bounds.end).contains(&id.offset) {
            return Ok(None);
        }
        let mut records = Vec::new();
        let read = async {
            let mut reader = self.inner.log.read(id.shard, id.offset).await?;
            reader
                .next(ReadLimit { records: 1, bytes: 1 }, &mut records)
                .await
        };
        match read.await {
            Ok(()) => (),
            Err(LogError::Truncated { .. }) => return Ok(None),
            Err(problem) => return Err(error::of_log(problem)),
        }
        let record = records
            .into_iter()
            .next()
            .filter(|record| record.offset == id.offset);
        Ok(record.map(|record| view::of_record(id.shard, record)))
    }

    /// Has a shard change a task, and waits until the change is saved.
    async fn change(&self, served: &Served, shard: ShardId, input: Input) -> Result<Answer, ApiError> {
        let gone = || error::unavailable("the task's shard is moving to another node");
        let change = |reply| Message::Change(shard.partition, input, reply);
        let (answer, durable) = served.mailbox.ask(change).await.ok_or_else(gone)?;
        if answer == Answer::Full {
            return Err(ApiError::Overloaded {
                problem: "the pipeline has as many live tasks as its window holds; some of what was asked may be done".into(),
                retry_after: Duration::from_secs(2),
            });
        }
        if let Some(durable) = durable {
            durable.await.map_err(|_| gone())?;
        }
        Ok(answer)
    }

    /// Has a shard change a task that may be parked.
    async fn change_anywhere(&self, served: &Served, id: TaskId, input: Input) -> Result<Answer, ApiError> {
        let shard = Self::shard_of(served, id)?;
        let answer = self.change(served, shard, input.clone()).await?;
        if answer != Answer::Elsewhere {
            return Ok(answer);
        }
        let Some(parked) = self.inner.store.parked_task(id).await.map_err(error::of_store)? else {
            return Ok(Answer::Elsewhere);
        };
        self.change(served, shard, Input::Fetch(parked)).await?;
        self.change(served, shard, input).await
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

    /// Brings dead letters of one shard back to life; answers how many.
    async fn revive(&self, served: &Served, shard: ShardId, tasks: Vec<DeadTask>) -> Result<u64, ApiError> {
        // Together, so that one checkpoint covers many.
        let can_run = tasks
            .into_iter()
            .filter(|task| task.reason != DeadReason::Undecodable);
        let changes = can_run.map(|task| self.change(served, shard, Input::Revive(task)));
        let changes = futures::stream::iter(changes).buffer_unordered(DEAD_PAGE);
        changes
            .try_fold(0, async |sum, answer| Ok(sum + u64::from(answer == Answer::Done)))
            .await
    }
}

/// Where the tasks of a key lie: always in the same partition, so that its limits need no one else.
fn partition_of(key: &[u8], partitions: u32) -> Partition {
    // FNV-1a: the place must be the same on every node and in every version.
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Partition(u32::try_from(hash % u64::from(partitions.max(1))).unwrap_or_default())
}

#[async_trait]
impl TaskApi for Node {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        if self.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let served = self.served(path)?;
        if tasks.len() > self.inner.config.max_batch {
            let problem = format!(
                "has {} tasks; at most {} are taken at once",
                tasks.len(),
                self.inner.config.max_batch
            );
            return Err(ApiError::invalid("tasks", problem));
        }
        for (index, task) in tasks.iter().enumerate() {
            self.check(&served, task).map_err(|(field, problem)| {
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
        let (partitions, pipeline) = (served.pipeline.partitions.max(1), served.pipeline.id);
        let append = async |partition, tasks| {
            let shard = ShardId::new(pipeline, partition);
            let offsets = self.inner.log.append(shard, tasks).await.map_err(error::of_log)?;
            Ok::<_, ApiError>(offsets.into_iter().map(move |offset| shard.task(offset)))
        };
        let keyed = |task: &TaskSpec| task.options.as_ref()?.fairness_key.clone();
        if partitions == 1 || tasks.iter().all(|task| keyed(task).is_none()) {
            let turn = served.turn.fetch_add(1, Ordering::Relaxed) % partitions;
            return Ok(append(Partition(turn), tasks).await?.collect());
        }
        // Each to the partition of its key; then the ids back into the order of the tasks.
        let mut parts: BTreeMap<Partition, (Vec<usize>, Vec<TaskSpec>)> = BTreeMap::new();
        for (index, task) in tasks.into_iter().enumerate() {
            let turn = || Partition(served.turn.fetch_add(1, Ordering::Relaxed) % partitions);
            let partition = keyed(&task).map_or_else(turn, |key| partition_of(&key, partitions));
            let part = parts.entry(partition).or_default();
            part.0.push(index);
            part.1.push(task);
        }
        let mut ids = Vec::new();
        for (partition, (places, tasks)) in parts {
            ids.extend(places.into_iter().zip(append(partition, tasks).await?));
        }
        ids.sort_unstable_by_key(|(place, _)| *place);
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.look_up(&*self.served(path)?, id).await
    }

    async fn wait(&self, path: &PipelinePath, id: TaskId, patience: Duration) -> Result<TaskView, ApiError> {
        let mut changes = self.watch(path, Some(id)).await?;
        let end = async {
            while let Some(view) = changes.next().await {
                if view.state.is_final() {
                    return Some(view);
                }
            }
            None
        };
        match tokio::time::timeout(patience, end).await {
            Ok(Some(view)) => {
                // Whoever is told how a task ended may build on it: it is saved before it is said.
                let served = self.served(path)?;
                let shard = Self::shard_of(&served, id)?;
                self.change(&served, shard, Input::Flush).await?;
                Ok(view)
            }
            Ok(None) | Err(_) => self.task(path, id).await,
        }
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        self.list(&*self.served(path)?, filter, after, limit).await
    }

    async fn watch(&self, path: &PipelinePath, id: Option<TaskId>) -> Result<TaskStream, ApiError> {
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
            let views = ReceiverStream::new(receive).filter_map(async |watched| match watched {
                Watched::Now(view) => Some(*view),
                Watched::LookElsewhere => None,
            });
            return Ok(Box::pin(views));
        };
        let shard = Self::shard_of(&served, id)?;
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
        let node = self.clone();
        let changes = ReceiverStream::new(receive).filter_map(move |watched| {
            let (node, served) = (node.clone(), served.clone());
            async move {
                match watched {
                    Watched::Now(view) => Some(*view),
                    Watched::LookElsewhere => node.look_up(&served, id).await.ok(),
                }
            }
        });
        // The shard says how the task is as it takes the watcher in, so nothing is missed in between.
        let changes = futures::stream::iter([now]).chain(changes);
        let mut last = None;
        let changes = changes.filter(move |view| {
            let is_new = last.as_ref() != Some(view);
            last = Some(view.clone());
            futures::future::ready(is_new)
        });
        let mut ended = false;
        Ok(Box::pin(changes.take_while(move |view| {
            let goes_on = !ended;
            ended = view.state.is_final();
            futures::future::ready(goes_on)
        })))
    }

    async fn cancel(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        let served = self.served(path)?;
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
        let view = self.look_up(&served, id).await?;
        match view.state {
            TaskState::Delayed => {
                self.change_anywhere(&served, id, Input::Hasten(id.offset))
                    .await?;
            }
            TaskState::Dead => {
                // It may be dead in memory only; the store has it with the next checkpoint.
                self.change(&served, shard, Input::Flush).await?;
                let dead = self.inner.store.dead_task(id).await.map_err(error::of_store)?;
                let dead = dead.ok_or_else(|| ApiError::not_found("dead letter", id))?;
                if self.revive(&served, shard, vec![dead]).await? == 0 {
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
        self.flush(&served).await?;
        self.list_dead(&served, after, limit).await
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path)?;
        self.flush(&served).await?;
        let mut revived = 0;
        match which {
            DeadSelection::Ids(ids) => {
                for id in ids {
                    let shard = Self::shard_of(&served, id)?;
                    let dead = self.inner.store.dead_task(id).await.map_err(error::of_store)?;
                    let dead = dead.ok_or_else(|| ApiError::not_found("dead letter", id))?;
                    revived += self.revive(&served, shard, vec![dead]).await?;
                }
            }
            DeadSelection::All => {
                for partition in (0..served.pipeline.partitions).map(Partition) {
                    let shard = ShardId::new(served.pipeline.id, partition);
                    // Downwards from the highest, so that what dies again meanwhile is not met a second time.
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
                        revived += self.revive(&served, shard, dead).await?;
                    }
                }
            }
        }
        Ok(revived)
    }

    async fn purge(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path)?;
        self.flush(&served).await?;
        let mut purged = 0;
        match which {
            DeadSelection::Ids(ids) => {
                for id in &ids {
                    Self::shard_of(&served, *id)?;
                }
                purged += self.inner.store.purge(&ids).await.map_err(error::of_store)?;
            }
            DeadSelection::All => {
                for partition in (0..served.pipeline.partitions).map(Partition) {
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

impl Node {
    /// Has everything about the pipeline saved.
    pub(super) async fn flush(&self, served: &Served) -> Result<(), ApiError> {
        for partition in (0..served.pipeline.partitions).map(Partition) {
            self.change(served, ShardId::new(served.pipeline.id, partition), Input::Flush)
                .await?;
        }
        Ok(())
    }
}
