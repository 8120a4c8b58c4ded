//! The cluster: which nodes there are, which of them owns which shard, and how they reach each other.
//!
//! A node that is alone needs none of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::catalog::{ApiKey, ApiKeyHash, Application, CatalogError, Client, Pipeline};
use super::deploy::BusyWorker;
use super::gateway::{ApiError, Gateway};
use super::store::StoreError;
use crate::id::{Epoch, NodeId, Partition, PipelineId};
use crate::name::{Name, PipelinePath};

/// A node, as others know it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Which: drawn anew at each start.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// The base URI of its gRPC endpoint, as other nodes and workers reach it: `http://10.0.0.7:50051`.
    pub address: String,
}

/// Who owns a shard: who claimed it last and has not released it. It may be dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// Of the shard.
    pub partition: Partition,
    /// Who.
    pub node: NodeId,
    /// Since when.
    pub epoch: Epoch,
}

/// What nodes of a cluster know of each other through the store that they share.
///
/// # Contract
///
/// - A member is listed from its first [`beat`](Self::beat) until it [leaves](Self::leave), or for `ttl` after its last beat by the store's clock.
/// - [`changes`](Self::changes) misses nothing: whoever applies every answer, in order, to what the first one gave (and begins anew
///   with one that is [`whole`](CatalogChanges::whole)) has what
///   [`Catalog::snapshot`](super::catalog::Catalog::snapshot) has. A change is listed from the moment its write answered, on every node.
#[async_trait]
pub trait ClusterStore: fmt::Debug + Send + Sync + 'static {
    /// Says that a node lives, and answers all that do, that one included, by id.
    async fn beat(&self, member: &Member, ttl: Duration) -> Result<Vec<Member>, StoreError>;

    /// Says that a node is gone. Repeating it is safe.
    async fn leave(&self, node: NodeId) -> Result<(), StoreError>;

    /// The owners of a pipeline's shards, by partition. Shards that nobody owns are not listed.
    async fn owners(&self, pipeline: PipelineId) -> Result<Vec<Owner>, StoreError>;

    /// What changed in the catalog after `since`; everything for 0, and for a version that the store no longer, or never, knew.
    async fn changes(&self, since: CatalogVersion) -> Result<CatalogChanges, CatalogError>;
}

/// Counts the writes of a catalog.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CatalogVersion(pub u64);

/// What changed in a catalog. Each thing is listed as it is now, at most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogChanges {
    /// The version that these lead to.
    pub version: CatalogVersion,
    /// Whether this is all there is: it replaces whatever was known, and nothing is in [`removed`](Self::removed).
    pub whole: bool,
    /// Clients that were added.
    pub clients: Vec<Client>,
    /// Keys that were added.
    pub keys: Vec<ApiKey>,
    /// Applications that were added.
    pub applications: Vec<Application>,
    /// Pipelines that were added or changed.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// What was removed, and has not been added again since.
    pub removed: Vec<Removed>,
}

/// Something that is no longer in the catalog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Removed {
    /// A key.
    Key(ApiKeyHash),
    /// An application: client and name.
    Application(Name, Name),
    /// A pipeline.
    Pipeline(PipelineId),
}

/// Most workers that a node tells of as busy.
pub const MOST_BUSY: usize = 1_000;

/// What nodes ask of each other: the gateway, for shards that the asked node has itself.
///
/// Everything that names one shard (a task's id, a lease, [`TaskFilter::partition`](super::gateway::TaskFilter::partition)) is answered
/// [`ApiError::Elsewhere`] by a node that does not have it. Everything about a whole pipeline is about the asked node's shards of it.
#[async_trait]
pub trait PeerGateway: Gateway {
    /// Has everything about the pipeline's shards here saved.
    async fn flush(&self, path: &PipelinePath) -> Result<(), ApiError>;

    /// The workers that have tasks of the pipeline's shards here, by name. Names that are too long for a worker's are left out, and those beyond
    /// [`MOST_BUSY`].
    async fn busy(&self, path: &PipelinePath) -> Result<Vec<BusyWorker>, ApiError>;

    /// Takes in what the catalog has now: answered when it holds for whatever this node is asked next.
    async fn refresh(&self) -> Result<(), ApiError>;
}

/// Reaches other nodes.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// The node at a [`Member::address`]. Connections are made as they are needed, and shared.
    fn at(&self, address: &str) -> Arc<dyn PeerGateway>;
}
