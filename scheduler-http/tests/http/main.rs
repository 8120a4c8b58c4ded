//! The API over a fake gateway: what it asks of the gateway, what it answers, and how it streams.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod bad_input;
mod bulk;
mod client;
mod fake;
mod mapping;
mod openapi;
mod paths;
mod streams;
