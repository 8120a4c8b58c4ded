//! Charts deployed by the real helm into a real API server. Nothing acts on the objects there: what pods make of it is tested with nodes.
#![allow(clippy::unwrap_used, reason = "tests")]

mod charts;
mod deploy;
mod existing;
mod hostile;
mod sources;
mod spared;
mod taken_back;
mod web;
mod world;
