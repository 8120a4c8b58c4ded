//! Tasks as records of Kafka: the params are the value, what else was said about a task is in [`headers`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use scheduler_core::id::Offset;
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

use super::headers::{self, Said};

/// The headers of a task; none if nothing was said about it.
pub(crate) fn encode(task: &TaskSpec) -> Option<OwnedHeaders> {
    let mut all: Option<OwnedHeaders> = None;
    headers::put(task, |key, value| {
        let value = Some(value);
        all = Some(all.take().unwrap_or_default().insert(Header { key, value }));
    });
    all
}

/// The record at `offset` that a message is.
pub(crate) fn decode(message: &BorrowedMessage<'_>, offset: Offset) -> Record {
    let millis = message.timestamp().to_millis().unwrap_or(0);
    let raw = message.payload().map(Bytes::copy_from_slice);
    let said = message.headers().map_or(Ok(Said::default()), |all| {
        caught(|| headers::read(all.iter().map(|header| (header.key, header.value))))
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

/// The library panics at a header whose name is not UTF-8, and any producer may send one.
fn caught(read: impl FnOnce() -> Result<Said, String>) -> Result<Said, String> {
    let nothing_is_changed = AssertUnwindSafe(read);
    catch_unwind(nothing_is_changed)
        .unwrap_or_else(|_| Err("the name of a header cannot be read; expected UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_at_which_the_library_panics_is_named() {
        let problem = caught(|| panic!("Utf8Error")).unwrap_err();
        assert!(problem.contains("name of a header"), "{problem}");
        assert_eq!(caught(|| Ok(Said::default())), Ok(Said::default()));
    }
}
