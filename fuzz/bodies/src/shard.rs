//! The state that a checkpoint carries, and recordings. Whatever the bytes, a shard comes up and works, or says that they are damaged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::{Epoch, Offset, Partition, PipelineId, ShardId, Tenure, WorkerId};
use scheduler_core::policy::{PipelinePolicy, Window};
use scheduler_core::shard::{Input, Output, Shard, ShardConfig};
use scheduler_core::tape::Replay;
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

use crate::split_byte;

/// So many steps of a recording are replayed.
const STEPS: usize = 500;

/// A state blob, after three bytes: resume offset, length of the log from there, whether the last owner vanished.
///
/// A shard that comes up with it takes in the log, leases, and saves a state with which the next one comes up.
pub fn state(data: &[u8]) {
    let (resume, data) = split_byte(data);
    let (len, data) = split_byte(data);
    let (unclean, data) = split_byte(data);
    let resume = Offset(resume.into());
    let end = Offset(resume.0 + u64::from(len));
    let mut now = Timestamp::from_millis(1_000_000_000);
    let config = ShardConfig {
        tenure: Tenure {
            shard: ShardId::new(PipelineId(1), Partition(0)),
            epoch: Epoch(7),
        },
        policy: Arc::new(PipelinePolicy {
            window: Window {
                max_span: 64,
                max_tasks: 32,
                ..Window::default()
            },
            ..PipelinePolicy::default()
        }),
        resume,
        state: Bytes::copy_from_slice(data),
        log_start: Offset::ZERO,
        log_end: end,
        unclean: unclean % 2 == 1,
        grace: Duration::from_secs(5),
    };
    let Ok(mut shard) = Shard::new(now, config.clone()) else {
        return;
    };
    let mut last = None;
    for offset in resume.0..end.0 {
        let record = Record {
            offset: Offset(offset),
            appended_at: now,
            body: RecordBody::Task(TaskSpec::new(vec![b'x'; 8])),
        };
        tell(&mut shard, now, Input::Arrive(record), &mut last);
        if offset % 5 == 0 {
            let worker = WorkerId(u128::from(offset % 3));
            tell(&mut shard, now, Input::Ask { worker, limit: 2 }, &mut last);
        }
        now = now + Duration::from_millis(offset % 2_000);
    }
    for _ in 0..20 {
        let Some(due) = shard.next_deadline() else { break };
        now = now.max(due);
        tell(&mut shard, now, Input::Tick, &mut last);
    }
    tell(&mut shard, now, Input::Flush, &mut last);
    if let Some((saved, state)) = last {
        assert!(
            saved >= resume,
            "the resume offset goes back from {resume:?} to {saved:?}"
        );
        let next = Shard::new(
            now,
            ShardConfig {
                resume: saved,
                state,
                ..config
            },
        );
        assert!(next.is_ok(), "a saved state cannot be read: {:?}", next.err());
    }
}

/// Tells the shard something, and does what it wants done: everything is saved at once, and there are no rows in the store.
fn tell(shard: &mut Shard, now: Timestamp, input: Input, last: &mut Option<(Offset, Bytes)>) {
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        let mut outputs = Vec::new();
        shard.handle(now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Save(checkpoint) => {
                    *last = Some((checkpoint.resume, checkpoint.state.clone()));
                    inputs.push(Input::Saved(checkpoint.id));
                }
                Output::LoadParked { page, .. } => inputs.push(Input::Unpark {
                    page,
                    tasks: Vec::new(),
                    next_wake: Timestamp::MAX,
                }),
                _ => (),
            }
        }
    }
}

/// A recording, which `scheduler replay` is given as a file: it is replayed as far as it can be read.
pub fn tape(data: &[u8]) {
    let bytes = Bytes::from([b"wstape\x01", data].concat());
    let Ok(replay) = Replay::new(&bytes) else { return };
    for step in replay.take(STEPS) {
        if step.is_err() {
            break;
        }
    }
}
