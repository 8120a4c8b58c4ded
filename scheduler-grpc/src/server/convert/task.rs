//! Tasks.

use scheduler_core::id::{Offset, Partition, TaskId};
use scheduler_core::outcome::{DeadReason, DeadTask};
use scheduler_core::port::gateway::{DeadSelection, PageCursor, TaskState, TaskView, Waiting};
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_proto::api as wire;
use tonic::Status;

use super::moment;
use crate::server::status::invalid;

/// Tasks of one submission, and ids of one selection.
const MAX_BATCH: usize = 10_000;
/// Tasks of a page, when nothing is said.
const PAGE: u32 = 100;
/// Tasks of a page, at most.
const MAX_PAGE: u32 = 1000;
/// Bytes of a page, more or less: what any client takes in one message.
const PAGE_BYTES: usize = 3 << 20;

pub(crate) fn task_specs(tasks: Vec<wire::NewTask>) -> Result<Vec<TaskSpec>, Status> {
    if tasks.is_empty() {
        return Err(invalid("tasks", "must have at least one task"));
    }
    if tasks.len() > MAX_BATCH {
        return Err(invalid(
            "tasks",
            &format!("must have at most {MAX_BATCH} tasks, has {}", tasks.len()),
        ));
    }
    tasks
        .into_iter()
        .enumerate()
        .map(|(index, task)| task_spec(task, index))
        .collect()
}

fn task_spec(task: wire::NewTask, index: usize) -> Result<TaskSpec, Status> {
    let priority = match task.priority {
        None => Priority::NORMAL,
        Some(level) => u8::try_from(level).ok().and_then(Priority::new).ok_or_else(|| {
            invalid(
                &format!("tasks[{index}].priority"),
                "must be 0 (last) to 9 (first)",
            )
        })?,
    };
    let said = |key: bytes::Bytes| Some(key).filter(|key| !key.is_empty());
    let options = TaskOptions {
        not_before: task.not_before_ms.map(Timestamp::from_millis),
        deadline: task.deadline_ms.map(Timestamp::from_millis),
        idempotency_key: said(task.idempotency_key),
        traceparent: said(task.traceparent),
    };
    Ok(TaskSpec {
        params: task.params,
        priority,
        options: (options != TaskOptions::default()).then(|| Box::new(options)),
    })
}

pub(crate) fn task_id(text: &str, field: &str) -> Result<TaskId, Status> {
    text.parse()
        .map_err(|problem: scheduler_core::id::ParseTaskIdError| invalid(field, &problem.to_string()))
}

pub(crate) fn states(states: &[i32]) -> Result<Vec<TaskState>, Status> {
    let state = |(index, &state): (usize, &i32)| match wire::TaskState::try_from(state) {
        Ok(wire::TaskState::Queued) => Ok(TaskState::Queued),
        Ok(wire::TaskState::Delayed) => Ok(TaskState::Delayed),
        Ok(wire::TaskState::Running) => Ok(TaskState::Running),
        Ok(wire::TaskState::Succeeded) => Ok(TaskState::Succeeded),
        Ok(wire::TaskState::Dead) => Ok(TaskState::Dead),
        Ok(wire::TaskState::Cancelled) => Ok(TaskState::Cancelled),
        Ok(wire::TaskState::Expired) => Ok(TaskState::Expired),
        Ok(wire::TaskState::Unspecified) | Err(_) => Err(invalid(
            &format!("states[{index}]"),
            "is no state; leave states empty for all of them",
        )),
    };
    states.iter().enumerate().map(state).collect()
}

/// How many items a page is to have.
pub(crate) fn limit(limit: u32) -> Result<usize, Status> {
    match limit {
        0 => Ok(PAGE as usize),
        1..=MAX_PAGE => Ok(limit as usize),
        _ => Err(invalid("limit", &format!("must be at most {MAX_PAGE}"))),
    }
}

pub(crate) fn cursor(text: &str) -> Result<Option<PageCursor>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.split_once('.')
        .and_then(|(partition, offset)| {
            Some(PageCursor {
                partition: Partition(partition.parse().ok()?),
                offset: Offset(offset.parse().ok()?),
            })
        })
        .map(Some)
        .ok_or_else(|| invalid("cursor", "must be the next_cursor of an earlier answer, or empty"))
}

/// A page as it travels: cut where it would be too long for one message, which only moves the cursor.
pub(crate) fn page(
    tasks: impl Iterator<Item = (TaskId, wire::Task)>,
    next: Option<PageCursor>,
) -> (Vec<wire::Task>, String) {
    let cursor_text = |cursor: PageCursor| format!("{}.{}", cursor.partition.0, cursor.offset.0);
    let mut page = Vec::new();
    let mut bytes = 0;
    let mut last: Option<TaskId> = None;
    for (id, task) in tasks {
        bytes += weight(&task);
        if let Some(last) = last.filter(|_| bytes > PAGE_BYTES) {
            let cut = PageCursor {
                partition: last.shard.partition,
                offset: last.offset,
            };
            return (page, cursor_text(cut));
        }
        page.push(task);
        last = Some(id);
    }
    (page, next.map(cursor_text).unwrap_or_default())
}

fn weight(task: &wire::Task) -> usize {
    let params = task.params.as_ref().map_or(0, bytes::Bytes::len);
    128 + params + task.output.len() + task.progress.len() + task.error.len()
}

pub(crate) fn selection(selection: &wire::DeadLetterSelection) -> Result<DeadSelection, Status> {
    match (selection.all, selection.ids.len()) {
        (true, 0) => Ok(DeadSelection::All),
        (true, _) => Err(invalid("all", "must not be set together with ids")),
        (false, 0) => Err(invalid("ids", "must name dead letters, or set all for every one")),
        (false, 1..=MAX_BATCH) => {
            let id = |(index, text): (usize, &String)| task_id(text, &format!("ids[{index}]"));
            let ids = selection.ids.iter().enumerate().map(id);
            Ok(DeadSelection::Ids(ids.collect::<Result<_, _>>()?))
        }
        (false, _) => Err(invalid("ids", &format!("must be at most {MAX_BATCH}"))),
    }
}

const fn state(state: TaskState) -> wire::TaskState {
    match state {
        TaskState::Queued => wire::TaskState::Queued,
        TaskState::Delayed => wire::TaskState::Delayed,
        TaskState::Running => wire::TaskState::Running,
        TaskState::Succeeded => wire::TaskState::Succeeded,
        TaskState::Dead => wire::TaskState::Dead,
        TaskState::Cancelled => wire::TaskState::Cancelled,
        TaskState::Expired => wire::TaskState::Expired,
    }
}

const fn dead_reason(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::AttemptsExhausted => "attempts_exhausted",
        DeadReason::Rejected => "rejected",
        DeadReason::Undecodable => "undecodable",
    }
}

pub(crate) fn task(view: TaskView) -> wire::Task {
    wire::Task {
        id: view.id.to_string(),
        state: state(view.state).into(),
        attempts: view.attempts.0,
        priority: view.priority.map(|priority| priority.level().into()),
        submitted_at_ms: view.submitted_at.as_millis(),
        started_at_ms: moment(view.started_at),
        finished_at_ms: moment(view.finished_at),
        next_attempt_at_ms: moment(view.next_attempt_at),
        progress: view.progress,
        output: view.output,
        error: view.error,
        dead_reason: view
            .dead_reason
            .map(|reason| dead_reason(reason).to_owned())
            .unwrap_or_default(),
        params: view.params,
        waiting: view.waiting.map(waiting),
    }
}

fn waiting(waiting: Waiting) -> wire::Waiting {
    wire::Waiting {
        reason: waiting.reason().to_owned(),
        detail: waiting.to_string(),
        ahead: waiting.ahead(),
    }
}

pub(crate) fn dead_task(id: TaskId, dead: DeadTask) -> wire::Task {
    wire::Task {
        id: id.to_string(),
        state: wire::TaskState::Dead.into(),
        attempts: dead.attempts.0,
        priority: Some(dead.spec.priority.level().into()),
        submitted_at_ms: dead.submitted_at.as_millis(),
        finished_at_ms: Some(dead.died_at.as_millis()),
        error: dead.error,
        dead_reason: dead_reason(dead.reason).to_owned(),
        params: Some(dead.spec.params),
        ..wire::Task::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use scheduler_core::id::{PipelineId, ShardId};

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(partition: u32, offset: u64) {
            let next = PageCursor { partition: Partition(partition), offset: Offset(offset) };
            let (_, text) = page(std::iter::empty(), Some(next));
            prop_assert_eq!(cursor(&text).unwrap(), Some(next));
        }

        #[test]
        fn any_text_is_a_cursor_or_an_error(text in ".*") {
            if let Err(status) = cursor(&text) {
                prop_assert!(status.message().starts_with("cursor: "));
            }
        }
    }

    #[test]
    fn a_page_too_long_for_a_message_is_cut_and_goes_on_after_the_cut() {
        let shard = ShardId::new(PipelineId(1), Partition(2));
        let tasks = (0..4).map(|offset| {
            let output = vec![0; PAGE_BYTES / 2].into();
            (
                shard.task(Offset(offset)),
                wire::Task {
                    output,
                    ..wire::Task::default()
                },
            )
        });
        let (tasks, next) = page(tasks, None);
        assert_eq!((tasks.len(), next.as_str()), (1, "2.0"));
    }

    #[test]
    fn a_task_with_nothing_said_carries_no_options() {
        let spec = task_specs(vec![wire::NewTask::default()]).unwrap();
        assert_eq!(spec, [TaskSpec::new("")]);
    }
}
