//! Where a task is: in its shard, in the store, or in the log.

use std::sync::Arc;

use scheduler_core::id::{ShardId, TaskId};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{ApiError, TaskView};
use scheduler_core::port::log::{LogError, ReadLimit};
use scheduler_core::shard::Found;

use super::LocalNode;
use super::{error, view};
use crate::actor::Message;
use crate::directory::Served;

impl LocalNode {
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
    pub(crate) fn shard_of(served: &Served, id: TaskId) -> Result<ShardId, ApiError> {
        let pipeline = &served.pipeline;
        let is_ours = id.shard.pipeline == pipeline.id && id.shard.partition.0 < pipeline.partitions;
        if is_ours {
            Ok(id.shard)
        } else {
            let name = format!("{id} in pipeline {}", pipeline.path.pipeline);
            Err(ApiError::not_found("task", name))
        }
    }

    /// The task wherever it is: in its shard, in the store, or in the log.
    pub(crate) async fn look_up(&self, served: &Served, id: TaskId) -> Result<TaskView, ApiError> {
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

    pub(crate) async fn look_up_stored(&self, id: TaskId) -> Result<Option<TaskView>, ApiError> {
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
}
