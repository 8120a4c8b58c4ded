//! A whole node: over ports in memory whose time is tokio's and is paused, so that hours pass at once; and over the embedded adapters.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]
#![expect(clippy::needless_pass_by_value, reason = "answers are looked at and dropped")]

mod deployments;
mod faults;
mod gateway;
mod idle;
mod lifecycle;
mod lists;
mod ownership;
mod sessions;
mod watches;
mod world;
