//! The services over loopback: what a client, a worker or another node says reaches the gateway, and what the gateway says comes back.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tests"
)]

mod bad_input;
mod calls;
mod fake;
mod far;
mod peers;
mod scaler;
mod sessions;
mod tasks;
