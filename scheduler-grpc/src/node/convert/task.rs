//! Tasks.

use scheduler_core::id::{Attempt, Offset, Partition, PipelineId, ShardId, TaskId};
use scheduler_core::outcome::{DeadReason, DeadTask};
use scheduler_core::port::gateway::{
    DeadSelection, Page, PageCursor, TaskFilter, TaskState, TaskView, Waiting,
};
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_proto::api::TaskState as WireState;
use scheduler_proto::node as wire;

use super::{Decoded, Malformed, there};
use crate::node::PART_BYTES;

fn moment(millis: Option<u64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}

fn put_moment(moment: Option<Timestamp>) -> Option<u64> {
    moment.map(Timestamp::as_millis)
}

fn priority(level: u32) -> Decoded<Priority> {
    let level = u8::try_from(level).ok().and_then(Priority::new);
    there(level, "priority")
}

pub(in crate::node) fn put_spec(spec: TaskSpec) -> wire::TaskSpec {
    wire::TaskSpec {
        params: spec.params,
        priority: spec.priority.level().into(),
        options: spec.options.map(|options| wire::TaskOptions {
            not_before_ms: put_moment(options.not_before),
            deadline_ms: put_moment(options.deadline),
            idempotency_key: options.idempotency_key,
            traceparent: options.traceparent,
        }),
    }
}

pub(in crate::node) fn spec(spec: wire::TaskSpec) -> Decoded<TaskSpec> {
    Ok(TaskSpec {
        params: spec.params,
        priority: priority(spec.priority)?,
        options: spec.options.map(|options| {
            Box::new(TaskOptions {
                not_before: moment(options.not_before_ms),
                deadline: moment(options.deadline_ms),
                idempotency_key: options.idempotency_key,
                traceparent: options.traceparent,
            })
        }),
    })
}

pub(in crate::node) fn put_id(id: TaskId) -> wire::TaskId {
    wire::TaskId {
        shard: Some(wire::Shard {
            pipeline: id.shard.pipeline.0,
            partition: id.shard.partition.0,
        }),
        offset: id.offset.0,
    }
}

pub(in crate::node) fn id(id: wire::TaskId) -> Decoded<TaskId> {
    let shard = there(id.shard, "shard")?;
    Ok(ShardId::new(PipelineId(shard.pipeline), Partition(shard.partition)).task(Offset(id.offset)))
}

pub(in crate::node) fn ids(list: Vec<wire::TaskId>) -> Decoded<Vec<TaskId>> {
    list.into_iter().map(id).collect()
}

fn put_state(state: TaskState) -> i32 {
    i32::from(match state {
        TaskState::Queued => WireState::Queued,
        TaskState::Delayed => WireState::Delayed,
        TaskState::Running => WireState::Running,
        TaskState::Succeeded => WireState::Succeeded,
        TaskState::Dead => WireState::Dead,
        TaskState::Cancelled => WireState::Cancelled,
        TaskState::Expired => WireState::Expired,
    })
}

fn state(state: i32) -> Decoded<TaskState> {
    Ok(match WireState::try_from(state) {
        Ok(WireState::Queued) => TaskState::Queued,
        Ok(WireState::Delayed) => TaskState::Delayed,
        Ok(WireState::Running) => TaskState::Running,
        Ok(WireState::Succeeded) => TaskState::Succeeded,
        Ok(WireState::Dead) => TaskState::Dead,
        Ok(WireState::Cancelled) => TaskState::Cancelled,
        Ok(WireState::Expired) => TaskState::Expired,
        Ok(WireState::Unspecified) | Err(_) => return Err(Malformed("task state")),
    })
}

fn put_reason(reason: Option<DeadReason>) -> i32 {
    i32::from(match reason {
        None => wire::DeadReason::Unspecified,
        Some(DeadReason::AttemptsExhausted) => wire::DeadReason::AttemptsExhausted,
        Some(DeadReason::Rejected) => wire::DeadReason::Rejected,
        Some(DeadReason::Undecodable) => wire::DeadReason::Undecodable,
    })
}

fn reason(reason: i32) -> Decoded<Option<DeadReason>> {
    Ok(match wire::DeadReason::try_from(reason) {
        Ok(wire::DeadReason::Unspecified) => None,
        Ok(wire::DeadReason::AttemptsExhausted) => Some(DeadReason::AttemptsExhausted),
        Ok(wire::DeadReason::Rejected) => Some(DeadReason::Rejected),
        Ok(wire::DeadReason::Undecodable) => Some(DeadReason::Undecodable),
        Err(_) => return Err(Malformed("reason of a dead letter")),
    })
}

pub(in crate::node) fn put_view(view: TaskView) -> wire::TaskView {
    wire::TaskView {
        id: Some(put_id(view.id)),
        state: put_state(view.state),
        attempts: view.attempts.0,
        priority: view.priority.map(|priority| priority.level().into()),
        submitted_at_ms: view.submitted_at.as_millis(),
        started_at_ms: put_moment(view.started_at),
        finished_at_ms: put_moment(view.finished_at),
        next_attempt_at_ms: put_moment(view.next_attempt_at),
        progress: view.progress,
        output: view.output,
        error: view.error,
        dead_reason: put_reason(view.dead_reason),
        params: view.params,
        waiting_for: put_waiting(view.waiting),
        ahead: view.waiting.and_then(Waiting::ahead).unwrap_or_default(),
    }
}

fn put_waiting(waiting: Option<Waiting>) -> i32 {
    i32::from(match waiting {
        None => wire::WaitingFor::Unspecified,
        Some(Waiting::NotDue) => wire::WaitingFor::NotDue,
        Some(Waiting::Paused) => wire::WaitingFor::Paused,
        Some(Waiting::NoWorker) => wire::WaitingFor::NoWorker,
        Some(Waiting::Behind { .. }) => wire::WaitingFor::Behind,
        Some(Waiting::InLog { .. }) => wire::WaitingFor::InLog,
        Some(Waiting::InStore) => wire::WaitingFor::InStore,
        Some(Waiting::PastOwner) => wire::WaitingFor::PastOwner,
        Some(Waiting::ShardIsAway) => wire::WaitingFor::ShardIsAway,
    })
}

fn waiting(reason: i32, ahead: u64) -> Decoded<Option<Waiting>> {
    Ok(match wire::WaitingFor::try_from(reason) {
        Ok(wire::WaitingFor::Unspecified) => None,
        Ok(wire::WaitingFor::NotDue) => Some(Waiting::NotDue),
        Ok(wire::WaitingFor::Paused) => Some(Waiting::Paused),
        Ok(wire::WaitingFor::NoWorker) => Some(Waiting::NoWorker),
        Ok(wire::WaitingFor::Behind) => Some(Waiting::Behind { ahead }),
        Ok(wire::WaitingFor::InLog) => Some(Waiting::InLog { ahead }),
        Ok(wire::WaitingFor::InStore) => Some(Waiting::InStore),
        Ok(wire::WaitingFor::PastOwner) => Some(Waiting::PastOwner),
        Ok(wire::WaitingFor::ShardIsAway) => Some(Waiting::ShardIsAway),
        Err(_) => return Err(Malformed("reason to wait")),
    })
}

pub(in crate::node) fn view(view: wire::TaskView) -> Decoded<TaskView> {
    Ok(TaskView {
        id: id(there(view.id, "task id")?)?,
        state: state(view.state)?,
        attempts: Attempt(view.attempts),
        priority: view.priority.map(priority).transpose()?,
        submitted_at: Timestamp::from_millis(view.submitted_at_ms),
        started_at: moment(view.started_at_ms),
        finished_at: moment(view.finished_at_ms),
        next_attempt_at: moment(view.next_attempt_at_ms),
        progress: view.progress,
        output: view.output,
        error: view.error,
        dead_reason: reason(view.dead_reason)?,
        params: view.params,
        waiting: waiting(view.waiting_for, view.ahead)?,
    })
}

fn put_dead((id, dead): (TaskId, DeadTask)) -> wire::DeadTask {
    wire::DeadTask {
        id: Some(put_id(id)),
        reason: put_reason(Some(dead.reason)),
        error: dead.error,
        attempts: dead.attempts.0,
        submitted_at_ms: dead.submitted_at.as_millis(),
        died_at_ms: dead.died_at.as_millis(),
        spec: Some(put_spec(dead.spec)),
    }
}

fn dead(dead: wire::DeadTask) -> Decoded<(TaskId, DeadTask)> {
    let id = id(there(dead.id, "task id")?)?;
    let task = DeadTask {
        offset: id.offset,
        reason: there(reason(dead.reason)?, "reason of a dead letter")?,
        error: dead.error,
        attempts: Attempt(dead.attempts),
        submitted_at: Timestamp::from_millis(dead.submitted_at_ms),
        died_at: Timestamp::from_millis(dead.died_at_ms),
        spec: spec(there(dead.spec, "task")?)?,
    };
    Ok((id, task))
}

pub(in crate::node) fn put_filter(filter: &TaskFilter) -> (Vec<i32>, Option<u32>) {
    let states = filter.states.iter().copied().map(put_state).collect();
    (states, filter.partition.map(|partition| partition.0))
}

pub(in crate::node) fn filter(states: &[i32], partition: Option<u32>) -> Decoded<TaskFilter> {
    Ok(TaskFilter {
        states: states.iter().copied().map(state).collect::<Decoded<_>>()?,
        partition: partition.map(Partition),
    })
}

pub(in crate::node) fn put_cursor(cursor: PageCursor) -> wire::Cursor {
    wire::Cursor {
        partition: cursor.partition.0,
        offset: cursor.offset.0,
    }
}

pub(in crate::node) fn cursor(cursor: wire::Cursor) -> PageCursor {
    PageCursor {
        partition: Partition(cursor.partition),
        offset: Offset(cursor.offset),
    }
}

/// As much of a page as one message takes: cutting it only moves the cursor.
fn cut<T>(page: Page<T>, weight: impl Fn(&T) -> usize, id_of: impl Fn(&T) -> TaskId) -> Page<T> {
    let Page { mut items, mut next } = page;
    let mut bytes = 0;
    let fits = |item: &T| {
        bytes += weight(item);
        bytes <= PART_BYTES
    };
    // One item always goes.
    let most = items.iter().map(fits).take_while(|fits| *fits).count().max(1);
    if most < items.len() {
        items.truncate(most);
        next = items.last().map(id_of).map(|last| PageCursor {
            partition: last.shard.partition,
            offset: last.offset,
        });
    }
    Page { items, next }
}

pub(in crate::node) fn put_page(page: Page<TaskView>) -> wire::TaskPage {
    let weight = |view: &TaskView| {
        let params = view.params.as_ref().map_or(0, bytes::Bytes::len);
        128 + params + view.output.len() + view.progress.len() + view.error.len()
    };
    let page = cut(page, weight, |view| view.id);
    wire::TaskPage {
        tasks: page.items.into_iter().map(put_view).collect(),
        next: page.next.map(put_cursor),
    }
}

pub(in crate::node) fn page(page: wire::TaskPage) -> Decoded<Page<TaskView>> {
    Ok(Page {
        items: page.tasks.into_iter().map(view).collect::<Decoded<_>>()?,
        next: page.next.map(cursor),
    })
}

pub(in crate::node) fn put_dead_page(page: Page<(TaskId, DeadTask)>) -> wire::DeadPage {
    let weight = |(_, dead): &(TaskId, DeadTask)| 128 + dead.error.len() + dead.spec.weight();
    let page = cut(page, weight, |(id, _)| *id);
    wire::DeadPage {
        tasks: page.items.into_iter().map(put_dead).collect(),
        next: page.next.map(put_cursor),
    }
}

pub(in crate::node) fn dead_page(page: wire::DeadPage) -> Decoded<Page<(TaskId, DeadTask)>> {
    Ok(Page {
        items: page.tasks.into_iter().map(dead).collect::<Decoded<_>>()?,
        next: page.next.map(cursor),
    })
}

pub(in crate::node) fn put_selection(which: DeadSelection) -> wire::dead_selection::Which {
    match which {
        DeadSelection::All => wire::dead_selection::Which::All(wire::Nothing {}),
        DeadSelection::Ids(ids) => wire::dead_selection::Which::Ids(wire::TaskIds {
            ids: ids.into_iter().map(put_id).collect(),
        }),
    }
}

pub(in crate::node) fn selection(which: Option<wire::dead_selection::Which>) -> Decoded<DeadSelection> {
    Ok(match there(which, "selection")? {
        wire::dead_selection::Which::All(_) => DeadSelection::All,
        wire::dead_selection::Which::Ids(list) => DeadSelection::Ids(ids(list.ids)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_too_long_for_a_message_is_cut_and_goes_on_after_the_cut() {
        let shard = ShardId::new(PipelineId(1), Partition(2));
        let long = |offset| {
            let task = DeadTask {
                offset: Offset(offset),
                reason: DeadReason::Rejected,
                error: String::new(),
                attempts: Attempt(1),
                submitted_at: Timestamp::ZERO,
                died_at: Timestamp::ZERO,
                spec: TaskSpec::new(vec![b'x'; PART_BYTES / 2]),
            };
            (shard.task(Offset(offset)), task)
        };
        let page = Page {
            items: (0..4).rev().map(long).collect(),
            next: None,
        };
        let sent = dead_page(put_dead_page(page)).unwrap();
        let last = PageCursor {
            partition: Partition(2),
            offset: Offset(3),
        };
        assert_eq!((sent.items.len(), sent.next), (1, Some(last)));
    }
}
