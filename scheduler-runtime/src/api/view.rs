//! One shape for a task, wherever it was found.

use bytes::Bytes;
use scheduler_core::id::{Attempt, Offset, ShardId};
use scheduler_core::outcome::{DeadTask, Ending, FinishedTask, ParkedTask};
use scheduler_core::port::gateway::{TaskState, TaskView};
use scheduler_core::shard::Found;
use scheduler_core::task::{Record, RecordBody};
use scheduler_core::time::Timestamp;

fn blank(shard: ShardId, offset: Offset, state: TaskState, submitted_at: Timestamp) -> TaskView {
    TaskView {
        id: shard.task(offset),
        state,
        attempts: Attempt::default(),
        priority: None,
        submitted_at,
        started_at: None,
        finished_at: None,
        next_attempt_at: None,
        progress: Bytes::new(),
        output: Bytes::new(),
        error: String::new(),
        dead_reason: None,
        params: None,
        waiting: None,
    }
}

/// What a shard has found, if it has.
pub(crate) fn of_found(shard: ShardId, found: Found) -> Option<TaskView> {
    match found {
        Found::Live(view) => Some(view),
        Found::Finished(task) => Some(of_finished(shard, task)),
        Found::Dead(task) => Some(of_dead(shard, task)),
        Found::Elsewhere | Found::Ahead => None,
    }
}

pub(crate) fn of_finished(shard: ShardId, task: FinishedTask) -> TaskView {
    let (output, error) = match task.ending {
        Ending::Succeeded => (task.output, String::new()),
        Ending::Cancelled | Ending::Expired => {
            (Bytes::new(), String::from_utf8_lossy(&task.output).into_owned())
        }
        Ending::Duplicate => {
            let first = String::from_utf8_lossy(&task.output);
            let error = format!("a duplicate of task {first}, which has the same idempotency key");
            (Bytes::new(), error)
        }
    };
    TaskView {
        attempts: task.attempts,
        started_at: (task.started_at > Timestamp::ZERO).then_some(task.started_at),
        finished_at: Some(task.finished_at),
        output,
        error,
        ..blank(shard, task.offset, task.ending.into(), task.submitted_at)
    }
}

pub(crate) fn of_dead(shard: ShardId, task: DeadTask) -> TaskView {
    TaskView {
        attempts: task.attempts,
        priority: Some(task.spec.priority),
        finished_at: Some(task.died_at),
        error: task.error,
        dead_reason: Some(task.reason),
        params: Some(task.spec.params),
        ..blank(shard, task.offset, TaskState::Dead, task.submitted_at)
    }
}

/// A row of the store that nobody has in memory.
pub(crate) fn of_parked(shard: ShardId, task: ParkedTask) -> TaskView {
    let delayed = task.wake_at > Timestamp::ZERO;
    TaskView {
        attempts: task.attempts,
        priority: Some(task.spec.priority),
        next_attempt_at: delayed.then_some(task.wake_at),
        params: Some(task.spec.params),
        ..blank(
            shard,
            task.offset,
            if delayed {
                TaskState::Delayed
            } else {
                TaskState::Queued
            },
            task.submitted_at,
        )
    }
}

/// A record that has not been loaded.
pub(crate) fn of_record(shard: ShardId, record: Record) -> TaskView {
    let view = blank(shard, record.offset, TaskState::Queued, record.appended_at);
    match record.body {
        RecordBody::Task(spec) => TaskView {
            priority: Some(spec.priority),
            params: Some(spec.params),
            ..view
        },
        RecordBody::Undecodable { raw, .. } => TaskView {
            params: Some(raw),
            ..view
        },
    }
}
