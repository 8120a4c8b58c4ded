//! Whether the process lives, and whether it can take requests. For probes; without an API key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::problem::Problem;

/// It is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives.", body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    OK
}

/// Whether the node can take requests.
#[utoipa::path(get, path = "/ready", tag = "health", security(()),
    responses((status = 200, description = "It can.", body = Health)))]
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Result<Json<Health>, Problem> {
    api.gateway.ready().await?;
    Ok(OK)
}
