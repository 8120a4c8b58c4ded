//! Asks the router in process.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use scheduler_http::{HttpConfig, router};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::fake::{FakeGateway, KEY};

/// The path of the pipeline that most tests are about.
pub(crate) const OCR: &str = "/api/applications/myname/pipelines/ocr";

/// An API over a fake gateway.
pub(crate) struct World {
    pub(crate) gateway: Arc<FakeGateway>,
    pub(crate) router: Router,
}

/// An answer as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Each line as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Small limits, so that tests reach them.
pub(crate) fn small() -> HttpConfig {
    HttpConfig {
        max_params: 200,
        max_body: 2_000,
        max_line: 300,
        bulk_batch_lines: 4,
        max_page: 50,
        ..HttpConfig::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(small())
    }

    pub(crate) fn with(config: HttpConfig) -> Self {
        let gateway = Arc::new(FakeGateway::default());
        let router = router(gateway.clone(), config);
        Self { gateway, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(with_key(Method::GET, path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn call(&self, method: Method, path: &str) -> Answer {
        self.send(with_key(method, path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, json: &str) -> Answer {
        self.post_with(path, json, &[]).await
    }

    pub(crate) async fn post_with(&self, path: &str, json: &str, headers: &[(&'static str, &str)]) -> Answer {
        self.json(Method::POST, path, json.as_bytes(), headers).await
    }

    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut request = with_key(method, path)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(Bytes::copy_from_slice(body)))
            .unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        self.send(request).await
    }

    pub(crate) async fn bulk(&self, query: &str, body: Body) -> Answer {
        let request = with_key(Method::POST, &format!("{OCR}/tasks/bulk{query}"))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body)
            .unwrap();
        self.send(request).await
    }
}

pub(crate) fn with_key(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {KEY}"))
}
