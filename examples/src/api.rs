use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::Events;

/// A server's HTTP API, as a client in any language would call it: paths and JSON.
#[derive(Clone, Debug)]
pub struct Api {
    bases: Arc<[String]>,
    /// Counts requests: they go to the servers in turn.
    turn: Arc<AtomicUsize>,
    key: Option<String>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The `Location` header, empty if there was none.
    pub location: String,
    /// The `Content-Type` header, empty if there was none.
    pub media_type: String,
    /// The body as JSON; null if it was empty, and text if it was no JSON.
    pub body: Value,
}

impl Api {
    /// The API of a server at `http://host:port`.
    pub fn new(base: impl Into<String>) -> Self {
        Self::over([base.into()])
    }

    /// The API of several servers, of which each gets a request in turn, as behind a balancer.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn over(bases: impl IntoIterator<Item = String>) -> Self {
        let bases: Arc<[String]> = bases.into_iter().collect();
        assert!(!bases.is_empty(), "an API needs a server");
        Self {
            bases,
            turn: Arc::default(),
            key: None,
            http: reqwest::Client::new(),
        }
    }

    /// The same with an API key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// Where the server is whose turn it is.
    fn base(&self) -> &str {
        &self.bases[self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len()]
    }

    /// A request to `path`, with the key if there is one.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base()));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Gets a path.
    ///
    /// # Errors
    ///
    /// There is no answer. An answer that says no is none.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        Answer::of(self.request(Method::GET, path).send().await?).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, body).await
    }

    /// Sends JSON.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Answer> {
        Answer::of(self.request(method, path).json(body).send().await?).await
    }

    /// Deletes.
    ///
    /// # Errors
    ///
    /// As [`Api::get`].
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        Answer::of(self.request(Method::DELETE, path).send().await?).await
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    ///
    /// There is no answer, or it says no.
    pub async fn events(&self, path: &str) -> anyhow::Result<Events> {
        let response = self.request(Method::GET, path).send().await?;
        let response = response
            .error_for_status()
            .with_context(|| format!("events of {path}"))?;
        Ok(Events::new(response))
    }
}

impl Answer {
    /// Reads a whole answer.
    ///
    /// # Errors
    ///
    /// It broke off.
    pub async fn of(response: Response) -> anyhow::Result<Self> {
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, location, media_type) = (response.status(), header("location"), header("content-type"));
        let text = response.text().await?;
        let body = match serde_json::from_str(&text) {
            Ok(json) => json,
            Err(_) if text.is_empty() => Value::Null,
            Err(_) => Value::String(text),
        };
        Ok(Self {
            status,
            location,
            media_type,
            body,
        })
    }

    /// The body, if the status says yes.
    ///
    /// # Errors
    ///
    /// It says no; the error has what the server wrote.
    pub fn ok(self) -> anyhow::Result<Value> {
        anyhow::ensure!(self.status.is_success(), "{}: {}", self.status, self.body);
        Ok(self.body)
    }
}
