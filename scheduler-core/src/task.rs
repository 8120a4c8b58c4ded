//! A task as it is submitted, and as it lies in the log.

use bytes::Bytes;

use crate::id::Offset;
use crate::time::Timestamp;

/// How urgent a task is: 0 (last) to 9 (first). The default is [`Priority::NORMAL`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Priority(u8);

impl Priority {
    /// What a task has when nothing is said.
    pub const NORMAL: Self = Self(4);
    /// The most urgent.
    pub const MAX: Self = Self(9);
    /// How many there are.
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// The priority `level`, if there is one.
    pub const fn new(level: u8) -> Option<Self> {
        if level <= Self::MAX.0 {
            Some(Self(level))
        } else {
            None
        }
    }

    /// 0 (last) to 9 (first).
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// What is rarely said about a task; kept apart so that a plain task carries none of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskOptions {
    /// The task must not start before this moment.
    pub not_before: Option<Timestamp>,
    /// The task expires when it has not ended by this moment.
    pub deadline: Option<Timestamp>,
    /// Tasks with the same key within a day are one task; see [`crate::key`].
    pub idempotency_key: Option<Bytes>,
    /// The W3C trace context of the submitter, handed on to the worker.
    pub traceparent: Option<Bytes>,
}

/// A task as it is submitted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskSpec {
    /// What the worker gets, untouched; JSON by convention.
    pub params: Bytes,
    /// How urgent it is.
    pub priority: Priority,
    /// What else was said.
    pub options: Option<Box<TaskOptions>>,
}

impl TaskSpec {
    /// A task of normal priority with nothing else said.
    pub fn new(params: impl Into<Bytes>) -> Self {
        Self {
            params: params.into(),
            priority: Priority::NORMAL,
            options: None,
        }
    }

    /// The bytes that this task takes of every limit in bytes.
    pub fn weight(&self) -> usize {
        let key = |key: &Option<Bytes>| key.as_ref().map_or(0, Bytes::len);
        self.params.len()
            + self.options.as_ref().map_or(0, |o| {
                size_of::<TaskOptions>() + key(&o.idempotency_key) + key(&o.traceparent)
            })
    }
}

/// A record of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Where it lies.
    pub offset: Offset,
    /// When the log took it.
    pub appended_at: Timestamp,
    /// What it says.
    pub body: RecordBody,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RecordBody {
    /// A task.
    Task(TaskSpec),
    /// Something that is not a task: it becomes a dead letter with its raw bytes.
    Undecodable {
        /// The record's value as it is.
        raw: Bytes,
        /// What is wrong with it, naming the header or field.
        problem: String,
    },
}
