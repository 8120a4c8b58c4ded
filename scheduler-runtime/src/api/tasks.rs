//! Tasks: taken in, found, watched, changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use scheduler_core::id::{Offset, Partition, ShardId, TaskId};
use scheduler_core::key::KeyHash;
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

use super::{error, saved, view};
use crate::actor::{Mark, Message, Watched};
use crate::directory::Served;
use crate::node::Node;

/// Changes of one task that a watcher may be behind.
const WATCHED_TASK: usize = 16;
/// Changes of a pipeline's tasks that a watcher may be behind.
const WATCHED_PIPELINE: usize = 1_024;
/// Dead letters handled at once.
const DEAD_PAGE: usize = 200;
/// How often what a shard is to take in is read, because it saved something meanwhile.
const MOST_READS: usize = 20;

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
        // A task may be on its way from one place to the next: what is in none is looked for once more.
        for _ in 0..2 {
            let find = |reply| Message::Find(shard.partition, vec![id.offset], reply);
            let found = served
                .mailbox
                .ask(find)
                .await
                .and_then(|found| found.into_iter().next());
            let found = found.unwrap_or(Found::Ahead);
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

    /// Has a shard change tasks, and waits until that is saved. Nothing is done, and the answer is `Err` with the mark of now, if what the
    /// change stands on was read too early.
    async fn change_all(
        &self,
        served: &Served,
        shard: ShardId,
        inputs: Vec<Input>,
        read_at: Option<Mark>,
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
    async fn change(&self, served: &Served, shard: ShardId, input: Input) -> Result<Answer, ApiError> {
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
        let (mut mark, mut inputs, mut lowest) = (Mark::default(), Vec::new(), None);
        for _ in 0..=MOST_READS {
            match self.change_all(served, shard, inputs, Some(mark)).await? {
                Ok(answers) => return Ok((answers, lowest)),
                Err(now) => mark = now,
            }
            (inputs, lowest) = self.read_stored(shard, stored).await?;
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
    async fn change_anywhere(&self, served: &Served, id: TaskId, input: Input) -> Result<Answer, ApiError> {
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
    async fn revive(
        &self,
        served: &Served,
        shard: ShardId,
        which: Stored,
    ) -> Result<(u64, Option<Offset>), ApiError> {
        let (answers, lowest) = self.change_stored(served, shard, &which).await?;
        let revived = answers.iter().filter(|answer| **answer == Answer::Done);
        Ok((revived.count() as u64, lowest))
    }

    /// Tasks that run already for the keys of these: by the index of the task, the first one's id.
    async fn known_keys(&self, served: &Served, tasks: &[TaskSpec]) -> BTreeMap<usize, TaskId> {
        let mut asked: BTreeMap<Partition, Vec<(usize, KeyHash)>> = BTreeMap::new();
        for (index, task) in tasks.iter().enumerate() {
            if let Some(key) = key_of(task) {
                let partition = key.partition(served.pipeline.partitions);
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
}

/// What a shard is to take in from the store.
enum Stored {
    /// A parked task, to which something is to be done.
    Parked(TaskId, Input),
    /// These dead letters.
    Dead(Vec<Offset>),
    /// The highest dead letters below an offset, at most [`DEAD_PAGE`].
    DeadBelow(Offset),
}

fn key_of(task: &TaskSpec) -> Option<KeyHash> {
    let key = task.options.as_ref()?.idempotency_key.as_ref()?;
    Some(KeyHash::of(key))
}

/// The ids by the shards that they lie in.
fn by_shard(ids: &[TaskId]) -> BTreeMap<ShardId, Vec<Offset>> {
    let mut shards: BTreeMap<ShardId, Vec<Offset>> = BTreeMap::new();
    for id in ids {
        shards.entry(id.shard).or_default().push(id.offset);
    }
    shards
}

#[async_trait]
impl TaskApi for Node {
    async fn submit(&self, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Result<Vec<TaskId>, ApiError> {
        if self.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let served = self.served(path)?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
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
        if tasks.iter().all(|task| key_of(task).is_none()) {
            let turn = served.turn.fetch_add(1, Ordering::Relaxed) % partitions;
            return Ok(append(Partition(turn), tasks).await?.collect());
        }
        // Whoever submits a task again gets the one that it is already.
        let known = self.known_keys(&served, &tasks).await;
        // Each to the partition of its key; then the ids back into the order of the tasks.
        let mut parts: BTreeMap<Partition, (Vec<usize>, Vec<TaskSpec>)> = BTreeMap::new();
        for (index, task) in tasks.into_iter().enumerate() {
            if known.contains_key(&index) {
                continue;
            }
            let turn = || Partition(served.turn.fetch_add(1, Ordering::Relaxed) % partitions);
            let partition = key_of(&task).map_or_else(turn, |key| key.partition(partitions));
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

    async fn task(&self, path: &PipelinePath, id: TaskId) -> Result<TaskView, ApiError> {
        self.look_up(&*self.served(path)?, id).await
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
        Ok(view)
    }

    async fn tasks(
        &self,
        path: &PipelinePath,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        self.list(&*self.served(path)?, filter, after, limit.max(1)).await
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
        self.flush(&served).await?;
        self.list_dead(&served, after, limit.max(1)).await
    }

    async fn redrive(&self, path: &PipelinePath, which: DeadSelection) -> Result<u64, ApiError> {
        let served = self.served(path)?;
        self.flush(&served).await?;
        let mut revived = 0;
        match which {
            DeadSelection::Ids(ids) => {
                for id in &ids {
                    Self::shard_of(&served, *id)?;
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
                for partition in (0..served.pipeline.partitions).map(Partition) {
                    let shard = ShardId::new(served.pipeline.id, partition);
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
        let flush =
            |partition| self.change(served, ShardId::new(served.pipeline.id, partition), Input::Flush);
        let all = (0..served.pipeline.partitions).map(Partition).map(flush);
        futures::future::try_join_all(all).await.map(drop)
    }
}

/// One who watches a task.
struct Watching {
    node: Node,
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
