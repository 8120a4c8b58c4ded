//! Placement: which shards live on this node.

use std::fmt;

use async_trait::async_trait;

use super::BoxError;
use super::log::Topic;
use crate::id::ShardId;

/// What changed about the shards of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlacementEvent {
    /// These are ours from now on.
    Assigned(Vec<ShardId>),
    /// These go to another node: stop leasing, save, then [`Placement::released`].
    Revoked(Vec<ShardId>),
    /// These are another node's already: drop them without saving.
    Lost(Vec<ShardId>),
}

/// Decides which shards live on this node (Kafka: the consumer group; embedded: all of them).
#[async_trait]
pub trait Placement: fmt::Debug + Send + Sync + 'static {
    /// Says which topics there are. The partitions of new ones will be assigned, those of missing ones revoked.
    async fn set_topics(&self, topics: Vec<Topic>) -> Result<(), PlacementError>;

    /// Waits for the next change. Cancel safe.
    async fn next(&self) -> Result<PlacementEvent, PlacementError>;

    /// Says that revoked shards are saved and let go.
    async fn released(&self, shards: &[ShardId]) -> Result<(), PlacementError>;
}

/// Placement could not do as asked now; later the same call may succeed.
#[derive(Debug, thiserror::Error)]
#[error("placement is unavailable")]
pub struct PlacementError(#[source] pub BoxError);
