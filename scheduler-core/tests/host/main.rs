//! A pipeline where it lives: what a host decides, told by hand.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod lives;
mod reading;
mod saving;
mod world;
