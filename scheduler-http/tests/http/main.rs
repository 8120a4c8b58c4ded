//! The API over a fake gateway: what it asks of the gateway, what it answers, and how it streams.

#[expect(clippy::unwrap_used, reason = "tests")]
mod bad_input;
#[expect(clippy::unwrap_used, reason = "tests")]
mod client;
#[expect(clippy::unwrap_used, reason = "tests")]
mod fake;
#[expect(clippy::unwrap_used, reason = "tests")]
mod mapping;
#[expect(clippy::unwrap_used, reason = "tests")]
mod openapi;
#[expect(clippy::unwrap_used, reason = "tests")]
mod streams;
