//! The OpenAPI document, and Swagger UI to read and try it; both from the binary.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};
use utoipa_swagger_ui::Config;

use crate::Api;
use crate::problem::{Kind, Problem, ProblemBody};

const DOCUMENT: &str = "/api/openapi.json";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Workload Scheduler",
        description = "Run chains of command-line tools as tasks, at any scale. An *application* holds *pipelines*; a pipeline is a chain of steps that \
            runs whole inside one worker; a *task* is one unit of work for it.\n\n\
            **Start here**: `POST /api/applications/myname/pipelines` with `{\"name\": \"ocr\", \"chart\": \"…\"}` deploys a pipeline; \
            `POST /api/applications/myname/pipelines/ocr?wait=30s` with `{\"url\": \"https://…/pic.png\"}` submits a task and waits for its result.\n\n\
            **Names** of applications and pipelines are 1 to 63 of `a-z`, `0-9` and `-`, begin with a letter and do not end in `-`. \
            **Durations** are text such as `250ms`, `30s`, `5m`, `1h30m`, `7d`. **Moments** are RFC 3339 in UTC. **Sizes** are bytes, as a number or text such as `16MiB`.\n\n\
            **Unknown fields and query parameters are refused**, so that a mistyped option is not lost in silence.\n\n\
            **Errors** are `application/problem+json` (RFC 9457); `field` says which part of the request is wrong, `detail` what would be right. \
            Answers with 429 and 503 say in `Retry-After` when to try again.\n\n\
            **Keys**: `Authorization: Bearer KEY` or `X-Api-Key: KEY`. A server for one person may allow requests without.",
    ),
    tags(
        (name = "applications", description = "Groups of pipelines."),
        (name = "pipelines", description = "Steps, policy and workers."),
        (name = "tasks", description = "Submit, follow, cancel."),
        (name = "dead letters", description = "Tasks whose attempts are used up, or that were rejected for good."),
        (name = "inspection", description = "What a pipeline's schedulers know and did: audits and recordings."),
        (name = "health", description = "For probes; no key needed."),
    ),
    components(schemas(ProblemBody)),
    security(("bearer" = []), ("api_key" = []), ()),
    modifiers(&Security),
)]
struct Frame;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let key = ApiKey::Header(ApiKeyValue::new("X-Api-Key"));
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(key));
    }
}

/// The document without its paths.
pub(super) fn frame() -> OpenApi {
    Frame::openapi()
}

/// The OpenAPI 3.1 document of the whole API, as the server shows it at `/api/openapi.json`.
pub(crate) fn openapi() -> OpenApi {
    let mut document = super::documented().into_openapi();
    let components = document.components.get_or_insert_default();
    for (name, description) in [
        (
            "Invalid",
            "The request is wrong: `field` says where, `detail` what would be right.",
        ),
        ("Unauthenticated", "The API key is missing or unknown."),
        ("Forbidden", "The key does not allow it."),
        ("NotFound", "It does not exist, or is not yours."),
        ("BodyTimeout", "The body took too long."),
        ("BodyTooLarge", "The body is too large."),
        ("UnsupportedMediaType", "The body has the wrong media type."),
        (
            "Overloaded",
            "Too much at once; try again after `Retry-After` seconds.",
        ),
        (
            "Internal",
            "The server failed; `instance` names the error in its log.",
        ),
        (
            "Unavailable",
            "It cannot be done now; try again after `Retry-After` seconds.",
        ),
    ] {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Problem")))
            .build();
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content)
            .build();
        components.responses.insert(name.to_owned(), RefOr::T(response));
    }
    for (path, item) in &mut document.paths.paths {
        let keyless = !path.starts_with("/api/");
        for operation in operations(item) {
            add_problems(operation, path, keyless);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete]
        .into_iter()
        .flatten()
}

/// What every operation of its kind can answer beside what it says itself.
fn add_problems(operation: &mut Operation, path: &str, keyless: bool) {
    let body = operation.request_body.is_some();
    for (applies, status, name) in [
        (!keyless, "400", "Invalid"),
        (!keyless, "401", "Unauthenticated"),
        (!keyless, "403", "Forbidden"),
        (path.contains('{'), "404", "NotFound"),
        (body, "408", "BodyTimeout"),
        (body, "413", "BodyTooLarge"),
        (body, "415", "UnsupportedMediaType"),
        (!keyless, "429", "Overloaded"),
        (!keyless, "500", "Internal"),
        (path != "/healthz", "503", "Unavailable"),
    ] {
        if applies {
            operation
                .responses
                .responses
                .entry(status.to_owned())
                .or_insert_with(|| RefOr::Ref(Ref::from_response_name(name)));
        }
    }
}

/// The routes that are not about the scheduler but about its API.
pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route(DOCUMENT, get(document))
        .route("/api/docs", get(async || Redirect::to("/api/docs/")))
        .route("/api/docs/", get(async || page("index.html")))
        .route(
            "/api/docs/{*file}",
            get(async |Path(file): Path<String>| page(&file)),
        )
}

async fn document() -> Response {
    static TEXT: LazyLock<Result<Bytes, serde_json::Error>> =
        LazyLock::new(|| serde_json::to_vec(&openapi()).map(Bytes::from));
    match &*TEXT {
        Ok(text) => (
            [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            text.clone(),
        )
            .into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}

fn page(file: &str) -> Response {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        Arc::new(
            Config::from(DOCUMENT)
                .try_it_out_enabled(true)
                .display_request_duration(true)
                // Otherwise the page shows the document to a validator on the internet.
                .validator_url("none"),
        )
    });
    match utoipa_swagger_ui::serve(file, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            let encoding = file
                .gzpipped
                .then_some([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
            let mut response = (
                StatusCode::OK,
                [(CONTENT_TYPE, file.content_type)],
                file.bytes.into_owned(),
            )
                .into_response();
            response.headers_mut().extend(encoding.into_iter().flatten());
            response
        }
        Ok(None) => Problem::new(
            Kind::NoSuchRoute,
            "there is no such file; the pages begin at /api/docs/",
        )
        .into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}
