//! What else can be said about a task than its params.

use std::time::Duration;

use bytes::Bytes;
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

use crate::extract::once;
use crate::human::{parse_duration, parse_moment};
use crate::problem::Problem;

/// Most bytes of an idempotency key.
pub(crate) const MAX_KEY: usize = 255;

/// When something is due: at a moment, or so long after the submission.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    At(Timestamp),
    In(Duration),
}

impl Due {
    /// Reads a moment or a duration.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // A moment has its date's dashes; no duration has one.
        if text.contains('-') {
            parse_moment(text).map(Self::At)
        } else {
            parse_duration(text).map(Self::In).map_err(|_| {
                format!("must be a moment in UTC such as 2026-11-24T08:00:00Z or a duration from now such as 10m, found {text:?}")
            })
        }
    }

    fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::In(duration) => now + duration,
        }
    }
}

/// What was said about a task, or about all tasks of a bulk submission.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskChoices {
    pub(crate) priority: Option<Priority>,
    pub(crate) not_before: Option<Due>,
    pub(crate) deadline: Option<Due>,
    pub(crate) idempotency_key: Option<Bytes>,
    pub(crate) traceparent: Option<Bytes>,
}

impl TaskChoices {
    /// Takes a query parameter; answers whether it is one of these.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        match name {
            "priority" => once(&mut self.priority, "priority", priority_of(value)?)?,
            "delay" => {
                let delay = parse_duration(value).map_err(|detail| Problem::invalid("delay", detail))?;
                once(&mut self.not_before, "delay", Due::In(delay)).map_err(|_| delay_twice())?;
            }
            "not_before" => {
                let moment = parse_moment(value).map_err(|detail| Problem::invalid("not_before", detail))?;
                once(&mut self.not_before, "not_before", Due::At(moment)).map_err(|_| delay_twice())?;
            }
            "deadline" => {
                let due = Due::parse(value).map_err(|detail| Problem::invalid("deadline", detail))?;
                once(&mut self.deadline, "deadline", due)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// These choices, and those of `others` where nothing was said.
    #[must_use]
    pub(crate) fn or(self, others: &Self) -> Self {
        Self {
            priority: self.priority.or(others.priority),
            not_before: self.not_before.or(others.not_before),
            deadline: self.deadline.or(others.deadline),
            idempotency_key: self.idempotency_key.or_else(|| others.idempotency_key.clone()),
            traceparent: self.traceparent.or_else(|| others.traceparent.clone()),
        }
    }

    /// The task with these choices, submitted at `now`.
    pub(crate) fn into_spec(
        self,
        params: Bytes,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<TaskSpec, Problem> {
        let timed = self.not_before.is_some() || self.deadline.is_some();
        let named = self.idempotency_key.is_some() || self.traceparent.is_some();
        let options = if timed || named {
            let now = if timed { now() } else { Timestamp::ZERO };
            let not_before = self.not_before.map(|due| due.after(now));
            let deadline = self.deadline.map(|due| due.after(now));
            if let Some(deadline) = deadline {
                if deadline <= now {
                    return Err(Problem::invalid("deadline", "is over already"));
                }
                if not_before.is_some_and(|start| deadline <= start) {
                    return Err(Problem::invalid("deadline", "must be after the task may start"));
                }
            }
            Some(Box::new(TaskOptions {
                not_before,
                deadline,
                idempotency_key: self.idempotency_key,
                traceparent: self.traceparent,
            }))
        } else {
            None
        };
        Ok(TaskSpec {
            params,
            priority: self.priority.unwrap_or_default(),
            options,
        })
    }
}

pub(crate) fn delay_twice() -> Problem {
    Problem::invalid("delay", "means the same as `not_before`; give one of them, once")
}

fn priority_of(text: &str) -> Result<Priority, Problem> {
    text.parse().ok().and_then(Priority::new).ok_or_else(|| {
        Problem::invalid(
            "priority",
            format!("must be 0 (last) to 9 (first), found {text:?}"),
        )
    })
}

/// A key of 1 to 255 bytes; `field` is what to call it in an error.
pub(crate) fn key_of(field: &'static str, key: &[u8]) -> Result<Bytes, Problem> {
    if (1..=MAX_KEY).contains(&key.len()) {
        Ok(Bytes::copy_from_slice(key))
    } else {
        let detail = format!("must be 1 to {MAX_KEY} bytes long, found {}", key.len());
        Err(Problem::invalid(field, detail))
    }
}

/// A W3C trace context, `00-<32 hex digits>-<16>-<2>`; `None` of anything else.
pub(crate) fn traceparent_of(text: &[u8]) -> Option<Bytes> {
    let hex = |part: &[u8], len| {
        part.len() == len
            && part
                .iter()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    };
    let nonzero = |part: &[u8]| part.iter().any(|b| *b != b'0');
    let mut parts = text.splitn(4, |b| *b == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let well = version == b"00"
        && hex(trace, 32)
        && nonzero(trace)
        && hex(parent, 16)
        && nonzero(parent)
        && hex(flags, 2);
    well.then(|| Bytes::copy_from_slice(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_context_is_one() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(traceparent_of(good).as_deref(), Some(&good[..]));
        for bad in [
            &b""[..],
            b"00",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-02",
        ] {
            assert_eq!(traceparent_of(bad), None);
        }
    }

    #[test]
    fn a_plain_task_carries_no_options_and_asks_for_no_clock() {
        let spec = TaskChoices::default()
            .into_spec(Bytes::from_static(b"{}"), || {
                unreachable!("no option needs the time")
            })
            .unwrap();
        assert_eq!(spec, TaskSpec::new("{}"));
    }

    #[test]
    fn times_count_from_the_submission() {
        let mut choices = TaskChoices::default();
        choices.take("delay", "10s").unwrap();
        choices.take("deadline", "1m").unwrap();
        let spec = choices
            .into_spec(Bytes::new(), || Timestamp::from_millis(5_000))
            .unwrap();
        let options = spec.options.unwrap();
        assert_eq!(options.not_before, Some(Timestamp::from_millis(15_000)));
        assert_eq!(options.deadline, Some(Timestamp::from_millis(65_000)));
    }
}
