//! How attempts and tasks end.

use bytes::Bytes;

use crate::id::{Attempt, Offset};
use crate::port::gateway::TaskState;
use crate::task::TaskSpec;
use crate::time::Timestamp;

/// How a worker says an attempt ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AttemptOutcome {
    /// The work is done.
    Succeeded {
        /// What came of it; JSON by convention.
        output: Bytes,
    },
    /// It failed; another attempt may succeed.
    Failed {
        /// Why, for people.
        error: String,
    },
    /// It failed and will always fail.
    Rejected {
        /// Why, for people.
        error: String,
    },
    /// The worker gives the lease back without having started: no attempt is used up.
    Returned,
    /// The worker stopped because it was told that the task is cancelled or its time is over.
    Stopped,
}

/// How a task that is kept as a result ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ending {
    /// An attempt succeeded.
    Succeeded,
    /// Somebody cancelled it.
    Cancelled,
    /// It has the idempotency key of an earlier task, whose id is the output.
    Duplicate,
    /// A deadline or the `start` or `total` timeout was over.
    Expired,
}

impl From<Ending> for TaskState {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Succeeded => Self::Succeeded,
            // Nobody wanted it twice.
            Ending::Cancelled | Ending::Duplicate => Self::Cancelled,
            Ending::Expired => Self::Expired,
        }
    }
}

/// A task that has ended other than as a dead letter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FinishedTask {
    /// Which.
    pub offset: Offset,
    /// How.
    pub ending: Ending,
    /// How many attempts were made.
    pub attempts: Attempt,
    /// When the log took it.
    pub submitted_at: Timestamp,
    /// When its last attempt was leased; [`Timestamp::ZERO`] if none was.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The output of the attempt that succeeded, or why it ended otherwise.
    pub output: Bytes,
}

/// Why a task is a dead letter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DeadReason {
    /// All its attempts failed.
    AttemptsExhausted,
    /// A worker said that it will always fail.
    Rejected,
    /// Its record is not a task.
    Undecodable,
}

/// A task that ended as a dead letter: kept until it is redriven, purged or its retention is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeadTask {
    /// Which.
    pub offset: Offset,
    /// Why.
    pub reason: DeadReason,
    /// The last error.
    pub error: String,
    /// How many attempts were made.
    pub attempts: Attempt,
    /// When the log took it.
    pub submitted_at: Timestamp,
    /// When it died.
    pub died_at: Timestamp,
    /// What was submitted; of an undecodable record its raw bytes are the params.
    pub spec: TaskSpec,
}

/// A task that left memory for the store: it waits long, or it is older than the window is wide.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParkedTask {
    /// Which.
    pub offset: Offset,
    /// When it is wanted back. [`Timestamp::ZERO`]: with the shard's activation, since it is in memory as well.
    pub wake_at: Timestamp,
    /// How many attempts were made.
    pub attempts: Attempt,
    /// How many of them do not count against the limit.
    pub forgiven: u16,
    /// When the log took it.
    pub submitted_at: Timestamp,
    /// What was submitted.
    pub spec: TaskSpec,
}
