//! What can be asked of the shards of one node to see that all is well with them, or why not.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use super::gateway::ApiError;
use crate::id::Partition;
use crate::name::PipelinePath;
use crate::shard::Account;

/// Whether every offset of a partition's log is accounted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Audit {
    /// Of which.
    pub partition: Partition,
    /// What its shard counts.
    pub account: Account,
    /// Tasks that the store has parked and the shard does not have in memory.
    pub parked: u64,
}

impl Audit {
    /// Whether what the shard has counted, what it holds and what the store has add up to the offsets of the log.
    pub fn adds_up(&self) -> bool {
        self.account.is_complete && self.account.parked() == Some(self.parked)
    }
}

/// A recording as it is made, piece by piece: the bytes that [`Replay`](crate::tape::Replay) takes. It ends when it has the wanted length,
/// when its shard leaves, or when whoever reads it is too slow; up to there it is whole.
pub type Recording = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The shards of one node, looked at.
#[async_trait]
pub trait Inspect: fmt::Debug + Send + Sync + 'static {
    /// Audits the shards of a pipeline that live on this node, by partition.
    async fn audit(&self, path: &PipelinePath) -> Result<Vec<Audit>, ApiError>;

    /// Records what a shard on this node is told, up to `limit` bytes. For that the shard comes up anew, after an orderly release.
    async fn record(
        &self,
        path: &PipelinePath,
        partition: Partition,
        limit: usize,
    ) -> Result<Recording, ApiError>;
}
