//! Errors between nodes: the status is for the transport, the details are the error itself.

use std::time::Duration;

use prost::Message as _;
use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::port::gateway::ApiError;
use scheduler_proto::node as wire;
use scheduler_proto::node::error::Kind;
use tonic::{Code, Status};

use super::{put_span, span};

/// Bytes of one text of an error: it travels in a header.
const MAX_TEXT: usize = 8 << 10;
/// When a node that does not answer may answer again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The status that carries an error to another node.
pub(in crate::node) fn put_error(error: ApiError) -> Status {
    let code = match &error {
        ApiError::Invalid { .. } => Code::InvalidArgument,
        ApiError::NotFound { .. } => Code::NotFound,
        ApiError::Conflict(_) | ApiError::Elsewhere(_) => Code::FailedPrecondition,
        ApiError::Unauthenticated(_) => Code::Unauthenticated,
        ApiError::Forbidden(_) => Code::PermissionDenied,
        ApiError::Overloaded { .. } => Code::ResourceExhausted,
        ApiError::Unavailable { .. } => Code::Unavailable,
        _ => Code::Internal,
    };
    let kind = match error {
        ApiError::Invalid { field, problem } => Kind::Invalid(wire::error::Invalid {
            field: bounded(field),
            problem: bounded(problem),
        }),
        ApiError::NotFound { kind, name } => Kind::NotFound(wire::error::NotFound {
            kind: kind.to_owned(),
            name: bounded(name),
        }),
        ApiError::Conflict(problem) => Kind::Conflict(bounded(problem)),
        ApiError::Unauthenticated(problem) => Kind::Unauthenticated(bounded(problem)),
        ApiError::Forbidden(problem) => Kind::Forbidden(bounded(problem)),
        ApiError::Overloaded { problem, retry_after } => Kind::Overloaded(wire::error::Overloaded {
            problem: bounded(problem),
            retry_after: Some(put_span(retry_after)),
        }),
        ApiError::Unavailable {
            problem,
            retry_after,
            source,
        } => Kind::Unavailable(wire::error::Unavailable {
            problem: bounded(problem),
            retry_after: Some(put_span(retry_after)),
            source: source.map(|source| bounded(with_causes(&*source))),
        }),
        ApiError::Elsewhere(shard) => Kind::Elsewhere(wire::Shard {
            pipeline: shard.pipeline.0,
            partition: shard.partition.0,
        }),
        ApiError::Internal(cause) => Kind::Internal(bounded(with_causes(&*cause))),
        other => Kind::Internal(bounded(other.to_string())),
    };
    let details = wire::Error { kind: Some(kind) }.encode_to_vec();
    Status::with_details(code, "see the details", details.into())
}

/// The error of the node at `address`, or that it could not be asked.
pub(in crate::node) fn error(status: &Status, address: &str) -> ApiError {
    let said = wire::Error::decode(status.details())
        .ok()
        .and_then(|error| error.kind);
    match said {
        Some(Kind::Invalid(wire::error::Invalid { field, problem })) => ApiError::Invalid { field, problem },
        Some(Kind::NotFound(wire::error::NotFound { kind, name })) => ApiError::NotFound {
            kind: known_kind(&kind),
            name,
        },
        Some(Kind::Conflict(problem)) => ApiError::Conflict(problem),
        Some(Kind::Unauthenticated(problem)) => ApiError::Unauthenticated(problem),
        Some(Kind::Forbidden(problem)) => ApiError::Forbidden(problem),
        Some(Kind::Overloaded(wire::error::Overloaded { problem, retry_after })) => ApiError::Overloaded {
            problem,
            retry_after: span(retry_after),
        },
        Some(Kind::Unavailable(wire::error::Unavailable {
            problem,
            retry_after,
            source,
        })) => ApiError::Unavailable {
            problem,
            retry_after: span(retry_after),
            source: source.map(Into::into),
        },
        Some(Kind::Elsewhere(shard)) => ApiError::Elsewhere(ShardId::new(
            PipelineId(shard.pipeline),
            Partition(shard.partition),
        )),
        Some(Kind::Internal(cause)) => ApiError::Internal(format!("node {address}: {cause}").into()),
        None => unanswered(status, address),
    }
}

/// The call did not reach a gateway, or its answer did not come back.
fn unanswered(status: &Status, address: &str) -> ApiError {
    let problem = match status.code() {
        Code::Unauthenticated => format!("node {address} has another cluster secret"),
        Code::Unimplemented => format!("node {address} takes no calls of nodes"),
        Code::OutOfRange | Code::ResourceExhausted => {
            return ApiError::Internal(
                format!("a message of node {address} is too large: {}", status.message()).into(),
            );
        }
        _ => format!("node {address} does not answer"),
    };
    let cause = with_causes(status);
    ApiError::Unavailable {
        problem,
        retry_after: RETRY_AFTER,
        source: Some(cause.into()),
    }
}

/// That the node at `address` did not answer in time.
pub(in crate::node) fn too_late(address: &str, after: Duration) -> ApiError {
    ApiError::Unavailable {
        problem: format!("node {address} does not answer"),
        retry_after: RETRY_AFTER,
        source: Some(format!("no answer within {} ms", after.as_millis()).into()),
    }
}

/// Kinds are named by the code, so that each has to be known here.
fn known_kind(kind: &str) -> &'static str {
    const KINDS: [&str; 7] = [
        "application",
        "pipeline",
        "task",
        "dead letter",
        "client",
        "key",
        "partition",
    ];
    KINDS
        .into_iter()
        .find(|known| *known == kind)
        .unwrap_or("such thing as")
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every variant; a new one has to be added to `put_error` and `error`, and here.
    fn errors() -> impl Strategy<Value = ApiError> {
        let text = || ".{0,40}".prop_map(String::from);
        let wait = || (0..u64::MAX, 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n));
        prop_oneof![
            (text(), text()).prop_map(|(field, problem)| ApiError::Invalid { field, problem }),
            (
                prop::sample::select(vec!["task", "dead letter", "pipeline", "application"]),
                text()
            )
                .prop_map(|(kind, name)| ApiError::NotFound { kind, name }),
            text().prop_map(ApiError::Conflict),
            text().prop_map(ApiError::Unauthenticated),
            text().prop_map(ApiError::Forbidden),
            (text(), wait()).prop_map(|(problem, retry_after)| ApiError::Overloaded { problem, retry_after }),
            (text(), wait(), prop::option::of(text())).prop_map(|(problem, retry_after, source)| {
                ApiError::Unavailable {
                    problem,
                    retry_after,
                    source: source.map(Into::into),
                }
            }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(p, n)| ApiError::Elsewhere(ShardId::new(PipelineId(p), Partition(n)))),
            text().prop_map(|cause| ApiError::Internal(cause.into())),
        ]
    }

    proptest! {
        #[test]
        fn an_error_comes_back_equal(sent in errors()) {
            let before = format!("{sent:?}");
            let is_internal = matches!(sent, ApiError::Internal(_));
            // As it travels: code and details in headers.
            let status = put_error(sent);
            let status = Status::with_details(status.code(), status.message(), bytes::Bytes::copy_from_slice(status.details()));
            let after = error(&status, "b");
            if is_internal {
                // It says which node it was.
                let ApiError::Internal(cause) = after else {
                    panic!("{after:?}")
                };
                prop_assert!(cause.to_string().starts_with("node b: "));
            } else {
                prop_assert_eq!(format!("{after:?}"), before);
            }
        }

        #[test]
        fn a_status_of_the_way_is_unavailable(code in 0..17i32, details in prop::collection::vec(any::<u8>(), 0..20)) {
            let status = Status::with_details(Code::from(code), "m", details.into());
            // Whatever the bytes say, it is an error and no panic.
            let _ = error(&status, "b");
            let plain = error(&Status::new(Code::Unavailable, "connection refused"), "b");
            let is_unavailable = matches!(plain, ApiError::Unavailable { .. });
            prop_assert!(is_unavailable);
        }
    }

    #[test]
    fn a_long_text_is_cut_and_still_fits_a_header() {
        let status = put_error(ApiError::invalid("f".repeat(1 << 20), "ä".repeat(1 << 20)));
        assert!(status.details().len() < 3 * MAX_TEXT);
    }
}
