//! The catalog: clients, their keys, applications and pipelines.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::log::TopicSettings;
use super::store::StoreError;
use crate::id::{Partition, PipelineId};
use crate::key::KeyHash;
use crate::name::{Name, PipelinePath};
use crate::policy::PipelinePolicy;
use crate::time::Timestamp;

/// A tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Client {
    /// Its name.
    pub name: Name,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The SHA-256 of an API key: keys themselves are not kept.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ApiKeyHash(pub [u8; 32]);

/// A client's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiKey {
    /// Of the secret.
    pub hash: ApiKeyHash,
    /// Whose.
    pub client: Name,
    /// What it is for.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A group of pipelines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Application {
    /// Whose.
    pub client: Name,
    /// Its name, unique for the client.
    pub name: Name,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Its number, for ever.
    pub id: PipelineId,
    /// Its name.
    pub path: PipelinePath,
    /// Counts its changes, from 1; given out by the catalog.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many partitions its log has.
    pub partitions: u32,
    /// Tasks with idempotency keys lie in the first so many of them: as many as it was made with, so that a key's partition never changes.
    pub key_partitions: u32,
    /// What was asked of its topic when it was made.
    pub topic: TopicSettings,
    /// What its shards go by.
    pub policy: PipelinePolicy,
    /// Whether its tasks wait until it is resumed.
    pub paused: bool,
    /// What its workers run: JSON in the form of the scheduler-pipeline crate; empty if its workers know by themselves.
    pub definition: Bytes,
    /// Where its workers come from.
    pub deployment: Option<Deployment>,
    /// Whether it is being deleted: nothing is accepted any more.
    pub deleting: bool,
}

impl Pipeline {
    /// The partition in which all tasks of an idempotency key lie, however many partitions there are by now.
    pub fn partition_of(&self, key: KeyHash) -> Partition {
        key.partition(self.key_partitions)
    }
}

/// Where the workers of a pipeline come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deployment {
    /// Where its chart is, as it was given.
    pub chart: String,
    /// Values that override the chart's, as JSON.
    pub values: Bytes,
    /// How many workers.
    pub replicas: Replicas,
}

/// Bounds on the number of workers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replicas {
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
}

/// Keeps who may do what, and which pipelines there are.
///
/// # Contract
///
/// - Every write is durable when it answers, and atomic.
/// - A pipeline's number is never given again, not even after a restart or a deletion.
/// - [`update_pipeline`](Self::update_pipeline) compares versions: of two writers that read the same version one gets [`CatalogError::Changed`].
#[async_trait]
pub trait Catalog: fmt::Debug + Send + Sync + 'static {
    /// Everything there is, for a start.
    async fn snapshot(&self) -> Result<CatalogSnapshot, CatalogError>;

    /// Adds a client; [`CatalogError::Exists`] if there is one of the name.
    async fn add_client(&self, client: Client) -> Result<(), CatalogError>;

    /// Adds a key of a client that exists.
    async fn add_key(&self, key: ApiKey) -> Result<(), CatalogError>;

    /// Withdraws a key; [`CatalogError::NotFound`] if there is none.
    async fn remove_key(&self, hash: ApiKeyHash) -> Result<(), CatalogError>;

    /// Adds an application; [`CatalogError::Exists`] if the client has one of the name.
    async fn add_application(&self, application: Application) -> Result<(), CatalogError>;

    /// Removes an application; [`CatalogError::NotEmpty`] while it has pipelines.
    async fn remove_application(&self, client: &Name, application: &Name) -> Result<(), CatalogError>;

    /// Adds a pipeline to an application that exists. `id` and `version` are given out and answered.
    async fn add_pipeline(&self, pipeline: Pipeline) -> Result<Pipeline, CatalogError>;

    /// Replaces the pipeline of the same `id`, if its stored version is still `pipeline.version`; answers it with the new version.
    async fn update_pipeline(&self, pipeline: Pipeline) -> Result<Pipeline, CatalogError>;

    /// Removes a pipeline.
    async fn remove_pipeline(&self, id: PipelineId) -> Result<(), CatalogError>;
}

/// Everything in a catalog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogSnapshot {
    /// The tenants.
    pub clients: Vec<Client>,
    /// Their keys.
    pub keys: Vec<ApiKey>,
    /// Their applications.
    pub applications: Vec<Application>,
    /// Their pipelines.
    pub pipelines: Vec<Arc<Pipeline>>,
}

/// Why the catalog did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// What the call is about does not exist.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// What it would be.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("there is a {kind} {name} already")]
    Exists {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The application still has pipelines.
    #[error("application {0} still has pipelines")]
    NotEmpty(Name),
    /// Somebody else changed it meanwhile.
    #[error("pipeline {0} was changed meanwhile")]
    Changed(PipelinePath),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
