//! Errors on the wire.

use scheduler_core::port::gateway::ApiError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The gRPC status of a gateway's error, with what a program can act on as `google.rpc` details.
pub(crate) fn from_api(error: ApiError) -> Status {
    match error {
        ApiError::Invalid { field, problem } => invalid(&field, &problem),
        ApiError::NotFound { .. } => Status::not_found(error.to_string()),
        ApiError::Conflict(problem) => Status::failed_precondition(problem),
        ApiError::Unauthenticated(problem) => Status::unauthenticated(problem),
        ApiError::Forbidden(problem) => Status::permission_denied(problem),
        ApiError::Overloaded { problem, retry_after } => Status::with_error_details(
            Code::ResourceExhausted,
            problem,
            ErrorDetails::with_retry_info(Some(retry_after)),
        ),
        ApiError::Unavailable {
            problem,
            retry_after,
            source,
        } => {
            if let Some(cause) = source {
                tracing::warn!(cause = &*cause, "{problem}");
            }
            Status::with_error_details(
                Code::Unavailable,
                problem,
                ErrorDetails::with_retry_info(Some(retry_after)),
            )
        }
        ApiError::Internal(cause) => {
            tracing::error!(cause = &*cause, "a call failed inside the node");
            Status::internal("internal error")
        }
        other => Status::unknown(other.to_string()),
    }
}

/// A field is wrong.
pub(crate) fn invalid(field: &str, problem: &str) -> Status {
    Status::with_error_details(
        Code::InvalidArgument,
        format!("{field}: {problem}"),
        ErrorDetails::with_bad_request_violation(field, problem),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_error_has_its_code() {
        let cases = [
            (ApiError::invalid("f", "p"), Code::InvalidArgument),
            (ApiError::not_found("task", "t1-0-1"), Code::NotFound),
            (ApiError::Conflict("c".into()), Code::FailedPrecondition),
            (ApiError::Unauthenticated("u".into()), Code::Unauthenticated),
            (ApiError::Forbidden("f".into()), Code::PermissionDenied),
            (
                ApiError::Overloaded {
                    problem: "o".into(),
                    retry_after: Duration::ZERO,
                },
                Code::ResourceExhausted,
            ),
            (
                ApiError::Unavailable {
                    problem: "u".into(),
                    retry_after: Duration::ZERO,
                    source: None,
                },
                Code::Unavailable,
            ),
            (ApiError::Internal("secret".into()), Code::Internal),
        ];
        for (error, code) in cases {
            assert_eq!(from_api(error).code(), code);
        }
    }

    #[test]
    fn details_name_the_field_and_the_time_to_wait() {
        let status = from_api(ApiError::invalid("tasks[3].priority", "must be 0 to 9"));
        assert_eq!(status.message(), "tasks[3].priority: must be 0 to 9");
        let violations = status
            .get_details_bad_request()
            .map(|bad| bad.field_violations)
            .unwrap();
        assert_eq!(violations[0].field, "tasks[3].priority");

        let status = from_api(ApiError::Overloaded {
            problem: "too much".into(),
            retry_after: Duration::from_millis(250),
        });
        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry, Some(Duration::from_millis(250)));
    }

    #[test]
    fn the_cause_of_an_internal_error_stays_inside() {
        let status = from_api(ApiError::Internal("secret path".into()));
        assert!(!status.message().contains("secret"));
    }
}
