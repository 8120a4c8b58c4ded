//! The tests of `e2e` on the cluster: every test has two nodes, on a real Kafka and a real TiDB, and its requests go to the nodes in turn,
//! so that about half of them reach the node that does not own what they are about. What is about embedded files is left out, and what is
//! about several nodes, or about Kafka, is here alone.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where something unexpected happens, and says what the processes logged"
)]

#[path = "../e2e/bad_input.rs"]
mod bad_input;
#[path = "../e2e/crash.rs"]
mod crash;
#[path = "../e2e/drain.rs"]
mod drain;
#[path = "../e2e/examples.rs"]
mod examples;
#[path = "../e2e/grpc.rs"]
mod grpc;
#[path = "../e2e/injection.rs"]
mod injection;
#[path = "../e2e/lifecycle.rs"]
mod lifecycle;
mod nodes;
#[path = "../e2e/pipelines.rs"]
mod pipelines;
#[path = "../e2e/scaling.rs"]
mod scaling;
mod storage;
#[path = "../e2e/tasks.rs"]
mod tasks;
#[path = "../e2e/tenants.rs"]
mod tenants;
#[path = "../e2e/waiting.rs"]
mod waiting;
#[path = "../e2e/worker.rs"]
mod worker;
#[path = "../e2e/world.rs"]
mod world;
