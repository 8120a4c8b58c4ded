//! Applications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use utoipa::IntoParams;

use super::located;
use crate::Api;
use crate::extract::{self, InApplication, Who};
use crate::problem::Problem;
use crate::wire::Items;
use crate::wire::application::{ApplicationBody, NewApplication};

/// An application in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub(super) struct ApplicationParams {
    /// The application's name.
    #[param(example = "myname")]
    app: String,
}

/// List your applications, by name.
#[utoipa::path(get, path = "/api/applications", tag = "applications", operation_id = "list_applications",
    responses((status = 200, description = "All of them.", body = Items<ApplicationBody>)))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
) -> Result<Json<Items<ApplicationBody>>, Problem> {
    let applications = api.gateway.applications(&caller).await?;
    Ok(Json(Items::all(
        applications.into_iter().map(ApplicationBody::from),
    )))
}

/// Create an application.
///
/// Not needed where the server creates an application together with its first pipeline, as it does unless told otherwise.
#[utoipa::path(post, path = "/api/applications", tag = "applications", operation_id = "create_application",
    request_body = NewApplication,
    responses(
        (status = 201, description = "It is created.", body = ApplicationBody, headers(("Location" = String, description = "Its path."))),
        (status = 409, description = "There is one of the name.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    extract::Json(new): extract::Json<NewApplication>,
) -> Result<Response, Problem> {
    let application = api.gateway.create_application(&caller, new.name.0).await?;
    let location = format!("/api/applications/{}", application.name);
    let body = Json(ApplicationBody::from(application));
    Ok(located((StatusCode::CREATED, body).into_response(), location))
}

/// Get an application.
#[utoipa::path(get, path = "/api/applications/{app}", tag = "applications", operation_id = "get_application", params(ApplicationParams),
    responses((status = 200, description = "The application.", body = ApplicationBody)))]
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    target: InApplication,
) -> Result<Json<ApplicationBody>, Problem> {
    let found = api
        .gateway
        .application(&target.caller, &target.application)
        .await?;
    Ok(Json(found.into()))
}

/// Delete an application that has no pipelines.
#[utoipa::path(delete, path = "/api/applications/{app}", tag = "applications", operation_id = "delete_application", params(ApplicationParams),
    responses(
        (status = 204, description = "It is deleted."),
        (status = 409, description = "It still has pipelines.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    target: InApplication,
) -> Result<StatusCode, Problem> {
    api.gateway
        .delete_application(&target.caller, &target.application)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
