//! The agent's HTTP endpoints, as charts probe them and the platform calls them.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use scheduler_pipeline::{MAX_DEFINITION_BYTES, Params, PipelineDefinition};
use scheduler_sdk::WorkerStatus;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::run::{NoWatcher, Outputs, RunError, run_pipeline};

/// What `POST /api/v1/pipeline` answers.
#[derive(Debug, Serialize)]
struct Answer {
    result: bool,
    message: Option<String>,
    output: Outputs,
}

#[derive(Clone, Debug)]
struct Shared {
    agent: Agent,
    /// None when the agent works without a scheduler.
    status: Option<WorkerStatus>,
}

/// Serves `GET /healthz`, `GET /ready` and `POST /api/v1/pipeline` (in any case) until `stop`.
///
/// # Errors
///
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    agent: Agent,
    status: Option<WorkerStatus>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/ready", get(ready))
        .fallback(pipeline)
        .layer(DefaultBodyLimit::max(MAX_DEFINITION_BYTES))
        .with_state(Shared { agent, status });
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn ready(State(shared): State<Shared>) -> Response {
    let mut problems = shared.agent.executors().unreachable().await;
    if shared.status.is_some_and(|status| !status.is_connected()) {
        problems.push("no session with the scheduler".to_owned());
    }
    if problems.is_empty() {
        "ready".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n")).into_response()
    }
}

async fn pipeline(State(shared): State<Shared>, method: Method, uri: Uri, body: Bytes) -> Response {
    if !uri.path().eq_ignore_ascii_case("/api/v1/pipeline") {
        return (
            StatusCode::NOT_FOUND,
            "there is /healthz, /ready and POST /api/v1/pipeline",
        )
            .into_response();
    }
    if method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [("allow", "POST")], "use POST").into_response();
    }
    let bad = |message: String| {
        (
            StatusCode::BAD_REQUEST,
            Json(Answer {
                result: false,
                message: Some(message),
                output: Outputs::default(),
            }),
        )
            .into_response()
    };
    let definition = match std::str::from_utf8(&body).map(PipelineDefinition::from_json) {
        Ok(Ok(definition)) => definition,
        Ok(Err(error)) => return bad(error.to_string()),
        Err(error) => return bad(format!("the body is not UTF-8: {error}")),
    };
    // Who calls by hand may build on the files of an earlier call.
    let share = shared.agent.workspace().enter_as_it_is().await;
    let executors = shared.agent.executors();
    let answer = match run_pipeline(
        &definition,
        &Params::default(),
        share.path(),
        executors,
        &NoWatcher,
    )
    .await
    {
        Ok(output) => Answer {
            result: true,
            message: None,
            output,
        },
        Err(RunError::Params(error)) => return bad(error.to_string()),
        Err(error @ RunError::Step { .. }) => {
            let message = Some(error.to_string());
            Answer {
                result: false,
                message,
                output: error.into_outputs(),
            }
        }
    };
    Json(answer).into_response()
}
