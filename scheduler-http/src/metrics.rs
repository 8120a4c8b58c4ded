//! Metrics for Prometheus, of all clients: on a listener of their own, which no client reaches.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::Queues;

use crate::problem::Problem;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whose queue it is. What existing charts ask by are `worker` and `namespace`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    /// The pipeline.
    worker: String,
    /// Where its workers are.
    namespace: String,
    application: String,
    client: String,
}

/// In which namespace of a cluster the workers of a pipeline are.
pub type NamespaceOf = Arc<dyn Fn(&PipelinePath) -> String + Send + Sync>;

#[derive(Clone)]
struct Metrics {
    queues: Arc<dyn Queues>,
    namespace_of: NamespaceOf,
}

/// `GET /metrics`: what `queues` knows, asked for each time.
pub fn metrics_router(queues: Arc<dyn Queues>, namespace_of: NamespaceOf) -> Router {
    let state = Metrics { queues, namespace_of };
    Router::new().route("/metrics", get(metrics)).with_state(state)
}

async fn metrics(State(Metrics { queues, namespace_of }): State<Metrics>) -> Response {
    let mut registry = Registry::default();
    let lengths: Family<Labels, Gauge> = Family::default();
    registry.register(
        "server_scheduler_queue_length",
        "Tasks of a pipeline that wait for a worker or have one, on all nodes",
        lengths.clone(),
    );
    for (path, load) in queues.queues().await {
        let labels = Labels {
            worker: path.pipeline.to_string(),
            namespace: namespace_of(&path),
            application: path.application.to_string(),
            client: path.client.to_string(),
        };
        let length = load.waiting().saturating_add(load.running);
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        lengths.get_or_create(&labels).set(length);
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(problem) => Problem::internal(&problem).into_response(),
    }
}
