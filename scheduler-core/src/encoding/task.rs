//! Tasks as they were submitted, are parked, and died.

use super::{flag, option, put_option, put_timestamp, timestamp};
use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::id::{Attempt, Offset};
use crate::outcome::{DeadReason, DeadTask, ParkedTask};
use crate::task::{Priority, TaskOptions, TaskSpec};
use crate::time::Timestamp;

/// Appends a task as it was submitted.
pub fn put_spec(out: &mut Vec<u8>, spec: &TaskSpec) {
    out.push(spec.priority.level());
    put_bytes(out, &spec.params);
    out.push(spec.options.is_some().into());
    let Some(options) = &spec.options else { return };
    for moment in [options.not_before, options.deadline] {
        out.push(moment.is_some().into());
        put_timestamp(out, moment.unwrap_or_default());
    }
    put_option(out, options.idempotency_key.as_ref());
    put_option(out, options.traceparent.as_ref());
}

/// The inverse of [`put_spec`].
pub fn spec(from: &mut Reader) -> Result<TaskSpec, DecodeError> {
    let priority = from.byte()?;
    let priority = Priority::new(priority).ok_or_else(|| from.error("a priority is not 0 to 9"))?;
    let params = from.bytes()?;
    let options = if flag(from)? {
        Some(Box::new(TaskOptions {
            not_before: some_timestamp(from)?,
            deadline: some_timestamp(from)?,
            idempotency_key: option(from)?,
            traceparent: option(from)?,
        }))
    } else {
        None
    };
    Ok(TaskSpec {
        params,
        priority,
        options,
    })
}

fn some_timestamp(from: &mut Reader) -> Result<Option<Timestamp>, DecodeError> {
    let is_there = flag(from)?;
    let moment = timestamp(from)?;
    Ok(is_there.then_some(moment))
}

/// Appends a parked task.
pub fn put_parked_task(out: &mut Vec<u8>, task: &ParkedTask) {
    put_varint(out, task.offset.0);
    put_timestamp(out, task.wake_at);
    put_varint(out, task.attempts.0.into());
    put_varint(out, task.forgiven.into());
    put_timestamp(out, task.submitted_at);
    put_spec(out, &task.spec);
}

/// The inverse of [`put_parked_task`].
pub fn parked_task(from: &mut Reader) -> Result<ParkedTask, DecodeError> {
    Ok(ParkedTask {
        offset: Offset(from.varint()?),
        wake_at: timestamp(from)?,
        attempts: Attempt(from.number()?),
        forgiven: from.number()?,
        submitted_at: timestamp(from)?,
        spec: spec(from)?,
    })
}

/// Appends a dead letter.
pub fn put_dead_task(out: &mut Vec<u8>, task: &DeadTask) {
    put_varint(out, task.offset.0);
    out.push(match task.reason {
        DeadReason::AttemptsExhausted => 0,
        DeadReason::Rejected => 1,
        DeadReason::Undecodable => 2,
    });
    put_bytes(out, task.error.as_bytes());
    put_varint(out, task.attempts.0.into());
    put_timestamp(out, task.submitted_at);
    put_timestamp(out, task.died_at);
    put_spec(out, &task.spec);
}

/// The inverse of [`put_dead_task`].
pub fn dead_task(from: &mut Reader) -> Result<DeadTask, DecodeError> {
    Ok(DeadTask {
        offset: Offset(from.varint()?),
        reason: match from.byte()? {
            0 => DeadReason::AttemptsExhausted,
            1 => DeadReason::Rejected,
            2 => DeadReason::Undecodable,
            _ => return Err(from.error("why a task died is unknown")),
        },
        error: from.text()?,
        attempts: Attempt(from.number()?),
        submitted_at: timestamp(from)?,
        died_at: timestamp(from)?,
        spec: spec(from)?,
    })
}
