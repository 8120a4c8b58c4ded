//! Records of any producer: their headers say something, or one of them is named. What they say is written and read again as the same.

use scheduler_core::task::{TaskOptions, TaskSpec};

use crate::split_at_nul;

/// Its own file, without the adapter around it, which would have librdkafka built.
#[path = "../../../scheduler-kafka/src/log/headers.rs"]
#[expect(unreachable_pub, reason = "in its own crate it is part of the API")]
mod headers;

/// The names that mean something, by the first byte of a name.
const NAMES: [&str; 5] = [
    headers::PRIORITY,
    headers::NOT_BEFORE,
    headers::DEADLINE,
    headers::IDEMPOTENCY_KEY,
    headers::TRACEPARENT,
];

/// Headers with zero bytes between them. The first byte of each says its name; after it comes its value, or none.
pub fn record_headers(data: &[u8]) {
    let mut all = Vec::new();
    let mut rest = data;
    while let Some((name, after)) = rest.split_first() {
        let (value, after) = split_at_nul(after);
        let name = NAMES
            .get(usize::from(*name) % (NAMES.len() + 1))
            .unwrap_or(&"of others");
        all.push((*name, (!value.is_empty()).then_some(value)));
        rest = after;
    }
    let said = match headers::read(all.iter().copied()) {
        Ok(said) => said,
        Err(problem) => {
            assert!(NAMES.iter().any(|name| problem.contains(name)), "{problem}");
            return;
        }
    };
    let mut task = TaskSpec::new(Vec::new());
    task.priority = said.priority.unwrap_or_default();
    task.options.clone_from(&said.options);
    let mut written = Vec::new();
    headers::put(&task, |name, value| written.push((name, value.to_vec())));
    let again = headers::read(
        written
            .iter()
            .map(|(name, value)| (*name, Some(value.as_slice()))),
    );
    let Ok(again) = again else {
        panic!("{written:?} was written, and cannot be read: {again:?}");
    };
    assert_eq!(again.priority.unwrap_or_default(), task.priority);
    assert_eq!(
        again.options,
        task.options.filter(|options| **options != TaskOptions::default())
    );
}
