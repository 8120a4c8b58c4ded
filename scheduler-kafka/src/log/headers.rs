//! The names of the headers of a record. All of them are optional, others are ignored, and of two of one name the last counts.
//!
//! A value that is not of the form given here makes the record a dead letter, with the header named.

use bytes::Bytes;
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

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

/// The longest value of a header that is kept.
const MAX_TEXT: usize = 255;

/// Names the headers of a task, with their values.
pub(crate) fn put(task: &TaskSpec, mut add: impl FnMut(&'static str, &[u8])) {
    if task.priority != Priority::NORMAL {
        add(PRIORITY, &[b'0' + task.priority.level()]);
    }
    let Some(options) = task.options.as_deref() else {
        return;
    };
    for (name, moment) in [(NOT_BEFORE, options.not_before), (DEADLINE, options.deadline)] {
        if let Some(moment) = moment {
            add(name, moment.as_millis().to_string().as_bytes());
        }
    }
    let texts = [
        (IDEMPOTENCY_KEY, &options.idempotency_key),
        (TRACEPARENT, &options.traceparent),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            add(name, text);
        }
    }
}

/// What headers say.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Said {
    pub(crate) priority: Option<Priority>,
    pub(crate) options: Option<Box<TaskOptions>>,
}

/// Reads headers, given as names and values.
pub(crate) fn read<'a>(all: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Result<Said, String> {
    let mut said = Said::default();
    for (name, value) in all {
        let value = value.unwrap_or_default();
        match name {
            PRIORITY => said.priority = Some(priority(value)?),
            NOT_BEFORE => said.options().not_before = Some(moment(name, value)?),
            DEADLINE => said.options().deadline = Some(moment(name, value)?),
            IDEMPOTENCY_KEY => {
                if !(1..=MAX_TEXT).contains(&value.len()) {
                    return Err(wrong(name, value, "1 to 255 bytes"));
                }
                said.options().idempotency_key = Some(Bytes::copy_from_slice(value));
            }
            TRACEPARENT => {
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
    level.ok_or_else(|| wrong(PRIORITY, value, "one digit, 0 (last) to 9 (first)"))
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
        assert_eq!(one(TRACEPARENT, b"\xff"), Ok(Said::default()));
    }

    #[test]
    fn the_last_of_two_counts() {
        let twice = [(PRIORITY, Some(&b"1"[..])), (PRIORITY, Some(b"7"))];
        assert_eq!(read(twice.into_iter()).unwrap().priority, Priority::new(7));
    }

    #[test]
    fn a_wrong_value_is_named() {
        let long = vec![b'k'; 256];
        for (name, value) in [
            (PRIORITY, &b"10"[..]),
            (PRIORITY, b""),
            (NOT_BEFORE, b"tomorrow"),
            (NOT_BEFORE, b"+1"),
            (NOT_BEFORE, b""),
            (DEADLINE, b"18446744073709551616"),
            (IDEMPOTENCY_KEY, b""),
            (IDEMPOTENCY_KEY, &long),
        ] {
            let problem = one(name, value).unwrap_err();
            assert!(
                problem.contains(name) && problem.contains("expected"),
                "{problem}"
            );
        }
    }
}
