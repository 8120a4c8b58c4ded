//! Between a server and its API server: lets so many changes of the cluster through and holds the next, so that a server that is killed then was
//! killed between two of its steps.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The largest request of an API server's client.
const MAX_BODY: usize = 4 << 20;

/// Where a server is to find the cluster.
pub(crate) struct Gate {
    passing: Arc<Passing>,
    serving: JoinHandle<()>,
}

struct Passing {
    client: Client,
    /// Of which kinds of objects changes are counted; all if it is empty.
    kinds: &'static [&'static str],
    /// How many changes may still go through, and whether one is held.
    left: watch::Sender<Left>,
}

#[derive(Clone, Copy)]
struct Left {
    changes: u64,
    is_held: bool,
}

impl Left {
    const ALL: Self = Self {
        changes: u64::MAX,
        is_held: false,
    };
}

impl Gate {
    /// Before the cluster that the client sees. `kubeconfig` becomes the file that leads there. Changes of other kinds of objects than these go through
    /// uncounted, if any are named.
    pub(crate) async fn before(client: Client, kubeconfig: &Path, kinds: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "gate", "cluster": {"server": url}}],
            "users": [{"name": "gate", "user": {}}],
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
            "current-context": "gate",
        });
        std::fs::write(kubeconfig, file.to_string()).unwrap();
        let passing = Arc::new(Passing {
            client,
            kinds,
            left: watch::Sender::new(Left::ALL),
        });
        let router = Router::new().fallback(pass).with_state(passing.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { passing, serving }
    }

    /// Holds changes once so many have been made.
    pub(crate) fn hold_after(&self, changes: u64) {
        let is_held = false;
        self.passing.left.send_replace(Left { changes, is_held });
    }

    /// A change is held.
    pub(crate) async fn held(&self) {
        let mut left = self.passing.left.subscribe();
        left.wait_for(|left| left.is_held).await.unwrap();
    }

    /// Lets everything through again.
    pub(crate) fn open(&self) {
        self.passing.left.send_replace(Left::ALL);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Passing {
    /// Waits until a change may go through.
    async fn take_turn(&self) {
        let mut left = self.left.subscribe();
        loop {
            let mut may = false;
            self.left.send_modify(|left| {
                may = left.changes > 0;
                left.is_held = !may;
                left.changes = left.changes.saturating_sub(1);
            });
            if may {
                return;
            }
            left.wait_for(|left| left.changes > 0).await.unwrap();
        }
    }
}

async fn pass(State(passing): State<Arc<Passing>>, request: Request) -> Response {
    let is_trial = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("dryRun"));
    let mut parts = request.uri().path().split('/');
    let is_counted = passing.kinds.is_empty() || parts.any(|part| passing.kinds.contains(&part));
    if is_counted && !request.method().is_safe() && !is_trial {
        passing.take_turn().await;
    }
    match forward(&passing.client, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn forward(client: &Client, request: Request) -> Result<Response, Box<dyn std::error::Error>> {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove("host");
    let body = to_bytes(body, MAX_BODY).await?;
    let answer = client.send(Request::from_parts(parts, body.into())).await?;
    Ok(answer.map(Body::new))
}
