//! What can be asked of one node: whether all is well with its shards, or why not, and what would come of a pipeline.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use super::catalog::Replicas;
use super::gateway::{ApiError, Caller, NewPipeline};
use crate::id::Partition;
use crate::name::{Name, PipelinePath};
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

/// What would come of a pipeline.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// What deploying its chart would create, for people, as `Deployment/worker`.
    pub objects: Vec<String>,
    /// How many workers it would have, if it has a deployment.
    pub replicas: Option<Replicas>,
    /// Its definition as JSON; empty if its workers know by themselves.
    pub definition: Bytes,
}

/// One node, looked at: nothing changes by it.
#[async_trait]
pub trait Inspect: fmt::Debug + Send + Sync + 'static {
    /// Checks a pipeline as if it were to be created, its chart included, and says what would come of it.
    async fn plan(&self, caller: &Caller, application: &Name, new: NewPipeline) -> Result<Plan, ApiError>;

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
