//! What the tests of the shard stand on.

pub(crate) mod store;
