//! proptest strategies of the core's types.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::outcome::{DeadReason, DeadTask, Ending, FinishedTask, ParkedTask};
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

/// Up to `max` bytes.
pub fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

/// Any moment.
pub fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

/// Any priority.
pub fn priority() -> impl Strategy<Value = Priority> {
    (0..=Priority::MAX.level()).prop_map(|level| Priority::new(level).unwrap_or_default())
}

/// Any options.
pub fn task_options() -> impl Strategy<Value = TaskOptions> {
    (
        option::of(timestamp()),
        option::of(timestamp()),
        option::of(bytes(8)),
        option::of(bytes(8)),
    )
        .prop_map(
            |(not_before, deadline, idempotency_key, traceparent)| TaskOptions {
                not_before,
                deadline,
                idempotency_key,
                traceparent,
            },
        )
}

/// Any task with small params.
pub fn task_spec() -> impl Strategy<Value = TaskSpec> {
    (
        bytes(64),
        priority(),
        option::of(task_options().prop_map(Box::new)),
    )
        .prop_map(|(params, priority, options)| TaskSpec {
            params,
            priority,
            options,
        })
}

/// Any result.
pub fn finished_task() -> impl Strategy<Value = FinishedTask> {
    let ending = prop_oneof![
        Just(Ending::Succeeded),
        Just(Ending::Cancelled),
        Just(Ending::Expired),
        Just(Ending::Duplicate)
    ];
    (
        any::<u64>(),
        ending,
        any::<u32>(),
        timestamp(),
        timestamp(),
        timestamp(),
        bytes(64),
    )
        .prop_map(
            |(offset, ending, attempts, submitted_at, started_at, finished_at, output)| FinishedTask {
                offset: Offset(offset),
                ending,
                attempts: Attempt(attempts),
                submitted_at,
                started_at,
                finished_at,
                output,
            },
        )
}

/// Any dead letter.
pub fn dead_task() -> impl Strategy<Value = DeadTask> {
    let reason = prop_oneof![
        Just(DeadReason::AttemptsExhausted),
        Just(DeadReason::Rejected),
        Just(DeadReason::Undecodable)
    ];
    (
        any::<u64>(),
        reason,
        ".{0,20}",
        any::<u32>(),
        timestamp(),
        timestamp(),
        task_spec(),
    )
        .prop_map(
            |(offset, reason, error, attempts, submitted_at, died_at, spec)| DeadTask {
                offset: Offset(offset),
                reason,
                error,
                attempts: Attempt(attempts),
                submitted_at,
                died_at,
                spec,
            },
        )
}

/// Any parked task.
pub fn parked_task() -> impl Strategy<Value = ParkedTask> {
    (
        any::<u64>(),
        timestamp(),
        any::<u32>(),
        any::<u16>(),
        timestamp(),
        task_spec(),
    )
        .prop_map(
            |(offset, wake_at, attempts, forgiven, submitted_at, spec)| ParkedTask {
                offset: Offset(offset),
                wake_at,
                attempts: Attempt(attempts),
                forgiven,
                submitted_at,
                spec,
            },
        )
}
