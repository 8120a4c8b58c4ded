//! Why a task does not run.

use std::fmt;

/// So many tasks of a priority are counted that come before another, at most: a queue is not walked to its end for one who asks.
pub const MOST_AHEAD: u64 = 1_000;

/// Why a task that has not ended does not run now, as whoever would have it run sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Waiting {
    /// Its time has not come: `TaskView::next_attempt_at`.
    NotDue,
    /// Its pipeline is paused.
    Paused,
    /// No worker of the pipeline is connected to the node of its shard.
    NoWorker,
    /// Others of its shard are before it, by their priority or because they came earlier: at most [`MOST_AHEAD`] of its own priority are
    /// counted. None means that it is next.
    Behind {
        /// How many.
        ahead: u64,
    },
    /// It has not been read from the log: the window of its shard is full, or it has only just come.
    InLog {
        /// How many records before it have not been read either.
        ahead: u64,
    },
    /// It is in the store until the shard has room for it.
    InStore,
    /// Its shard has another owner than before, and the worker that may have it since then is waited for.
    PastOwner,
    /// Its shard is on its way to a node, or comes up there.
    ShardIsAway,
}

impl Waiting {
    /// A word for programs, the same for good.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotDue => "not_due",
            Self::Paused => "paused",
            Self::NoWorker => "no_worker",
            Self::Behind { .. } => "behind_others",
            Self::InLog { .. } => "in_log",
            Self::InStore => "in_store",
            Self::PastOwner => "past_owner",
            Self::ShardIsAway => "shard_is_away",
        }
    }

    /// How many are before it, where that is known.
    pub const fn ahead(self) -> Option<u64> {
        match self {
            Self::Behind { ahead } | Self::InLog { ahead } => Some(ahead),
            _ => None,
        }
    }
}

/// A sentence for people.
impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDue => f.write_str("its time has not come"),
            Self::Paused => f.write_str("its pipeline is paused; resume it"),
            Self::NoWorker => f.write_str("no worker of the pipeline is connected to the node of its shard"),
            Self::Behind { ahead: 0 } => f.write_str("it is next, as soon as a worker has room"),
            Self::Behind { ahead } if *ahead >= MOST_AHEAD => {
                write!(f, "{ahead} tasks of its shard are before it, or more")
            }
            Self::Behind { ahead } => write!(f, "{ahead} tasks of its shard are before it"),
            Self::InLog { ahead } => {
                write!(f, "its shard has not read it yet, nor {ahead} before it, for want of room unless it has only just come")
            }
            Self::InStore => f.write_str("it is in the store until its shard has room for it"),
            Self::PastOwner => f.write_str(
                "its shard has another owner than before; the worker that may have the task since then is waited for, some seconds",
            ),
            Self::ShardIsAway => f.write_str(
                "its shard is on its way to a node, or comes up there; if that lasts, `problems` of the pipeline says why",
            ),
        }
    }
}
