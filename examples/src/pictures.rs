use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The pictures, served over HTTP on loopback until this is dropped.
#[derive(Debug)]
pub struct Pictures {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Pictures {
    /// Serves them on a free port.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn serve() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/{name}", get(picture))
            .with_state(Self::directory());
        let serving = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, serving })
    }

    /// The names of all pictures, without `.png`, in order.
    ///
    /// # Errors
    ///
    /// Their directory cannot be read.
    pub fn names() -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Self::directory().read_dir()? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".png").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Where a picture is served.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.png", self.address)
    }

    /// What is written on it.
    ///
    /// # Errors
    ///
    /// There is no such picture.
    pub fn text(name: &str) -> std::io::Result<String> {
        std::fs::read_to_string(Self::directory().join(format!("{name}.txt")))
    }

    fn directory() -> PathBuf {
        crate::directory().join("pictures")
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn picture(State(directory): State<PathBuf>, Path(name): Path<String>) -> Response {
    // One of the names that there are, so nothing that leads out of the directory.
    let stem = name.strip_suffix(".png").unwrap_or_default();
    if !Pictures::names().is_ok_and(|names| names.iter().any(|known| known == stem)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match tokio::fs::read(directory.join(name)).await {
        Ok(bytes) => ([(CONTENT_TYPE, "image/png")], bytes).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}
