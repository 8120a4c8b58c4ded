//! What can happen, and under which policies.

use std::time::Duration;

use proptest::prelude::*;
use scheduler_core::policy::{Aging, CheckpointPolicy, PipelinePolicy, RetryPolicy, Timeouts, Window};

pub(crate) const WORKERS: usize = 3;
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// One thing that the world does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// Somebody submits tasks.
    Submit {
        tasks: u8,
        priority: u8,
        delay: u16,
        deadline: u16,
        /// Their idempotency key; 0 is none.
        key: u8,
    },
    /// A record that is no task.
    SubmitNonsense,
    /// The log leaves out offsets.
    Gap(u8),
    /// The forwarder delivers up to so many records.
    Forward(u8),
    /// A worker asks; `lost`: its connection breaks before it hears the answer.
    Ask {
        worker: u8,
        limit: u8,
        lost: bool,
    },
    /// A worker reports one of its leases.
    Report {
        worker: u8,
        which: u8,
        how: u8,
    },
    Alive(u8),
    Extend {
        worker: u8,
        which: u8,
    },
    /// A worker connects, again or for the first time.
    Attach(u8),
    /// A worker's connection breaks.
    Detach(u8),
    /// A worker dies with all it knows.
    Die(u8),
    Cancel(u8),
    Hasten(u8),
    Redrive(u8),
    Advance(u16),
    Flush,
    /// The store takes the checkpoint, and we hear of it or not yet.
    Save {
        heard: bool,
    },
    /// The store answers with a page of parked tasks; `late`: as it was read now, heard later.
    Load {
        late: bool,
    },
    /// The store's last answer comes a second time.
    LoadAgain,
    /// The shard's process dies; its last checkpoint reached the store or not.
    Crash {
        saved: bool,
    },
    /// The shard is released and taken over.
    Move,
}

pub(crate) fn ops() -> impl Strategy<Value = Op> {
    let delay = prop_oneof![6 => Just(0u16), 1 => 1..2_000u16, 1 => 4_000..20_000u16];
    let deadline = prop_oneof![6 => Just(0u16), 1 => 1..20_000u16];
    let advance = prop_oneof![6 => 0..300u16, 2 => 300..3_000u16, 1 => 3_000..12_000u16];
    prop_oneof![
        10 => (1..6u8, 0..10u8, delay, deadline, prop_oneof![6 => Just(0u8), 1 => 1..6u8])
            .prop_map(|(tasks, priority, delay, deadline, key)| Op::Submit { tasks, priority, delay, deadline, key }),
        1 => Just(Op::SubmitNonsense),
        1 => prop_oneof![4 => 1..4u8, 1 => 20..80u8].prop_map(Op::Gap),
        14 => (1..9u8).prop_map(Op::Forward),
        14 => (any::<u8>(), 1..6u8, prop::bool::weighted(0.1))
            .prop_map(|(worker, limit, lost)| Op::Ask { worker, limit, lost }),
        20 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(worker, which, how)| Op::Report { worker, which, how }),
        4 => any::<u8>().prop_map(Op::Alive),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(worker, which)| Op::Extend { worker, which }),
        6 => any::<u8>().prop_map(Op::Attach),
        2 => any::<u8>().prop_map(Op::Detach),
        1 => any::<u8>().prop_map(Op::Die),
        2 => any::<u8>().prop_map(Op::Cancel),
        2 => any::<u8>().prop_map(Op::Hasten),
        1 => any::<u8>().prop_map(Op::Redrive),
        12 => advance.prop_map(Op::Advance),
        1 => Just(Op::Flush),
        8 => any::<bool>().prop_map(|heard| Op::Save { heard }),
        6 => any::<bool>().prop_map(|late| Op::Load { late }),
        1 => Just(Op::LoadAgain),
        2 => any::<bool>().prop_map(|saved| Op::Crash { saved }),
        1 => Just(Op::Move),
    ]
}

/// Policies of a world so small that every limit is met.
pub(crate) fn policies() -> impl Strategy<Value = PipelinePolicy> {
    let retry =
        (1..5u32, prop_oneof![Just(0u64), Just(1_500u64)]).prop_map(|(max_attempts, initial)| RetryPolicy {
            max_attempts,
            initial_backoff: Duration::from_millis(initial),
            factor: 3.0,
            max_backoff: Duration::from_secs(9),
            ..RetryPolicy::default()
        });
    let seldom = |millis: std::ops::Range<u64>| prop_oneof![3 => Just(None), 1 => millis.prop_map(|millis| Some(Duration::from_millis(millis)))];
    let timeouts = (seldom(500..5_000), seldom(1_000..30_000)).prop_map(|(start, total)| Timeouts {
        start,
        run: Duration::from_secs(10),
        heartbeat: Duration::from_secs(3),
        total,
    });
    let window = (1..20u32, 2..60u32).prop_map(|(max_tasks, max_span)| Window {
        max_tasks,
        max_bytes: 64 << 10,
        max_span,
        park_after: Duration::from_secs(4),
    });
    (retry, timeouts, window, 1..10u32).prop_map(|(retry, timeouts, window, max_ended)| PipelinePolicy {
        retry,
        timeouts,
        aging: Aging(Duration::from_secs(1)),
        checkpoint: CheckpointPolicy {
            interval: Duration::from_millis(500),
            max_ended,
        },
        window,
        ..PipelinePolicy::default()
    })
}
