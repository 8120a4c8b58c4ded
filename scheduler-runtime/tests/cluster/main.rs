//! Several nodes over one log and one store in memory, which reach each other in process, over links that can be cut.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod links;
mod moves;
mod requests;
mod spared;
mod world;
