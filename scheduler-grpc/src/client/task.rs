//! Submitting and following tasks.

use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::api as wire;
use tonic::Streaming;

use super::{Client, ClientError, ListTasksResponse, PipelineRef, Task, TaskState};

/// The longest that one request waits; longer patience is several requests.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// A task to submit. Everything but the params may be left as it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct NewTask(pub(super) wire::NewTask);

impl NewTask {
    /// A task with these params, JSON by convention; the worker gets the bytes as they are.
    pub fn json(params: impl Into<Bytes>) -> Self {
        Self(wire::NewTask {
            params: params.into(),
            ..wire::NewTask::default()
        })
    }

    /// 0 (last) to 9 (first) instead of 4.
    pub fn priority(mut self, level: u32) -> Self {
        self.0.priority = Some(level);
        self
    }

    /// Not to be started before this moment, in milliseconds since the Unix epoch.
    pub fn not_before_ms(mut self, millis: u64) -> Self {
        self.0.not_before_ms = Some(millis);
        self
    }

    /// Expires when it has not ended by this moment, in milliseconds since the Unix epoch.
    pub fn deadline_ms(mut self, millis: u64) -> Self {
        self.0.deadline_ms = Some(millis);
        self
    }

    /// Tasks of one key are one task: makes it safe to submit again when it is not known whether the first time worked.
    pub fn idempotency_key(mut self, key: impl Into<Bytes>) -> Self {
        self.0.idempotency_key = key.into();
        self
    }

    /// The W3C trace context that it belongs to.
    pub fn traceparent(mut self, traceparent: impl Into<Bytes>) -> Self {
        self.0.traceparent = traceparent.into();
        self
    }
}

/// Which tasks to list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskQuery {
    /// In one of these states; in any if empty.
    pub states: Vec<TaskState>,
    /// From the last answer's `next_cursor`; empty for the first page.
    pub cursor: String,
    /// Most tasks of the page, up to 1,000; 0 for 100.
    pub limit: u32,
}

/// Which dead letters are meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeadLetters {
    /// These, at most 10,000.
    Ids(Vec<String>),
    /// All that there are now.
    All,
}

impl DeadLetters {
    fn of(self, pipeline: &PipelineRef) -> wire::DeadLetterSelection {
        let (ids, all) = match self {
            Self::Ids(ids) => (ids, false),
            Self::All => (Vec::new(), true),
        };
        wire::DeadLetterSelection {
            application: pipeline.application.clone(),
            pipeline: pipeline.pipeline.clone(),
            ids,
            all,
        }
    }
}

/// What happens to tasks, as it happens.
#[derive(Debug)]
pub struct TaskEvents(Streaming<Task>);

impl TaskEvents {
    /// Waits for the next change; `None` when there will be no more: the pipeline is gone, or the node stops.
    ///
    /// # Errors
    ///
    /// The connection broke; what happened since is not known.
    pub async fn next(&mut self) -> Result<Option<Task>, ClientError> {
        Ok(self.0.message().await?)
    }
}

/// Whether a task stays so for good, unless a dead letter is redriven.
pub const fn is_final(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Succeeded | TaskState::Dead | TaskState::Cancelled | TaskState::Expired
    )
}

fn task_ref(pipeline: &PipelineRef, id: &str) -> wire::TaskRef {
    wire::TaskRef {
        application: pipeline.application.clone(),
        pipeline: pipeline.pipeline.clone(),
        id: id.to_owned(),
    }
}

impl Client {
    /// Submits a task; its id when it is durable.
    ///
    /// # Errors
    ///
    /// The task is refused, or it is not known whether it was taken.
    pub async fn submit(&self, pipeline: &PipelineRef, task: NewTask) -> Result<String, ClientError> {
        let mut ids = self.submit_batch(pipeline, vec![task]).await?;
        ids.pop()
            .ok_or_else(|| ClientError::new(tonic::Code::Internal, "the server gave no id for the task"))
    }

    /// Submits up to 10,000 tasks; their ids, in order, when they are durable.
    ///
    /// # Errors
    ///
    /// A task is refused, or something failed: some of them may have been taken.
    pub async fn submit_batch(
        &self,
        pipeline: &PipelineRef,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<String>, ClientError> {
        let request = self.request(wire::SubmitRequest {
            application: pipeline.application.clone(),
            pipeline: pipeline.pipeline.clone(),
            tasks: tasks.into_iter().map(|task| task.0).collect(),
        });
        Ok(self.tasks().submit(request).await?.into_inner().ids)
    }

    /// A task as it is now.
    ///
    /// # Errors
    ///
    /// There is no such task.
    pub async fn task(&self, pipeline: &PipelineRef, id: &str) -> Result<Task, ClientError> {
        let request = self.request(wire::GetTaskRequest {
            task: Some(task_ref(pipeline, id)),
            wait_ms: 0,
        });
        Ok(self.tasks().get_task(request).await?.into_inner())
    }

    /// A task once it has ended, or as it is when `patience` is over.
    ///
    /// # Errors
    ///
    /// There is no such task.
    pub async fn wait(
        &self,
        pipeline: &PipelineRef,
        id: &str,
        patience: Duration,
    ) -> Result<Task, ClientError> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let wait = end
                .saturating_duration_since(tokio::time::Instant::now())
                .min(MAX_WAIT);
            let mut request = self.stream_request(wire::GetTaskRequest {
                task: Some(task_ref(pipeline, id)),
                wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            });
            request.set_timeout(self.config.deadline + wait);
            let task = self.tasks().get_task(request).await?.into_inner();
            if is_final(task.state()) || tokio::time::Instant::now() >= end {
                return Ok(task);
            }
        }
    }

    /// A page of tasks, by partition and then the newest first.
    ///
    /// # Errors
    ///
    /// There is no such pipeline, or the query is malformed.
    pub async fn list(
        &self,
        pipeline: &PipelineRef,
        query: TaskQuery,
    ) -> Result<ListTasksResponse, ClientError> {
        let request = self.request(wire::ListTasksRequest {
            application: pipeline.application.clone(),
            pipeline: pipeline.pipeline.clone(),
            states: query.states.into_iter().map(i32::from).collect(),
            cursor: query.cursor,
            limit: query.limit,
        });
        Ok(self.tasks().list_tasks(request).await?.into_inner())
    }

    /// What happens from now on to a task, beginning with how it is, or without `id` to every task of the pipeline.
    ///
    /// # Errors
    ///
    /// There is no such task or pipeline.
    pub async fn watch(&self, pipeline: &PipelineRef, id: Option<&str>) -> Result<TaskEvents, ClientError> {
        let request = self.stream_request(wire::WatchTasksRequest {
            application: pipeline.application.clone(),
            pipeline: pipeline.pipeline.clone(),
            id: id.unwrap_or_default().to_owned(),
        });
        Ok(TaskEvents(self.tasks().watch_tasks(request).await?.into_inner()))
    }

    /// Cancels a task that has not ended; how it is then.
    ///
    /// # Errors
    ///
    /// There is no such task.
    pub async fn cancel(&self, pipeline: &PipelineRef, id: &str) -> Result<Task, ClientError> {
        let request = self.request(task_ref(pipeline, id));
        Ok(self.tasks().cancel_task(request).await?.into_inner())
    }

    /// Makes a delayed task ready now, or a dead one live again with fresh attempts.
    ///
    /// # Errors
    ///
    /// There is no such task, or it is neither.
    pub async fn retry(&self, pipeline: &PipelineRef, id: &str) -> Result<Task, ClientError> {
        let request = self.request(task_ref(pipeline, id));
        Ok(self.tasks().retry_task(request).await?.into_inner())
    }

    /// A page of dead letters; `query.states` is of no use here.
    ///
    /// # Errors
    ///
    /// There is no such pipeline, or the query is malformed.
    pub async fn dead_letters(
        &self,
        pipeline: &PipelineRef,
        query: TaskQuery,
    ) -> Result<ListTasksResponse, ClientError> {
        let request = self.request(wire::ListDeadLettersRequest {
            application: pipeline.application.clone(),
            pipeline: pipeline.pipeline.clone(),
            cursor: query.cursor,
            limit: query.limit,
        });
        let page = self.tasks().list_dead_letters(request).await?.into_inner();
        Ok(ListTasksResponse {
            tasks: page.tasks,
            next_cursor: page.next_cursor,
        })
    }

    /// Makes dead letters live again; how many.
    ///
    /// # Errors
    ///
    /// There is no such pipeline, or one of the ids is none.
    pub async fn redrive(&self, pipeline: &PipelineRef, which: DeadLetters) -> Result<u64, ClientError> {
        let request = self.request(which.of(pipeline));
        Ok(self
            .tasks()
            .redrive_dead_letters(request)
            .await?
            .into_inner()
            .count)
    }

    /// Deletes dead letters for good; how many.
    ///
    /// # Errors
    ///
    /// There is no such pipeline, or one of the ids is none.
    pub async fn purge(&self, pipeline: &PipelineRef, which: DeadLetters) -> Result<u64, ClientError> {
        let request = self.request(which.of(pipeline));
        Ok(self.tasks().purge_dead_letters(request).await?.into_inner().count)
    }
}
