//! The gateway of this node alone: carried out by the actors, the catalog, the log and the store.

mod access;
mod admin;
mod change;
mod check;
mod deletion;
pub(crate) mod error;
mod find;
mod inspect;
mod list;
mod load;
mod plan;
mod tasks;
pub(crate) mod view;
mod workers;

pub(crate) use self::access::hash;
pub(crate) use self::deletion::{finish_deletion, let_go};
pub(crate) use self::tasks::key_of;
pub(crate) use self::workers::check_partition;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::ShardId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::ApiError;

use crate::actor::Durable;
use crate::directory::Served;
use crate::node::Inner;

/// What a node answers to the other nodes of its cluster: for the shards that live on it, and without asking anybody else.
///
/// What names a shard that is not there is answered [`ApiError::Elsewhere`]. A node that is alone has all of them.
#[derive(Clone)]
pub struct LocalNode {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for LocalNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalNode")
            .field("id", &self.inner.world.node)
            .finish_non_exhaustive()
    }
}

impl LocalNode {
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Whether the shard lives here.
    fn check_here(&self, shard: ShardId) -> Result<(), ApiError> {
        let is_here = self.inner.hosting.has(shard);
        is_here.then_some(()).ok_or(ApiError::Elsewhere(shard))
    }

    /// Whether any shard of the pipeline lives here.
    fn check_any_here(&self, served: &Served) -> Result<(), ApiError> {
        let (id, first) = (served.pipeline.id, scheduler_core::id::Partition(0));
        let is_here = self.inner.hosting.has_any(id);
        is_here
            .then_some(())
            .ok_or(ApiError::Elsewhere(ShardId::new(id, first)))
    }

    /// The shards of the pipeline that live here, in order.
    fn shards_here(&self, served: &Served) -> Vec<ShardId> {
        let pipeline = &served.pipeline;
        let here = self.inner.hosting.partitions(pipeline.id, pipeline.partitions);
        here.into_iter()
            .map(|partition| ShardId::new(pipeline.id, partition))
            .collect()
    }
}

#[async_trait]
impl PeerGateway for LocalNode {
    async fn flush(&self, path: &PipelinePath) -> Result<(), ApiError> {
        self.flush_here(&*self.served(path)?).await
    }

    async fn busy(&self, path: &PipelinePath) -> Result<Vec<BusyWorker>, ApiError> {
        self.busy_here(&*self.served(path)?).await
    }

    async fn refresh(&self) -> Result<(), ApiError> {
        self.inner.refresh().await.map_err(error::of_catalog)
    }
}

/// Longest wait for a change to be saved; what was done stays done, and is saved when the store is back.
const LONGEST_SAVE: Duration = Duration::from_secs(15);

/// Waits until a change is saved; the inner error says that its shard has left this node before.
async fn saved(durable: Durable) -> Result<Result<(), Left>, ApiError> {
    match tokio::time::timeout(LONGEST_SAVE, durable).await {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(_)) => Ok(Err(Left)),
        Err(_) => Err(error::unavailable(
            "the store does not answer: what was asked for is done, and not saved yet",
        )),
    }
}

/// A shard has left this node.
struct Left;
