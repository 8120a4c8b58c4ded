//! The core's own encodings: whatever is read is written and read again as the same.

use bytes::Bytes;
use scheduler_core::codec::Reader;
use scheduler_core::encoding;
use scheduler_core::id::TaskId;

use crate::split_byte;

/// A task id has one text: whatever is read is written as it was.
pub fn task_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = text.parse::<TaskId>() {
        assert_eq!(id.to_string(), text);
    }
}

/// Policies, tasks, parked tasks and dead letters; the first byte says which.
pub fn values(data: &[u8]) {
    let (kind, data) = split_byte(data);
    let bytes = Bytes::copy_from_slice(data);
    let mut from = Reader::new(bytes.clone());
    let mut out = Vec::new();
    match kind % 4 {
        0 => {
            let Ok(policy) = encoding::policy(bytes) else {
                return;
            };
            encoding::put_policy(&mut out, &policy);
            let again = encoding::policy(out.into());
            assert_eq!(again.map(|again| format!("{again:?}")), Ok(format!("{policy:?}")));
            for attempt in [1, 2, u32::MAX] {
                let _ = policy.retry.backoff(7, attempt);
            }
        }
        1 => {
            let Ok(spec) = encoding::spec(&mut from) else {
                return;
            };
            encoding::put_spec(&mut out, &spec);
            assert_eq!(encoding::spec(&mut Reader::new(out.into())), Ok(spec));
        }
        2 => {
            let Ok(task) = encoding::parked_task(&mut from) else {
                return;
            };
            encoding::put_parked_task(&mut out, &task);
            assert_eq!(encoding::parked_task(&mut Reader::new(out.into())), Ok(task));
        }
        _ => {
            let Ok(task) = encoding::dead_task(&mut from) else {
                return;
            };
            encoding::put_dead_task(&mut out, &task);
            assert_eq!(encoding::dead_task(&mut Reader::new(out.into())), Ok(task));
        }
    }
}
