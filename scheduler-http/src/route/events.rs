//! What happens to tasks, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _};
use http::HeaderValue;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{ApiError, TaskStream};

use super::pipelines::PipelineParams;
use super::tasks::OneTaskParams;
use crate::Api;
use crate::extract::{InPipeline, OfTask};
use crate::problem::Problem;
use crate::serve::Draining;
use crate::wire::task::TaskBody;

/// Watch a task until it has ended.
///
/// Server-sent events: `task` with the task as JSON, first as it is now, then after every change; at last `end` with
/// `{"reason": …}`: `finished`, or `stopped` when the pipeline was deleted or this reader was too slow, or `shutdown` when this node goes down: then connect
/// again. A browser's `EventSource` should be closed on `end`, since it would connect again by itself. A comment is sent in every 15 s of silence.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}/tasks/{id}/events", tag = "tasks", operation_id = "watch_task", params(OneTaskParams),
    responses((status = 200, description = "The events.", body = TaskBody, content_type = "text/event-stream")))]
pub(crate) async fn of_task(
    State(api): State<Arc<Api>>,
    OfTask { path, id }: OfTask,
    draining: Option<Extension<Draining>>,
) -> Result<Response, Problem> {
    let tasks = api.gateway.watch(&path, Some(id)).await?;
    Ok(respond(api, path, tasks, true, draining))
}

/// Watch all tasks of a pipeline, from now on.
///
/// Server-sent events as of one task; it does not end when a task does.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}/events", tag = "tasks", operation_id = "watch_pipeline", params(PipelineParams),
    responses((status = 200, description = "The events.", body = TaskBody, content_type = "text/event-stream")))]
pub(crate) async fn of_pipeline(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    draining: Option<Extension<Draining>>,
) -> Result<Response, Problem> {
    let tasks = api.gateway.watch(&path, None).await?;
    Ok(respond(api, path, tasks, false, draining))
}

fn respond(
    api: Arc<Api>,
    path: PipelinePath,
    tasks: TaskStream,
    of_one: bool,
    draining: Option<Extension<Draining>>,
) -> Response {
    let draining = draining.map(|Extension(draining)| draining);
    let keep_alive = KeepAlive::new().interval(api.config.event_keep_alive);
    let mut response = Sse::new(events(api, path, tasks, of_one, draining))
        .keep_alive(keep_alive)
        .into_response();
    // Otherwise proxies of the nginx family gather events up.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

enum Watch {
    Going(TaskStream, Option<Draining>),
    Ending(&'static str),
    Ended,
}

fn events(
    api: Arc<Api>,
    path: PipelinePath,
    tasks: TaskStream,
    of_one: bool,
    draining: Option<Draining>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let about = Arc::new((api, path));
    futures::stream::unfold(Watch::Going(tasks, draining), move |watch| {
        let about = Arc::clone(&about);
        async move { next(&about, watch, of_one).await }
    })
}

async fn next(
    about: &(Arc<Api>, PipelinePath),
    watch: Watch,
    of_one: bool,
) -> Option<(Result<Event, Infallible>, Watch)> {
    match watch {
        Watch::Going(mut tasks, draining) => {
            let next = tokio::select! {
                next = tasks.next() => next,
                () = Draining::begun(draining.clone()) => return Some((Ok(end("shutdown")), Watch::Ended)),
            };
            let Some(task) = next else {
                return Some((Ok(end(why_it_ended(about).await)), Watch::Ended));
            };
            let finished = of_one && task.state.is_final();
            let event = Event::default().event("task").json_data(TaskBody::from(task));
            match event {
                Ok(event) if finished => Some((Ok(event), Watch::Ending("finished"))),
                Ok(event) => Some((Ok(event), Watch::Going(tasks, draining))),
                Err(error) => {
                    tracing::error!("a task could not be shown: {error}");
                    Some((Ok(end("stopped")), Watch::Ended))
                }
            }
        }
        Watch::Ending(reason) => Some((Ok(end(reason)), Watch::Ended)),
        Watch::Ended => None,
    }
}

/// The node lets its streams go as it goes down, before its transports know.
async fn why_it_ended((api, path): &(Arc<Api>, PipelinePath)) -> &'static str {
    match api.gateway.pipeline(path).await {
        Err(ApiError::Unavailable { .. }) => "shutdown",
        _ => "stopped",
    }
}

fn end(reason: &str) -> Event {
    Event::default()
        .event("end")
        .data(format!("{{\"reason\":\"{reason}\"}}"))
}
