//! Requests over HTTP, each as far as the guard lets it go.

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HeaderName, LOCATION, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use scheduler_core::port::deploy::DeployError;
use url::Url;

use super::guard::{Guard, Resolver};
use crate::chart::invalid;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
const AGENT: &str = concat!("workload-scheduler/", env!("CARGO_PKG_VERSION"));

/// Gets what lies at URLs.
#[derive(Debug)]
pub(super) struct Fetcher {
    guard: Guard,
}

/// What was answered at last.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body, if the answer is a good one.
    pub(super) fn success(self, url: &Url) -> Result<Bytes, DeployError> {
        if self.status.is_success() {
            Ok(self.body)
        } else if self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS {
            Err(DeployError::Unavailable(
                format!("{url} answers {}", self.status).into(),
            ))
        } else {
            Err(invalid("chart", format!("{url} answers {}", self.status)))
        }
    }
}

impl Fetcher {
    pub(super) fn new(private_hosts: &[String]) -> Self {
        Self {
            guard: Guard::new(private_hosts),
        }
    }

    /// Whether the host of the URL may be of the operator's own network.
    pub(super) fn is_private(&self, url: &Url) -> bool {
        self.guard.is_private_allowed(url)
    }

    /// Gets at most `max` bytes. Headers that authorise are for the first host alone.
    pub(super) async fn get(
        &self,
        url: &Url,
        headers: &[(HeaderName, String)],
        max: usize,
    ) -> Result<Answer, DeployError> {
        let mut url = url.clone();
        let first = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            self.guard
                .check(&url)
                .map_err(|problem| invalid("chart", problem))?;
            let mut request = Request::builder()
                .method(Method::GET)
                .uri(url.as_str())
                .header(USER_AGENT, AGENT);
            for (name, value) in headers {
                if *name != AUTHORIZATION || url.origin() == first {
                    request = request.header(name, value);
                }
            }
            let request = request
                .body(Empty::<Bytes>::new())
                .map_err(|error| invalid("chart", format!("{url}: {error}")))?;
            let response = self
                .client(&url)?
                .request(request)
                .await
                .map_err(|error| failed(&url, &error))?;
            let (head, mut body) = response.into_parts();
            if head.status.is_redirection() {
                let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                let location =
                    location.ok_or_else(|| invalid("chart", format!("{url} redirects to nowhere")))?;
                url = url
                    .join(location)
                    .map_err(|error| invalid("chart", format!("{url} redirects to {location}: {error}")))?;
                continue;
            }
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|error| DeployError::Unavailable(format!("{url}: {error}").into()))?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > max {
                    return Err(invalid("chart", format!("{url} has more than {max} bytes")));
                }
                bytes.extend_from_slice(&data);
            }
            return Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: bytes.freeze(),
            });
        }
        Err(invalid(
            "chart",
            format!("redirects more than {MAX_REDIRECTS} times, at last to {url}"),
        ))
    }

    /// A client for one request: a connection that is kept would be one that the guard does not see.
    fn client(
        &self,
        url: &Url,
    ) -> Result<Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>, DeployError> {
        let mut http = HttpConnector::new_with_resolver(self.guard.resolver(url));
        http.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| {
                let problem = format!("the certificates that this system trusts cannot be read: {error}");
                DeployError::Unavailable(problem.into())
            })?;
        let connector = tls.https_or_http().enable_http1().wrap_connector(http);
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }
}

/// What the guard refused will always be refused; everything else may pass.
fn failed(url: &Url, error: &hyper_util::client::legacy::Error) -> DeployError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    let mut is_refused = false;
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            is_refused |= io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        text = format!("{text}: {error}");
        cause = error.source();
    }
    if is_refused {
        invalid("chart", format!("{url}: {text}"))
    } else {
        DeployError::Unavailable(format!("{url}: {text}").into())
    }
}
