//! Tasks as records of Kafka: the params are the value, what else was said about a task is in [headers].

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use scheduler_core::id::Offset;
use scheduler_core::task::{Priority, Record, RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

/// The names of the headers of a record. All of them are optional, others are ignored, and of two of one name the last counts.
///
/// A value that is not of the form given here makes the record a dead letter, with the header named.
pub mod headers {
    /// How urgent the task is: `0` (last) to `9` (first), as text. Without it: 4.
    pub const PRIORITY: &str = "scheduler-priority";
    /// The task must not start before this moment: milliseconds since 1970 in UTC, as decimal text.
    pub const NOT_BEFORE: &str = "scheduler-not-before";
    /// The task expires when it has not ended by this moment: milliseconds since 1970 in UTC, as decimal text.
    pub const DEADLINE: &str = "scheduler-deadline";
    /// Tasks of one partition with the same key within a day are one task: 1 to 255 bytes.
    pub const IDEMPOTENCY_KEY: &str = "scheduler-idempotency-key";
    /// The W3C trace context of the submitter. One that is not 1 to 255 visible ASCII characters long is ignored, as its standard has it.
    pub const TRACEPARENT: &str = "traceparent";
}

/// The longest value of a header that is kept.
const MAX_TEXT: usize = 255;

/// The headers of a task; none if nothing was said about it.
pub(crate) fn encode(task: &TaskSpec) -> Option<OwnedHeaders> {
    fn add(headers: Option<OwnedHeaders>, key: &str, value: &[u8]) -> OwnedHeaders {
        let value = Some(value);
        headers.unwrap_or_default().insert(Header { key, value })
    }
    let mut all = None;
    if task.priority != Priority::NORMAL {
        all = Some(add(all, headers::PRIORITY, &[b'0' + task.priority.level()]));
    }
    let Some(options) = task.options.as_deref() else {
        return all;
    };
    let moments = [
        (headers::NOT_BEFORE, options.not_before),
        (headers::DEADLINE, options.deadline),
    ];
    for (name, moment) in moments {
        if let Some(moment) = moment {
            all = Some(add(all, name, moment.as_millis().to_string().as_bytes()));
        }
    }
    let texts = [
        (headers::IDEMPOTENCY_KEY, &options.idempotency_key),
        (headers::TRACEPARENT, &options.traceparent),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            all = Some(add(all, name, text));
        }
    }
    all
}

/// The record at `offset` that a message is.
pub(crate) fn decode(message: &BorrowedMessage<'_>, offset: Offset) -> Record {
    let millis = message.timestamp().to_millis().unwrap_or(0);
    let raw = message.payload().map(Bytes::copy_from_slice);
    let said = message.headers().map_or(Ok(Said::default()), |headers| {
        read(headers.iter().map(|header| (header.key, header.value)))
    });
    let body = match (raw, said) {
        (Some(params), Ok(said)) => RecordBody::Task(TaskSpec {
            params,
            priority: said.priority.unwrap_or_default(),
            options: said.options,
        }),
        (raw, Err(problem)) => RecordBody::Undecodable {
            raw: raw.unwrap_or_default(),
            problem,
        },
        (None, Ok(_)) => RecordBody::Undecodable {
            raw: Bytes::new(),
            problem: "the record has no value (null); a task's params are its value".to_owned(),
        },
    };
    Record {
        offset,
        appended_at: Timestamp::from_millis(u64::try_from(millis).unwrap_or(0)),
        body,
    }
}

/// What headers say.
#[derive(Debug, Default, Eq, PartialEq)]
struct Said {
    priority: Option<Priority>,
    options: Option<Box<TaskOptions>>,
}

fn read<'a>(all: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<Said, String> {
    let mut said = Said::default();
    for (name, value) in all {
        let value = value.unwrap_or_default();
        match name {
            headers::PRIORITY => said.priority = Some(priority(value)?),
            headers::NOT_BEFORE => said.options().not_before = Some(moment(name, value)?),
            headers::DEADLINE => said.options().deadline = Some(moment(name, value)?),
            headers::IDEMPOTENCY_KEY => {
                if !(1..=MAX_TEXT).contains(&value.len()) {
                    return Err(wrong(name, value, "1 to 255 bytes"));
                }
                said.options().idempotency_key = Some(Bytes::copy_from_slice(value));
            }
            headers::TRACEPARENT => {
                let sound = (1..=MAX_TEXT).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
                if sound {
                    said.options().traceparent = Some(Bytes::copy_from_slice(value));
                }
            }
            _ => {}
        }
    }
    Ok(said)
}

impl Said {
    fn options(&mut self) -> &mut TaskOptions {
        self.options.get_or_insert_default()
    }
}

fn priority(value: &[u8]) -> Result<Priority, String> {
    let level = match value {
        [digit @ b'0'..=b'9'] => Priority::new(digit - b'0'),
        _ => None,
    };
    level.ok_or_else(|| wrong(headers::PRIORITY, value, "one digit, 0 (last) to 9 (first)"))
}

fn moment(name: &str, value: &[u8]) -> Result<Timestamp, String> {
    let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .map(Timestamp::from_millis)
        .ok_or_else(|| wrong(name, value, "milliseconds since 1970 as decimal text"))
}

fn wrong(name: &str, value: &[u8], expected: &str) -> String {
    let shown = String::from_utf8_lossy(value.get(..64).unwrap_or(value));
    format!("header `{name}` is {shown:?}; expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &[u8]) -> Result<Said, String> {
        read([(name, Some(value))].into_iter())
    }

    #[test]
    fn headers_of_others_say_nothing() {
        assert_eq!(one("priority", b"high"), Ok(Said::default()));
        assert_eq!(one(headers::TRACEPARENT, b"\xff"), Ok(Said::default()));
    }

    #[test]
    fn the_last_of_two_counts() {
        let twice = [
            (headers::PRIORITY, Some(&b"1"[..])),
            (headers::PRIORITY, Some(b"7")),
        ];
        assert_eq!(read(twice.into_iter()).unwrap().priority, Priority::new(7));
    }

    #[test]
    fn a_wrong_value_is_named() {
        let long = vec![b'k'; 256];
        for (name, value) in [
            (headers::PRIORITY, &b"10"[..]),
            (headers::PRIORITY, b""),
            (headers::NOT_BEFORE, b"tomorrow"),
            (headers::NOT_BEFORE, b"+1"),
            (headers::NOT_BEFORE, b""),
            (headers::DEADLINE, b"18446744073709551616"),
            (headers::IDEMPOTENCY_KEY, b""),
            (headers::IDEMPOTENCY_KEY, &long),
        ] {
            let problem = one(name, value).unwrap_err();
            assert!(
                problem.contains(name) && problem.contains("expected"),
                "{problem}"
            );
        }
    }
}
