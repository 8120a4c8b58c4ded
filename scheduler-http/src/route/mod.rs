//! The handlers, one file for each thing they are about.

mod applications;
mod bulk;
mod dashboard;
mod dead_letters;
mod docs;
mod events;
mod health;
mod inspect;
mod pipelines;
mod submit;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Uri};
use scheduler_core::name::PipelinePath;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::problem::{Kind, Problem};

pub(crate) use docs::openapi;

/// Every route that is in the OpenAPI document. A task is submitted to the pipeline itself, so everything else about a
/// pipeline has a path of its own below it, and no pipeline's name can be taken for one.
fn documented() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(docs::frame())
        .routes(routes!(applications::list, applications::create))
        .routes(routes!(applications::get, applications::delete))
        .routes(routes!(pipelines::list, pipelines::create))
        .routes(routes!(
            pipelines::get,
            pipelines::change,
            pipelines::delete,
            submit::submit
        ))
        .routes(routes!(pipelines::pause))
        .routes(routes!(pipelines::resume))
        .routes(routes!(pipelines::scale))
        .routes(routes!(events::of_pipeline))
        .routes(routes!(tasks::list))
        .routes(routes!(bulk::submit))
        .routes(routes!(tasks::get))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(events::of_task))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(dead_letters::purge))
        .routes(routes!(inspect::audit))
        .routes(routes!(inspect::record))
        .routes(routes!(health::healthz))
        .routes(routes!(health::ready))
}

/// Every route, and what answers when there is none.
pub(crate) fn all(api: Arc<Api>) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .merge(docs::router())
        .merge(dashboard::router())
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

async fn no_such_route(uri: Uri, headers: HeaderMap) -> Response {
    // No route of its own: whoever embeds this may have one.
    if uri.path() == "/" {
        return Redirect::to(dashboard::HOME).into_response();
    }
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if media_type.is_some_and(|media_type| media_type.starts_with(b"application/grpc")) {
        return no_grpc_here().into_response();
    }
    let path = crate::extract::shorten(uri.path()).into_owned();
    Problem::new(
        Kind::NoSuchRoute,
        format!("there is no path {path}; /api/docs lists those that there are"),
    )
    .into_response()
}

/// The answer to a worker or client that was given this address in the place of that of gRPC, in the form that it reads.
fn no_grpc_here() -> impl IntoResponse {
    const UNIMPLEMENTED: &str = "12";
    [
        ("content-type", "application/grpc"),
        ("grpc-status", UNIMPLEMENTED),
        (
            "grpc-message",
            "this address serves HTTP; gRPC has an address of its own, port 50050 unless the server was told another",
        ),
    ]
}

async fn method_not_allowed(method: Method) -> Problem {
    let method = crate::extract::shorten(method.as_str()).into_owned();
    Problem::new(
        Kind::MethodNotAllowed,
        format!("the path does not take {method}; the Allow header says what it takes"),
    )
}

/// Says where something is. `location` is made of checked names, so that it always fits a header.
fn located(mut response: Response, location: String) -> Response {
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The path of a pipeline, and of what is `below` it: put together in one piece, as long as it will be.
fn url_of(path: &PipelinePath, below: &[&str]) -> String {
    let (application, pipeline) = (path.application.as_str(), path.pipeline.as_str());
    let parts = ["/api/applications/", application, "/pipelines/", pipeline];
    let length = parts.iter().chain(below).map(|part| part.len()).sum();
    let mut url = String::with_capacity(length);
    url.extend(parts.iter().chain(below).copied());
    url
}
