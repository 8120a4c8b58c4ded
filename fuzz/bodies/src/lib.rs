//! Everything that reads bytes of others, as functions from any bytes to nothing: they panic if what they look at breaks its word.
//!
//! `cargo fuzz` runs them on inputs that it makes up (`cargo xtask fuzz TARGET`); a test here runs them on the inputs that were kept in
//! `fuzz/corpus/`, so that whoever runs the tests replays what was found, without nightly. What each promises is in its file.
//!
//! ```
//! scheduler_fuzz::task_id(b"t1-0-2f");
//! assert!(scheduler_fuzz::TARGETS.iter().any(|(name, _)| *name == "task-id"));
//! ```
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how they say that something is wrong"
)]

mod chart;
mod definition;
mod disk;
mod kafka;
mod quoting;
mod shard;
mod shell;
mod values;
mod wire;

pub use self::chart::chart;
pub use self::definition::definition;
pub use self::disk::{packed_results, rows, segment};
pub use self::kafka::record_headers;
pub use self::quoting::{quoting, quoting_in_a_shell};
pub use self::shard::{state, tape};
pub use self::values::{task_id, values};
pub use self::wire::{client_messages, node_messages, worker_messages};

/// What is run on an input.
pub type Body = fn(&[u8]);

/// Every body by the name of its target, which is also that of its directory in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Body)] = &[
    ("chart", chart),
    ("client-messages", client_messages),
    ("definition", definition),
    ("node-messages", node_messages),
    ("packed-results", packed_results),
    ("quoting", quoting),
    ("record-headers", record_headers),
    ("rows", rows),
    ("segment", segment),
    ("state", state),
    ("tape", tape),
    ("task-id", task_id),
    ("values", values),
    ("worker-messages", worker_messages),
];

/// The first byte and the rest; zero for nothing.
fn split_byte(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(byte, rest)| (*byte, rest))
}

/// What stands before the first zero byte, and after it.
fn split_at_nul(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == 0);
    at.map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}
