//! Readers: partitions share a few consumers, each partition with a small queue of its own.

mod pool;
mod reader;

pub(crate) use pool::{Lane, Pool};
pub(crate) use reader::KafkaReader;
