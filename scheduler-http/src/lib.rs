//! The REST API of the workload scheduler: JSON over the gateway port, with its OpenAPI document, Swagger UI and a dashboard.
//!
//! ```
//! use std::sync::Arc;
//!
//! use scheduler_core::port::gateway::Gateway;
//! use scheduler_http::{HttpConfig, router, serve};
//!
//! async fn run(gateway: Arc<dyn Gateway>) -> std::io::Result<()> {
//!     let config = HttpConfig::default();
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//!     let router = router(gateway, config.clone());
//!     serve(listener, router, &config, async {
//!         let _ = tokio::signal::ctrl_c().await;
//!     })
//!     .await
//! }
//! ```
//!
//! Then, from a shell:
//!
//! ```sh
//! curl -i localhost:8080/api/applications/myname/pipelines -H 'content-type: application/json' \
//!      -d '{"name":"words","chart":"examples/charts/coreutils"}'
//! curl -i 'localhost:8080/api/applications/myname/pipelines/words?wait=30s' -H 'content-type: application/json' \
//!      -d '{"text":"to be or not to be"}'
//! seq 1000 | sed 's/.*/{"text":"line &"}/' | curl -T- -X POST -H 'content-type: application/x-ndjson' \
//!      localhost:8080/api/applications/myname/pipelines/words/tasks/bulk
//! curl -N localhost:8080/api/applications/myname/pipelines/words/events
//! ```
//!
//! `/dashboard/` shows all that in a browser: applications, pipelines, tasks, dead letters. It is a reader of the API like any
//! other, and asks for a key where one is needed.
//!
//! `/api/docs` shows every path with its parameters, bodies and errors; [`openapi_json`] is the same for machines. What is
//! worth knowing beyond it:
//!
//! - A task is accepted when the answer is 202 or 200, never before it is durable. Trouble after that point (the wait
//!   fails, the node goes down) still answers 202 with the id.
//! - The params of a task are passed on as the bytes that came, checked to be one JSON object but not read into memory.
//!   They are slices of what was read from the connection: whoever keeps them for long should copy them.
//! - Outputs, progress and params that are JSON are embedded as it; other text is a string, other bytes a data URL.
//! - Every error is `application/problem+json` (RFC 9457) and names the field; internal ones are numbered in answer and log.
//! - Every buffer, queue and wait has a bound in [`HttpConfig`].

#![expect(clippy::doc_markdown, reason = "OpenAPI is a name, not code")]

mod config;
mod cursor;
mod extract;
mod human;
mod idle;
mod linger;
mod metrics;
mod opaque;
mod problem;
#[expect(unused_qualifications, reason = "utoipa's attribute writes them")]
mod route;
mod serve;
mod wire;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use scheduler_core::port::gateway::Gateway;
use scheduler_core::port::inspect::Inspect;
use tower_http::catch_panic::CatchPanicLayer;

pub use config::HttpConfig;
pub use metrics::{NamespaceOf, metrics_router};
pub use serve::serve;

/// What handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    gateway: Arc<dyn Gateway>,
    inspect: Option<Arc<dyn Inspect>>,
    config: HttpConfig,
}

/// The whole API over `gateway`: everything below `/api` and `/dashboard`, `/healthz` and `/ready`; `/` leads to the dashboard.
///
/// Other routes may be merged in; the fallbacks for unknown paths and methods are set already.
pub fn router(gateway: Arc<dyn Gateway>, config: HttpConfig) -> Router {
    over(gateway, None, config)
}

/// [`router`], which audits and records the shards of a node as well.
pub fn inspectable_router(
    gateway: Arc<dyn Gateway>,
    inspect: Arc<dyn Inspect>,
    config: HttpConfig,
) -> Router {
    over(gateway, Some(inspect), config)
}

fn over(gateway: Arc<dyn Gateway>, inspect: Option<Arc<dyn Inspect>>, config: HttpConfig) -> Router {
    route::all(Arc::new(Api {
        gateway,
        inspect,
        config,
    }))
    .layer(CatchPanicLayer::custom(panicked))
}

/// The OpenAPI 3.1 document of the API as JSON, as it is served at `/api/openapi.json`.
///
/// # Errors
///
/// It cannot be written as JSON: a mistake in this crate.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    route::openapi().to_pretty_json()
}

/// A handler panicked: the client gets a problem without what it said, the log all of it.
#[expect(clippy::needless_pass_by_value, reason = "the layer passes the payload so")]
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    problem::Problem::internal(&format_args!("a handler panicked: {text}")).into_response()
}
