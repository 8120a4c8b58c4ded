//! From the wire into the domain and back: one conversion for each type.

pub(crate) mod admin;
pub(crate) mod task;
pub(crate) mod worker;

use scheduler_core::time::Timestamp;
use std::time::Duration;

/// A duration on the wire: whole milliseconds.
fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The same in 32 bits, for fields that are never long.
pub(crate) fn to_short_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn moment(at: Option<Timestamp>) -> Option<u64> {
    at.map(Timestamp::as_millis)
}
