//! The system as its users have it: the server, workers and executors as processes, real tools, HTTP and gRPC from outside.
//!
//! Here one server with its embedded files. `e2e_cluster` runs the same tests on nodes over Kafka and TiDB.
//!
//! Nothing here waits for a time to pass: tests wait for what they want to see, with the API's own means.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where something unexpected happens, and says what the processes logged"
)]

mod bad_input;
mod browser;
mod crash;
mod dashboard;
mod drain;
mod embedded;
mod examples;
mod grpc;
mod injection;
mod inspection;
mod lifecycle;
mod pipelines;
mod scaling;
mod storage;
mod tasks;
mod tenants;
mod waiting;
mod worker;
mod world;
