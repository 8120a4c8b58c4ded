//! Dead letters.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::pipelines::PipelineParams;
use super::tasks::{PageParams, PageQuery, within};
use crate::Api;
use crate::cursor::{self, List};
use crate::extract::{self, InPipeline, Query};
use crate::problem::Problem;
use crate::wire::Items;
use crate::wire::dead::{DeadLetterBody, Purged, Redriven, SelectionBody};

/// List dead letters, partition by partition and the newest first.
///
/// A page may have fewer items than asked for, or none, and still a `next`.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(PipelineParams, PageParams),
    responses((status = 200, description = "A page of them.", body = Items<DeadLetterBody>)))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    Query(query): Query<PageQuery>,
) -> Result<Json<Items<DeadLetterBody>>, Problem> {
    let after = query
        .cursor
        .map(|text| cursor::decode(List::DeadLetters, &path, &text))
        .transpose()?;
    let page = api.gateway.dead(&path, after, query.limit).await?;
    let page = within(page, api.config.max_page_bytes, |(id, dead)| {
        (*id, dead.spec.params.len() + dead.error.len())
    });
    Ok(Json(Items {
        items: page.items.into_iter().map(DeadLetterBody::from).collect(),
        next: page
            .next
            .map(|next| cursor::encode(List::DeadLetters, &path, next)),
    }))
}

/// Make dead letters live again, with fresh attempts and under the same ids.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/dead-letters/redrive", tag = "dead letters", operation_id = "redrive_dead_letters", params(PipelineParams),
    request_body = SelectionBody,
    responses((status = 200, description = "How many there were.", body = Redriven)))]
pub(crate) async fn redrive(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    extract::Json(which): extract::Json<SelectionBody>,
) -> Result<Json<Redriven>, Problem> {
    let redriven = api.gateway.redrive(&path, which.into_selection()?).await?;
    Ok(Json(Redriven { redriven }))
}

/// Delete dead letters for good.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/dead-letters/purge", tag = "dead letters", operation_id = "purge_dead_letters", params(PipelineParams),
    request_body = SelectionBody,
    responses((status = 200, description = "How many there were.", body = Purged)))]
pub(crate) async fn purge(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    extract::Json(which): extract::Json<SelectionBody>,
) -> Result<Json<Purged>, Problem> {
    let purged = api.gateway.purge(&path, which.into_selection()?).await?;
    Ok(Json(Purged { purged }))
}
