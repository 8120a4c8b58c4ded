//! Pipelines.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::PipelineChange;
use utoipa::IntoParams;

use super::applications::ApplicationParams;
use super::inspect::inspect;
use super::{located, url_of};
use crate::Api;
use crate::config::HttpConfig;
use crate::extract::{self, FromPairs, InApplication, InPipeline, Pairs, Query, once, unknown};
use crate::problem::Problem;
use crate::wire::Items;
use crate::wire::pipeline::{NewPipelineBody, PipelineChangeBody, ScaleBody};
use crate::wire::plan::PlanBody;
use crate::wire::policy;
use crate::wire::shown::PipelineBody;

/// A pipeline in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub(super) struct PipelineParams {
    /// The application's name.
    #[param(example = "myname")]
    app: String,
    /// The pipeline's name.
    #[param(example = "ocr")]
    name: String,
}

/// List the pipelines of an application, by name.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines", tag = "pipelines", operation_id = "list_pipelines", params(ApplicationParams),
    responses((status = 200, description = "All of them.", body = Items<PipelineBody>)))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    target: InApplication,
) -> Result<Json<Items<PipelineBody>>, Problem> {
    let pipelines = api.gateway.pipelines(&target.caller, &target.application).await?;
    Ok(Json(Items::all(pipelines.into_iter().map(PipelineBody::from))))
}

/// How a pipeline is created.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CreateParams {
    /// `true`: check all of it, its chart included, and answer what would be created without creating it. Default false.
    #[expect(dead_code, reason = "for the document")]
    dry_run: Option<bool>,
}

pub(crate) struct CreateQuery {
    dry_run: bool,
}

impl FromPairs for CreateQuery {
    fn from_pairs(pairs: Pairs<'_>, _: &HttpConfig) -> Result<Self, Problem> {
        let mut dry_run = None;
        for (name, value) in pairs {
            if name != "dry_run" {
                return Err(unknown(&name, "`dry_run`"));
            }
            let said = match &*value {
                "true" => true,
                "false" => false,
                _ => return Err(Problem::invalid("dry_run", "must be true or false")),
            };
            once(&mut dry_run, "dry_run", said)?;
        }
        Ok(Self {
            dry_run: dry_run.unwrap_or(false),
        })
    }
}

/// Create a pipeline, and deploy its workers from a chart.
///
/// Tasks can be submitted as soon as this answers; they wait until workers are up. `rollout` of the pipeline says how far they are.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines", tag = "pipelines", operation_id = "create_pipeline", params(ApplicationParams, CreateParams),
    request_body = NewPipelineBody,
    responses(
        (status = 200, description = "With `dry_run`: what would be created.", body = PlanBody),
        (status = 201, description = "It is created.", body = PipelineBody, headers(("Location" = String, description = "Its path."))),
        (status = 409, description = "There is one of the name.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    target: InApplication,
    Query(query): Query<CreateQuery>,
    extract::Json(new): extract::Json<NewPipelineBody>,
) -> Result<Response, Problem> {
    if query.dry_run {
        let plan = inspect(&api)?
            .plan(&target.caller, &target.application, new.into_new()?)
            .await
            .map_err(policy::of_request)?;
        return Ok(Json(PlanBody::from(plan)).into_response());
    }
    let view = api
        .gateway
        .create_pipeline(&target.caller, &target.application, new.into_new()?)
        .await
        .map_err(policy::of_request)?;
    let location = url_of(&view.pipeline.path, &[]);
    let body = Json(PipelineBody::from(view));
    Ok(located((StatusCode::CREATED, body).into_response(), location))
}

/// Get a pipeline, and how it fares.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}", tag = "pipelines", operation_id = "get_pipeline", params(PipelineParams),
    responses((status = 200, description = "The pipeline.", body = PipelineBody)))]
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
) -> Result<Json<PipelineBody>, Problem> {
    Ok(Json(api.gateway.pipeline(&path).await?.into()))
}

/// Change a pipeline; what is not said stays.
#[utoipa::path(patch, path = "/api/applications/{app}/pipelines/{name}", tag = "pipelines", operation_id = "change_pipeline", params(PipelineParams),
    request_body = PipelineChangeBody,
    responses(
        (status = 200, description = "The pipeline as it is now.", body = PipelineBody),
        (status = 409, description = "It is being deleted, or somebody else changed it meanwhile.", body = crate::problem::ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn change(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    extract::Json(said): extract::Json<PipelineChangeBody>,
) -> Result<Json<PipelineBody>, Problem> {
    let current = if said.needs_current() {
        Some(api.gateway.pipeline(&path).await?.pipeline)
    } else {
        None
    };
    let change = said.into_change(current.as_ref())?;
    let changed = api.gateway.change_pipeline(&path, change).await;
    Ok(Json(changed.map_err(policy::of_request)?.into()))
}

/// Delete a pipeline with all its tasks and results, and end its workers.
#[utoipa::path(delete, path = "/api/applications/{app}/pipelines/{name}", tag = "pipelines", operation_id = "delete_pipeline", params(PipelineParams),
    responses((status = 204, description = "It is deleted.")))]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
) -> Result<StatusCode, Problem> {
    api.gateway.delete_pipeline(&path).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_paused(api: &Api, path: &PipelinePath, paused: bool) -> Result<Json<PipelineBody>, Problem> {
    let change = PipelineChange {
        paused: Some(paused),
        ..PipelineChange::default()
    };
    Ok(Json(api.gateway.change_pipeline(path, change).await?.into()))
}

/// Pause a pipeline: its tasks are accepted, and wait. Attempts that run go on.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/pause", tag = "pipelines", operation_id = "pause_pipeline", params(PipelineParams),
    responses((status = 200, description = "The pipeline as it is now.", body = PipelineBody)))]
pub(crate) async fn pause(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
) -> Result<Json<PipelineBody>, Problem> {
    set_paused(&api, &path, true).await
}

/// Resume a paused pipeline.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/resume", tag = "pipelines", operation_id = "resume_pipeline", params(PipelineParams),
    responses((status = 200, description = "The pipeline as it is now.", body = PipelineBody)))]
pub(crate) async fn resume(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
) -> Result<Json<PipelineBody>, Problem> {
    set_paused(&api, &path, false).await
}

/// Ask for so many workers now, within the pipeline's bounds.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/scale", tag = "pipelines", operation_id = "scale_pipeline", params(PipelineParams),
    request_body = ScaleBody,
    responses(
        (status = 200, description = "The pipeline as it is now.", body = PipelineBody),
        (status = 409, description = "Its workers come by themselves.", body = crate::problem::ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn scale(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    extract::Json(wanted): extract::Json<ScaleBody>,
) -> Result<Json<PipelineBody>, Problem> {
    let view = api.gateway.scale_pipeline(&path, wanted.workers).await?;
    Ok(Json(view.into()))
}
