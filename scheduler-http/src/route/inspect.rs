//! Shards looked at: audits and recordings.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use scheduler_core::id::Partition;
use scheduler_core::port::inspect::{Audit, Inspect};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::pipelines::PipelineParams;
use crate::extract::{FromPairs, InPipeline, Pairs, Query, shorten, unknown};
use crate::problem::{Kind, Problem};
use crate::{Api, HttpConfig};

/// Whether every offset of a partition's log is accounted for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditBody {
    partition: u32,
    /// Offsets of the log: all others here add up to it.
    offsets: u64,
    /// Ended as results: succeeded, cancelled, expired, duplicates.
    finished: u64,
    /// Dead letters, those included that were purged or have expired.
    dead: u64,
    /// In memory.
    live: u64,
    /// Parked in the store.
    parked: u64,
    /// Offsets that never had a task.
    absent: u64,
    /// Tasks that the log has lost before they ended.
    lost: u64,
    /// Whether they do add up.
    adds_up: bool,
}

impl From<Audit> for AuditBody {
    fn from(audit: Audit) -> Self {
        let Audit {
            partition,
            account,
            parked,
        } = audit;
        Self {
            partition: partition.0,
            offsets: account.tail.0,
            finished: account.finished,
            dead: account.dead,
            live: account.live,
            parked,
            absent: account.absent,
            lost: account.lost,
            adds_up: audit.adds_up(),
        }
    }
}

/// What is recorded.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RecordingParams {
    /// Which partition. Default 0.
    #[expect(dead_code, reason = "for the document")]
    partition: Option<u32>,
    /// How many bytes at most. Default 16 MiB.
    #[expect(dead_code, reason = "for the document")]
    bytes: Option<usize>,
}

pub(crate) struct RecordingQuery {
    partition: u32,
    bytes: usize,
}

impl FromPairs for RecordingQuery {
    fn from_pairs(pairs: Pairs<'_>, _: &HttpConfig) -> Result<Self, Problem> {
        let mut query = Self {
            partition: 0,
            bytes: 16 << 20,
        };
        for (name, value) in pairs {
            if name == "partition" {
                query.partition = number("partition", &value)?;
            } else if name == "bytes" {
                query.bytes = number("bytes", &value)?;
            } else {
                return Err(unknown(&name, "`partition`, `bytes`"));
            }
        }
        Ok(query)
    }
}

fn number<T: std::str::FromStr>(name: &'static str, value: &str) -> Result<T, Problem> {
    let found = shorten(value);
    value
        .parse()
        .map_err(|_| Problem::invalid(name, format!("must be a whole number; found {found:?}")))
}

pub(super) fn inspect(api: &Api) -> Result<&dyn Inspect, Problem> {
    api.inspect.as_deref().ok_or_else(|| {
        Problem::new(
            Kind::NoSuchRoute,
            "this server does not show what is in it".to_owned(),
        )
    })
}

/// Audit the shards of a pipeline that live on this node: is every offset of their logs accounted for?
///
/// It counts what is parked in the store, so it takes as long as that is much.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}/audit", tag = "inspection", operation_id = "audit", params(PipelineParams),
    responses((status = 200, description = "One for each of this node's partitions.", body = Vec<AuditBody>)))]
pub(crate) async fn audit(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
) -> Result<Json<Vec<AuditBody>>, Problem> {
    let audits = inspect(&api)?.audit(&path).await?;
    Ok(Json(audits.into_iter().map(AuditBody::from).collect()))
}

/// Record what a shard on this node is told, for `scheduler replay`.
///
/// The body goes on until so many bytes are recorded, the shard moves, or the connection is closed; up to there it can be replayed. The shard
/// comes up anew for it, after an orderly release. It holds the params and outputs of tasks.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/recording", tag = "inspection", operation_id = "record", params(PipelineParams, RecordingParams),
    responses((status = 200, description = "The recording.", content_type = "application/octet-stream")))]
pub(crate) async fn record(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    Query(query): Query<RecordingQuery>,
) -> Result<Response, Problem> {
    let recording = inspect(&api)?
        .record(&path, Partition(query.partition), query.bytes)
        .await?;
    let body = Body::from_stream(recording.map(Ok::<_, Infallible>));
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body).into_response())
}
