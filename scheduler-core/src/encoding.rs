//! How policies, tasks and what was asked of topics become bytes, for adapters that keep them and for recordings.
//!
//! Numbers are varints and strings have their length in front ([`crate::codec`]). Every reader takes any bytes and answers a value or a
//! [`DecodeError`], and allocates no more than the bytes at hand justify.

mod policy;
mod task;
mod topic;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::time::Timestamp;

pub use self::policy::{policy, put_policy};
pub use self::task::{dead_task, parked_task, put_dead_task, put_parked_task, put_spec, spec};
pub use self::topic::{put_topic_settings, topic_settings};

pub(crate) fn put_timestamp(out: &mut Vec<u8>, value: Timestamp) {
    put_varint(out, value.as_millis());
}

pub(crate) fn timestamp(from: &mut Reader) -> Result<Timestamp, DecodeError> {
    from.varint().map(Timestamp::from_millis)
}

pub(crate) fn put_option(out: &mut Vec<u8>, value: Option<&Bytes>) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

pub(crate) fn option(from: &mut Reader) -> Result<Option<Bytes>, DecodeError> {
    Ok(if flag(from)? { Some(from.bytes()?) } else { None })
}

pub(crate) fn flag(from: &mut Reader) -> Result<bool, DecodeError> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(from.error("a yes or no is neither")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Attempt, Offset};
    use crate::outcome::{DeadReason, DeadTask, ParkedTask};
    use crate::policy::PipelinePolicy;
    use crate::port::log::TopicSettings;
    use crate::task::{Priority, TaskOptions, TaskSpec};

    fn specs() -> impl Strategy<Value = TaskSpec> {
        let moment = || proptest::option::of(any::<u64>().prop_map(Timestamp::from_millis));
        let bytes = || proptest::option::of(vec(any::<u8>(), 0..20).prop_map(Bytes::from));
        let options = (moment(), moment(), bytes(), bytes()).prop_map(
            |(not_before, deadline, idempotency_key, traceparent)| {
                Box::new(TaskOptions {
                    not_before,
                    deadline,
                    idempotency_key,
                    traceparent,
                })
            },
        );
        (vec(any::<u8>(), 0..50), 0..=9u8, proptest::option::of(options)).prop_map(
            |(params, level, options)| TaskSpec {
                params: params.into(),
                priority: Priority::new(level).expect("a level"),
                options,
            },
        )
    }

    proptest! {
        #[test]
        fn tasks_survive_their_bytes(spec_in in specs(), offset: u64, attempts: u32, forgiven: u16, at: u64, error: String) {
            let moment = Timestamp::from_millis(at);
            let parked = ParkedTask {
                offset: Offset(offset), wake_at: moment, attempts: Attempt(attempts), forgiven, submitted_at: moment, spec: spec_in.clone(),
            };
            let dead = DeadTask {
                offset: Offset(offset), reason: DeadReason::Rejected, error, attempts: Attempt(attempts),
                submitted_at: moment, died_at: moment, spec: spec_in.clone(),
            };
            let mut out = Vec::new();
            put_spec(&mut out, &spec_in);
            put_parked_task(&mut out, &parked);
            put_dead_task(&mut out, &dead);
            let mut from = Reader::new(out.into());
            prop_assert_eq!(spec(&mut from), Ok(spec_in));
            prop_assert_eq!(parked_task(&mut from), Ok(parked));
            prop_assert_eq!(dead_task(&mut from), Ok(dead));
            prop_assert!(from.is_empty());
        }

        #[test]
        fn a_policy_survives_its_bytes_and_may_be_shorter_than_today(millis in 0..u64::MAX / 1_000_000, attempts: u32, factor: f64, cut in 0..200usize) {
            let mut here = PipelinePolicy::default();
            here.retry.max_attempts = attempts;
            here.retry.factor = factor;
            here.timeouts.total = Some(Duration::from_millis(millis));
            here.retention.dead = Duration::from_millis(millis);
            let mut out = Vec::new();
            put_policy(&mut out, &here);
            let back = policy(out.clone().into());
            prop_assert_eq!(back.map(|policy| format!("{policy:?}")), Ok(format!("{here:?}")));
            let _ = policy(Bytes::from(out).slice(..cut.min(20)));
        }

        #[test]
        fn what_was_asked_of_a_topic_survives_its_bytes(
            replication in proptest::option::of(1..=u16::MAX),
            settings in proptest::collection::btree_map("[a-z.]{1,9}", ".{0,9}", 0..4),
        ) {
            let topic = TopicSettings { replication, settings };
            let mut out = Vec::new();
            put_topic_settings(&mut out, &topic);
            prop_assert_eq!(topic_settings(out.into()), Ok(topic));
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..100)) {
            let bytes = Bytes::from(bytes);
            let _ = policy(bytes.clone());
            let _ = topic_settings(bytes.clone());
            let _ = spec(&mut Reader::new(bytes.clone()));
            let _ = parked_task(&mut Reader::new(bytes.clone()));
            let _ = dead_task(&mut Reader::new(bytes));
        }
    }
}
