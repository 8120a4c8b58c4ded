//! What the tests of the shard stand on.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod store;
pub(crate) mod world;
