//! Dead letters.

use bytes::Bytes;
use scheduler_core::id::TaskId;
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::gateway::DeadSelection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::as_text;
use super::task::{ReasonText, opaque};
use crate::human::Moment;
use crate::problem::Problem;

/// A task that ended as a dead letter: kept until it is redriven, purged, or its retention is over.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter, example = json!({
    "id": "t1-0-2f",
    "reason": "attempts_exhausted",
    "error": "1:wget: exit code 4: Network failure",
    "attempts": 5,
    "priority": 4,
    "submitted_at": "2026-11-24T08:00:00.000Z",
    "died_at": "2026-11-24T08:00:31.437Z",
    "params": {"url": "https://example.com/pic.png"}
}))]
pub(crate) struct DeadLetterBody {
    /// The task's name.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    id: TaskId,
    reason: ReasonText,
    /// The last error.
    error: String,
    /// How many attempts were made.
    attempts: u32,
    /// 0 (last) to 9 (first).
    priority: u8,
    /// When it was accepted.
    submitted_at: Moment,
    /// When it died.
    died_at: Moment,
    /// What was submitted. JSON is embedded as it is, other text is a string, other bytes are a data URL.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<serde_json::Value>)]
    params: Bytes,
}

impl From<(TaskId, DeadTask)> for DeadLetterBody {
    fn from((id, dead): (TaskId, DeadTask)) -> Self {
        Self {
            id,
            reason: dead.reason.into(),
            error: dead.error,
            attempts: dead.attempts.0,
            priority: dead.spec.priority.level(),
            submitted_at: Moment(dead.submitted_at),
            died_at: Moment(dead.died_at),
            params: dead.spec.params,
        }
    }
}

/// Most ids in one selection.
const MAX_IDS: usize = 10_000;

/// Which dead letters are meant: either `ids` or `all`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadSelection, examples(json!({"ids": ["t1-0-2f"]}), json!({"all": true})))]
pub(crate) struct SelectionBody {
    /// These, at most 10,000.
    #[schema(nullable = false)]
    ids: Option<Vec<String>>,
    /// All that there are now.
    #[schema(nullable = false)]
    all: Option<bool>,
}

impl SelectionBody {
    /// What the gateway is asked for.
    pub(crate) fn into_selection(self) -> Result<DeadSelection, Problem> {
        match (self.ids, self.all) {
            (None, Some(true)) => Ok(DeadSelection::All),
            (Some(ids), None) if ids.len() > MAX_IDS => Err(Problem::invalid(
                "ids",
                format!(
                    "has {} ids, at most {MAX_IDS} are possible; send them in parts",
                    ids.len()
                ),
            )),
            (Some(ids), None) if !ids.is_empty() => ids
                .iter()
                .enumerate()
                .map(|(i, id)| {
                    id.parse().map_err(|error: scheduler_core::id::ParseTaskIdError| {
                        Problem::invalid(format!("ids[{i}]"), error.to_string())
                    })
                })
                .collect::<Result<_, _>>()
                .map(DeadSelection::Ids),
            (Some(_), None) => Err(Problem::invalid(
                "ids",
                "is empty; name at least one, or give `all`: true",
            )),
            (None, _) => Err(Problem::invalid("all", "must be true, or give `ids`")),
            (Some(_), Some(_)) => Err(Problem::invalid("all", "excludes `ids`; give one of them")),
        }
    }
}

/// How many dead letters were made live again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"redriven": 12}))]
pub(crate) struct Redriven {
    pub(crate) redriven: u64,
}

/// How many dead letters were deleted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"purged": 12}))]
pub(crate) struct Purged {
    pub(crate) purged: u64,
}
