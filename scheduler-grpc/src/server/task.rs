//! `TaskService`.

use futures::stream::{BoxStream, StreamExt as _};
use scheduler_core::id::TaskId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{ApiError, TaskFilter};
use scheduler_proto::api as wire;
use scheduler_proto::api::task_service_server::TaskService;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, Node};
use super::convert::task as convert;
use super::status::from_api;

#[derive(Debug)]
pub(crate) struct TaskRpc {
    node: Node,
}

impl TaskRpc {
    pub(crate) fn new(node: Node) -> Self {
        Self { node }
    }

    async fn task_of(
        &self,
        metadata: &MetadataMap,
        task: &wire::TaskRef,
    ) -> Result<(Call, PipelinePath, TaskId), Status> {
        let call = self.node.admit(metadata).await?;
        let path = call.path(&task.application, &task.pipeline)?;
        Ok((call, path, convert::task_id(&task.id, "id")?))
    }
}

/// Takes one batch in.
async fn submit(
    node: &Node,
    call: &Call,
    request: wire::SubmitRequest,
) -> Result<wire::SubmitResponse, Status> {
    let path = call.path(&request.application, &request.pipeline)?;
    let tasks = convert::task_specs(request.tasks)?;
    let ids = node
        .gateway
        .submit(&path, tasks)
        .await
        .map_err(|error| match error {
            ApiError::Invalid { field, problem } if field.starts_with('[') => {
                from_api(ApiError::invalid(format!("tasks{field}"), problem))
            }
            error => from_api(error),
        })?;
    Ok(wire::SubmitResponse {
        ids: ids.iter().map(TaskId::to_string).collect(),
    })
}

#[tonic::async_trait]
impl TaskService for TaskRpc {
    type SubmitStreamStream = BoxStream<'static, Result<wire::SubmitResponse, Status>>;
    type WatchTasksStream = BoxStream<'static, Result<wire::Task, Status>>;

    async fn submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<Response<wire::SubmitResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        submit(&self.node, &call, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<wire::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let deadline = call.deadline();
        let node = self.node.clone();
        let in_flight = node.config.submit_in_flight.max(1);
        // Batches that are under way when the server stops get their answers; no more are taken.
        let batches = request
            .into_inner()
            .take_until(node.stopping.clone().cancelled_owned());
        let (stopping, closing) = (node.stopping.clone(), node.closing.clone());
        let refused = futures::stream::once(async move { stopping.is_cancelled() })
            .filter(|&stopping| futures::future::ready(stopping))
            .map(|_| Err(Status::unavailable("the node is stopping; submit elsewhere")));
        let answers = batches
            .map(move |batch| {
                let (node, call) = (node.clone(), call.clone());
                async move { submit(&node, &call, batch?).await }
            })
            .buffered(in_flight)
            .chain(refused)
            .take_until(closing.cancelled_owned());
        Ok(Response::new(ending_at(answers, deadline)))
    }

    async fn get_task(&self, request: Request<wire::GetTaskRequest>) -> Result<Response<wire::Task>, Status> {
        let wanted = request.get_ref().task.clone().unwrap_or_default();
        let (call, path, id) = self.task_of(request.metadata(), &wanted).await?;
        let patience = call.patience("wait_ms", request.get_ref().wait_ms)?;
        let view = if patience.is_zero() {
            self.node.gateway.task(&path, id).await
        } else {
            self.node.gateway.wait(&path, id, patience).await
        };
        Ok(Response::new(convert::task(view.map_err(from_api)?)))
    }

    async fn list_tasks(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let filter = TaskFilter {
            states: convert::states(&wanted.states)?,
            partition: None,
        };
        let after = convert::cursor(&wanted.cursor)?;
        let limit = convert::limit(wanted.limit)?;
        let found = self
            .node
            .gateway
            .tasks(&path, &filter, after, limit)
            .await
            .map_err(from_api)?;
        let tasks = found.items.into_iter().map(|view| (view.id, convert::task(view)));
        let (tasks, next_cursor) = convert::page(tasks, found.next);
        Ok(Response::new(wire::ListTasksResponse { tasks, next_cursor }))
    }

    async fn watch_tasks(
        &self,
        request: Request<wire::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let id = match wanted.id.as_str() {
            "" => None,
            id => Some(convert::task_id(id, "id")?),
        };
        let tasks = self.node.gateway.watch(&path, id).await.map_err(from_api)?;
        let tasks = tasks
            .map(|view| Ok(convert::task(view)))
            .take_until(self.node.stopping.clone().cancelled_owned());
        Ok(Response::new(ending_at(tasks, call.deadline())))
    }

    async fn cancel_task(&self, request: Request<wire::TaskRef>) -> Result<Response<wire::Task>, Status> {
        let (_, path, id) = self.task_of(request.metadata(), request.get_ref()).await?;
        let view = self.node.gateway.cancel(&path, id).await.map_err(from_api)?;
        Ok(Response::new(convert::task(view)))
    }

    async fn retry_task(&self, request: Request<wire::TaskRef>) -> Result<Response<wire::Task>, Status> {
        let (_, path, id) = self.task_of(request.metadata(), request.get_ref()).await?;
        let view = self.node.gateway.retry(&path, id).await.map_err(from_api)?;
        Ok(Response::new(convert::task(view)))
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Result<Response<wire::ListDeadLettersResponse>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let after = convert::cursor(&wanted.cursor)?;
        let limit = convert::limit(wanted.limit)?;
        let found = self
            .node
            .gateway
            .dead(&path, after, limit)
            .await
            .map_err(from_api)?;
        let tasks = found
            .items
            .into_iter()
            .map(|(id, dead)| (id, convert::dead_task(id, dead)));
        let (tasks, next_cursor) = convert::page(tasks, found.next);
        Ok(Response::new(wire::ListDeadLettersResponse {
            tasks,
            next_cursor,
        }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<wire::DeadLetterSelection>,
    ) -> Result<Response<wire::DeadLetterCount>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let which = convert::selection(wanted)?;
        let count = self.node.gateway.redrive(&path, which).await.map_err(from_api)?;
        Ok(Response::new(wire::DeadLetterCount { count }))
    }

    async fn purge_dead_letters(
        &self,
        request: Request<wire::DeadLetterSelection>,
    ) -> Result<Response<wire::DeadLetterCount>, Status> {
        let call = self.node.admit(request.metadata()).await?;
        let wanted = request.get_ref();
        let path = call.path(&wanted.application, &wanted.pipeline)?;
        let which = convert::selection(wanted)?;
        let count = self.node.gateway.purge(&path, which).await.map_err(from_api)?;
        Ok(Response::new(wire::DeadLetterCount { count }))
    }
}

/// A stream that ends with its error, or with `DEADLINE_EXCEEDED` when the client's deadline is over.
fn ending_at<T: Send + 'static>(
    stream: impl futures::Stream<Item = Result<T, Status>> + Send + 'static,
    deadline: Option<tokio::time::Instant>,
) -> BoxStream<'static, Result<T, Status>> {
    futures::stream::unfold((stream.boxed(), false), move |(mut stream, over)| async move {
        if over {
            return None;
        }
        let item = tokio::select! {
            item = stream.next() => item?,
            () = Call::expired(deadline) => Err(Status::deadline_exceeded("the deadline of the call is over")),
        };
        let over = item.is_err();
        Some((item, (stream, over)))
    })
    .boxed()
}
