//! Tasks.

use bytes::Bytes;
use scheduler_core::id::TaskId;
use scheduler_core::outcome::DeadReason;
use scheduler_core::port::gateway::{TaskState, TaskView, Waiting};
use scheduler_core::task::Priority;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::as_text;
use crate::human::Moment;
use crate::opaque::Opaque;

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TaskState)]
pub(crate) enum StateText {
    /// It waits for a worker.
    Queued,
    /// It waits for its time.
    Delayed,
    /// A worker has it.
    Running,
    /// It ended well.
    Succeeded,
    /// It is a dead letter.
    Dead,
    /// Somebody cancelled it.
    Cancelled,
    /// Its time was over.
    Expired,
}

impl From<TaskState> for StateText {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Queued => Self::Queued,
            TaskState::Delayed => Self::Delayed,
            TaskState::Running => Self::Running,
            TaskState::Succeeded => Self::Succeeded,
            TaskState::Dead => Self::Dead,
            TaskState::Cancelled => Self::Cancelled,
            TaskState::Expired => Self::Expired,
        }
    }
}

/// Reads the text of a state.
pub(crate) fn state_of(text: &str) -> Option<TaskState> {
    Some(match text {
        "queued" => TaskState::Queued,
        "delayed" => TaskState::Delayed,
        "running" => TaskState::Running,
        "succeeded" => TaskState::Succeeded,
        "dead" => TaskState::Dead,
        "cancelled" => TaskState::Cancelled,
        "expired" => TaskState::Expired,
        _ => return None,
    })
}

/// Why a task is a dead letter.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = DeadReason)]
pub(crate) enum ReasonText {
    /// All its attempts failed.
    AttemptsExhausted,
    /// A worker said that it will always fail.
    Rejected,
    /// Its record in the log is not a task.
    Undecodable,
}

impl From<DeadReason> for ReasonText {
    fn from(reason: DeadReason) -> Self {
        match reason {
            DeadReason::AttemptsExhausted => Self::AttemptsExhausted,
            DeadReason::Rejected => Self::Rejected,
            DeadReason::Undecodable => Self::Undecodable,
        }
    }
}

/// A task. Fields that do not fit its state are absent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task, example = json!({
    "id": "t1-0-2f",
    "state": "succeeded",
    "attempts": 1,
    "submitted_at": "2026-11-24T08:00:00.000Z",
    "started_at": "2026-11-24T08:00:00.012Z",
    "finished_at": "2026-11-24T08:00:01.437Z",
    "output": {"1:wget": [""], "2:tesseract": ["", "The quick brown fox"]}
}))]
pub(crate) struct TaskBody {
    /// Its name, unique for ever.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    id: TaskId,
    state: StateText,
    /// How many attempts have begun.
    attempts: u32,
    /// 0 (last) to 9 (first); while it is live or dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    /// When it was accepted.
    submitted_at: Moment,
    /// When its last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Moment>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Moment>,
    /// When a delayed task is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Moment>,
    /// How far the running attempt is, as its worker says. JSON is embedded as it is, other text is a string, other bytes are a data URL.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<serde_json::Value>)]
    progress: Bytes,
    /// What came of it. JSON is embedded as it is, other text is a string, other bytes are a data URL.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<serde_json::Value>)]
    output: Bytes,
    /// What went wrong last.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    error: String,
    /// Why it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_reason: Option<ReasonText>,
    /// What was submitted, where it is still known.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<serde_json::Value>)]
    params: Bytes,
    /// Why it does not run; of a task that waits, where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<WaitingBody>,
}

/// Why a task does not run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Waiting, example = json!({"reason": "behind_others", "detail": "12 tasks of its shard are before it", "ahead": 12}))]
pub(crate) struct WaitingBody {
    /// `not_due`, `paused`, `no_worker`, `behind_others`, `in_log`, `in_store`, `past_owner` or `shard_is_away`.
    reason: &'static str,
    /// The same for people.
    detail: String,
    /// How many tasks are before it, where that is known; of its own priority at most 1000 are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<u64>,
}

impl From<Waiting> for WaitingBody {
    fn from(waiting: Waiting) -> Self {
        Self {
            reason: waiting.reason(),
            detail: waiting.to_string(),
            ahead: waiting.ahead(),
        }
    }
}

pub(super) fn opaque<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    Opaque::of(bytes).serialize(serializer)
}

impl From<TaskView> for TaskBody {
    fn from(view: TaskView) -> Self {
        Self {
            id: view.id,
            state: view.state.into(),
            attempts: view.attempts.0,
            priority: view.priority.map(Priority::level),
            submitted_at: Moment(view.submitted_at),
            started_at: view.started_at.map(Moment),
            finished_at: view.finished_at.map(Moment),
            next_attempt_at: view.next_attempt_at.map(Moment),
            progress: view.progress,
            output: view.output,
            error: view.error,
            dead_reason: view.dead_reason.map(ReasonText::from),
            params: view.params.unwrap_or_default(),
            waiting: view.waiting.map(WaitingBody::from),
        }
    }
}

/// A task that was accepted: it is durable, and will end.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Accepted, example = json!({"id": "t1-0-2f"}))]
pub(crate) struct AcceptedBody {
    /// Its name, unique for ever.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub(crate) id: TaskId,
}
