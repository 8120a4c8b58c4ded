//! What every error looks like on the wire: RFC 9457 problem details.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, StatusCode};
use scheduler_core::port::gateway::ApiError;
use serde::Serialize;
use utoipa::ToSchema;

/// The kinds of problems. Each has one `type`, one `title` and one status, for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    InvalidField,
    MalformedJson,
    NoSuchRoute,
    NotFound,
    MethodNotAllowed,
    Conflict,
    Unauthenticated,
    Forbidden,
    BodyTooLarge,
    UnsupportedMediaType,
    BodyTimeout,
    BodyBroken,
    Overloaded,
    Unavailable,
    Internal,
}

impl Kind {
    pub(crate) const fn urn(self) -> &'static str {
        match self {
            Self::InvalidField => "urn:workload-scheduler:problem:invalid-field",
            Self::MalformedJson => "urn:workload-scheduler:problem:malformed-json",
            Self::NoSuchRoute => "urn:workload-scheduler:problem:no-such-route",
            Self::NotFound => "urn:workload-scheduler:problem:not-found",
            Self::MethodNotAllowed => "urn:workload-scheduler:problem:method-not-allowed",
            Self::Conflict => "urn:workload-scheduler:problem:conflict",
            Self::Unauthenticated => "urn:workload-scheduler:problem:unauthenticated",
            Self::Forbidden => "urn:workload-scheduler:problem:forbidden",
            Self::BodyTooLarge => "urn:workload-scheduler:problem:body-too-large",
            Self::UnsupportedMediaType => "urn:workload-scheduler:problem:unsupported-media-type",
            Self::BodyTimeout => "urn:workload-scheduler:problem:body-timeout",
            Self::BodyBroken => "urn:workload-scheduler:problem:body-broken",
            Self::Overloaded => "urn:workload-scheduler:problem:overloaded",
            Self::Unavailable => "urn:workload-scheduler:problem:unavailable",
            Self::Internal => "urn:workload-scheduler:problem:internal",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::InvalidField => "A field is wrong",
            Self::MalformedJson => "The body is not JSON",
            Self::NoSuchRoute => "There is no such path",
            Self::NotFound => "It does not exist",
            Self::MethodNotAllowed => "The path does not take this method",
            Self::Conflict => "It does not fit the state things are in",
            Self::Unauthenticated => "An API key is needed",
            Self::Forbidden => "It is not allowed",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body has the wrong media type",
            Self::BodyTimeout => "The body took too long",
            Self::BodyBroken => "The body ended too early",
            Self::Overloaded => "Too much at once",
            Self::Unavailable => "It cannot be done now",
            Self::Internal => "Internal error",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidField | Self::MalformedJson | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::NoSuchRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) field: Option<Cow<'static, str>>,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
    /// Names this one internal error, in the answer and in the log.
    incident: Option<u64>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            field: None,
            detail: detail.into(),
            retry_after: None,
            incident: None,
        }
    }

    /// The field `field` is wrong; `detail` says what would be right.
    pub(crate) fn invalid(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidField, detail).at(field)
    }

    #[must_use]
    pub(crate) fn at(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// An error of ours: the cause goes to the log, its number to the client.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        static INCIDENTS: AtomicU64 = AtomicU64::new(1);
        let incident = INCIDENTS.fetch_add(1, Ordering::Relaxed);
        tracing::error!(incident, "internal error: {cause}");
        let mut problem = Self::new(
            Kind::Internal,
            "the request failed for a reason that is not yours; try it again, and if it stays so, report the instance",
        );
        problem.incident = Some(incident);
        problem
    }

    /// Seconds to wait, at least one: what `Retry-After` takes.
    fn retry_seconds(&self) -> Option<u64> {
        self.retry_after
            .map(|after| after.as_millis().div_ceil(1_000).max(1))
            .map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX))
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let text = error.to_string();
        match error {
            ApiError::Invalid { field, problem } => Self::invalid(field, problem),
            ApiError::NotFound { .. } => Self::new(Kind::NotFound, text),
            ApiError::Conflict(detail) => Self::new(Kind::Conflict, detail),
            ApiError::Unauthenticated(detail) => Self::new(Kind::Unauthenticated, detail),
            ApiError::Forbidden(detail) => Self::new(Kind::Forbidden, detail),
            ApiError::Overloaded { problem, retry_after } => {
                Self::new(Kind::Overloaded, problem).after(retry_after)
            }
            ApiError::Unavailable {
                problem,
                retry_after,
                source,
            } => {
                if let Some(cause) = source {
                    tracing::warn!(
                        error = &*cause as &dyn std::error::Error,
                        "unavailable: {problem}"
                    );
                }
                Self::new(Kind::Unavailable, problem).after(retry_after)
            }
            ApiError::Internal(cause) => Self::internal(&cause),
            other => Self::internal(&other),
        }
    }
}

/// The body of every error, `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(
    as = Problem,
    example = json!({
        "type": "urn:workload-scheduler:problem:invalid-field",
        "title": "A field is wrong",
        "status": 400,
        "detail": "must be 0 (last) to 9 (first), found \"12\"",
        "field": "priority"
    })
)]
pub(crate) struct ProblemBody<'a> {
    /// Names the kind of problem: `urn:workload-scheduler:problem:` and one of `invalid-field`, `malformed-json`,
    /// `no-such-route`, `not-found`, `method-not-allowed`, `conflict`, `unauthenticated`, `forbidden`, `body-too-large`,
    /// `unsupported-media-type`, `body-timeout`, `body-broken`, `overloaded`, `unavailable`, `internal`.
    r#type: &'static str,
    /// The kind, for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong this time, and what would be right.
    detail: &'a str,
    /// What is wrong, as a path: `retry.max_attempts`, `pipeline[0].executor`; a query parameter, a header or a part of the path by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// Names this one error, as the server's log does; of internal errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

/// The media type of errors.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let body = serde_json::to_vec(&ProblemBody {
            r#type: self.kind.urn(),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
            instance: self
                .incident
                .map(|n| format!("urn:workload-scheduler:incident:{n}")),
        })
        .unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        if let Some(seconds) = self.retry_seconds() {
            set(RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthenticated {
            set(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// One line of an answer to a bulk submission: what was wrong with a line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineError<'a> {
    /// The number of the line in the request, from 1.
    line: u64,
    /// The kind of problem, as in a problem body.
    r#type: &'static str,
    /// What is wrong, and what would be right.
    detail: &'a str,
    /// Which field is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// Seconds after which the line may be sent again; only if that can help.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Problem {
    /// This problem as that of line `line`.
    pub(crate) fn of_line(&self, line: u64) -> LineError<'_> {
        LineError {
            line,
            r#type: self.kind.urn(),
            detail: &self.detail,
            field: self.field.as_deref(),
            retry_after: self.retry_seconds(),
        }
    }
}
