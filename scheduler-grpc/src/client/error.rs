//! What can go wrong, by what the caller can do about it.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call was not answered as asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    code: Code,
    message: String,
    field: Option<String>,
    retry_after: Option<Duration>,
}

impl ClientError {
    /// The gRPC code: `InvalidArgument` is to be mended, `Unavailable` and `ResourceExhausted` may be tried again, and so on.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The field that is wrong, where the server names one.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// When to try again, where that may help. A submission that failed so may have been taken all the same.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(super) fn connect(address: &str, cause: &dyn std::error::Error) -> Self {
        let mut message = format!("no connection to {address}: {cause}");
        let mut source = cause.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(Code::Unavailable, message)
    }

    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            retry_after: None,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            field: details
                .bad_request()
                .and_then(|bad| bad.field_violations.first())
                .map(|violation| violation.field.clone()),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}
