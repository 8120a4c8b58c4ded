//! Charts deployed where deployments get pods. Not part of `cargo test`: `cargo xtask test-k8s` starts what they need. Where pods really run is
//! said by the tests' names: in pods, or on played nodes.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::print_stdout,
    reason = "how long things took is for people to look at"
)]

#[path = "../helm/gate.rs"]
mod gate;
#[path = "../helm/installed.rs"]
#[expect(dead_code, reason = "this is for tests without nodes as well")]
mod installed;
#[path = "../helm/world.rs"]
#[expect(dead_code, reason = "this is for tests without nodes as well")]
mod world;

mod forward;
mod older;
mod played;
mod pods;
mod registry;
mod scaled;
mod scheduler;
mod sources;
mod spared;
mod taken_back;
mod web;
