//! Submitting one task: the path that is walked most, so it formats and copies no more than the answer needs.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use scheduler_core::id::TaskId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{ApiError, TaskView};
use scheduler_core::task::TaskSpec;
use utoipa::IntoParams;

use super::pipelines::PipelineParams;
use super::{located, url_of};
use crate::Api;
use crate::config::HttpConfig;
use crate::extract::{FromPairs, InPipeline, Pairs, once, read_params, unknown, wait_of};
use crate::human::now;
use crate::problem::Problem;
use crate::serve::Draining;
use crate::wire::options::{TaskChoices, key_of, traceparent_of};
use crate::wire::task::{AcceptedBody, TaskBody};

/// What can be said about a task in the query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only")]
pub(super) struct TaskParams {
    /// How urgent it is: 0 (last) to 9 (first). Default 4.
    #[param(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// It starts so long after the submission at the earliest. A duration: `10s`, `1h30m`.
    delay: Option<String>,
    /// It starts at this moment at the earliest; instead of `delay`. RFC 3339, UTC: `2026-11-24T08:00:00Z`.
    not_before: Option<String>,
    /// It expires if it has not ended by then: a moment (RFC 3339, UTC) or a duration from the submission: `10m`.
    deadline: Option<String>,
}

/// What can be said about the answer in the query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only")]
pub(super) struct WaitParams {
    /// Wait so long for the task to end: a duration such as `30s`, at most 60s unless the server is configured otherwise.
    wait: Option<String>,
}

/// What can be said about a task in headers.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive only")]
struct TaskHeaders {
    /// Submissions with the same key within 24 hours are one task, and get the same id.
    /// (The 65,536 latest keys of a partition are remembered.) 1 to 255 bytes.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        nullable = false
    )]
    idempotency_key: Option<String>,
    /// The W3C trace context; handed on to the worker. One that is not well-formed is ignored, as its standard says.
    #[param(nullable = false)]
    traceparent: Option<String>,
}

/// As long as the text of an id is, nearly always.
const ID_LENGTH: usize = 32;

/// A task on its way in.
#[derive(Debug)]
pub(crate) struct Submission {
    path: PipelinePath,
    task: TaskSpec,
    wait: Option<Duration>,
    draining: Option<Draining>,
}

#[derive(Debug, Default)]
struct SubmitQuery {
    choices: TaskChoices,
    wait: Option<Duration>,
}

impl FromPairs for SubmitQuery {
    fn from_pairs(pairs: Pairs<'_>, config: &HttpConfig) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in pairs {
            if name == "wait" {
                once(&mut query.wait, "wait", wait_of(&value, config)?)?;
            } else if !query.choices.take(&name, &value)? {
                let known = "`priority`, `delay`, `not_before`, `deadline`, `wait`";
                return Err(unknown(&name, known));
            }
        }
        Ok(query)
    }
}

/// The trace context of a request, if it is one.
pub(super) fn trace_of(headers: &HeaderMap) -> Option<Bytes> {
    headers
        .get("traceparent")
        .and_then(|value| traceparent_of(value.as_bytes()))
}

impl FromRequest<Arc<Api>> for Submission {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let InPipeline(path) = InPipeline::from_request_parts(&mut parts, api).await?;
        let SubmitQuery { mut choices, wait } = match parts.uri.query() {
            None => SubmitQuery::default(),
            Some(query) => SubmitQuery::from_pairs(form_urlencoded::parse(query.as_bytes()), &api.config)?,
        };
        if let Some(key) = parts.headers.get("idempotency-key") {
            choices.idempotency_key = Some(key_of("Idempotency-Key", key.as_bytes())?);
        }
        choices.traceparent = trace_of(&parts.headers);
        let params = read_params(&parts.headers, body, api).await?;
        Ok(Self {
            path,
            task: choices.into_spec(params, now)?,
            wait,
            draining: parts.extensions.remove(),
        })
    }
}

/// Submit a task.
///
/// The body is the params of the task: a JSON object, handed to the worker as it is. When this answers with 202 or 200, the task is
/// durable: it will be tried until it succeeded, was rejected, or its attempts or its time are used up.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}", tag = "tasks", operation_id = "submit_task",
    params(PipelineParams, TaskParams, WaitParams, TaskHeaders),
    request_body(content = Object, description = "The params of the task, at most 512 KiB unless the server is configured otherwise.",
        content_type = "application/json", example = json!({"url": "https://example.com/pic.png"})),
    responses(
        (status = 202, description = "It is accepted. With `wait`, the body is the task as it is after that time, or the id alone where the \
            server could not tell.", body = AcceptedBody, headers(("Location" = String, description = "The task's path."))),
        (status = 200, description = "With `wait`: it has ended.", body = TaskBody, headers(("Location" = String, description = "The task's path."))),
    ))]
pub(crate) async fn submit(State(api): State<Arc<Api>>, submission: Submission) -> Result<Response, Problem> {
    let Submission {
        path,
        task,
        wait,
        draining,
    } = submission;
    let ids = api
        .gateway
        .submit(&path, vec![task])
        .await
        .map_err(|error| of_one(error.into()))?;
    let Some(&id) = ids.first() else {
        return Err(Problem::internal(&"a submission was answered without an id"));
    };
    // From here on the task is accepted: whatever fails now must not look as if it were not.
    let ended = match wait {
        Some(patience) => wait_for(&api, &path, id, patience, draining).await.ok().flatten(),
        None => None,
    };
    let mut id_text = String::with_capacity(ID_LENGTH);
    // Writing to a string cannot fail.
    let _ = write!(id_text, "{id}");
    let response = match ended {
        Some(task) => waited(task),
        None => accepted(&id_text),
    };
    Ok(located(response, url_of(&path, &["/tasks/", &id_text])))
}

/// An error about the only task of a submission does not number it.
fn of_one(mut problem: Problem) -> Problem {
    if let Some(rest) = problem
        .field
        .as_deref()
        .and_then(|field| field.strip_prefix("[0]"))
    {
        let rest = rest.trim_start_matches('.');
        problem.field = Some(if rest.is_empty() { "body" } else { rest }.to_owned().into());
    }
    problem
}

fn accepted(id: &str) -> Response {
    // An id has nothing that JSON would escape.
    let body = ["{\"id\":\"", id, "\"}"].concat();
    (
        StatusCode::ACCEPTED,
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body,
    )
        .into_response()
}

/// The task once it has ended, or as it is when the time is over; `None` when the server is going down meanwhile.
pub(super) async fn wait_for(
    api: &Api,
    path: &PipelinePath,
    id: TaskId,
    patience: Duration,
    draining: Option<Draining>,
) -> Result<Option<TaskView>, ApiError> {
    tokio::select! {
        view = api.gateway.wait(path, id, patience) => view.map(Some),
        () = Draining::begun(draining) => Ok(None),
    }
}

/// The answer to somebody who waited: 200 when the task has ended, 202 when it has not.
pub(super) fn waited(view: TaskView) -> Response {
    let status = if view.state.is_final() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    (status, Json(TaskBody::from(view))).into_response()
}
