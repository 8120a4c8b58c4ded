//! The dashboard: pages in the binary that ask the API, with the reader's own key, for what they show.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::Api;
use crate::problem::{Kind, Problem};

/// Where it begins.
pub(super) const HOME: &str = "/dashboard/";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, media type and text of each file.
const FILES: [(&str, &str, &str); 8] = [
    (INDEX, HTML, include_str!("../../dashboard/index.html")),
    ("style.css", CSS, include_str!("../../dashboard/style.css")),
    ("app.js", SCRIPT, include_str!("../../dashboard/app.js")),
    ("api.js", SCRIPT, include_str!("../../dashboard/api.js")),
    ("dom.js", SCRIPT, include_str!("../../dashboard/dom.js")),
    ("lists.js", SCRIPT, include_str!("../../dashboard/lists.js")),
    ("pipeline.js", SCRIPT, include_str!("../../dashboard/pipeline.js")),
    ("task.js", SCRIPT, include_str!("../../dashboard/task.js")),
];
const INDEX: &str = "index.html";

/// Names, params and outputs are other people's: nothing in a page runs or is loaded that is not one of [`FILES`].
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/dashboard", get(async || Redirect::to(HOME)))
        .route(HOME, get(async || file(INDEX)))
        .route(
            "/dashboard/{file}",
            get(async |Path(name): Path<String>| file(&name)),
        )
}

fn file(name: &str) -> Response {
    let Some((_, media_type, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        let detail = format!("there is no such file; the dashboard begins at {HOME}");
        return Problem::new(Kind::NoSuchRoute, detail).into_response();
    };
    let headers = [
        (CONTENT_TYPE, *media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Another version of the server has other files under the same names.
        (CACHE_CONTROL, "no-cache"),
    ];
    (
        headers.map(|(name, value)| (name, HeaderValue::from_static(value))),
        *text,
    )
        .into_response()
}
