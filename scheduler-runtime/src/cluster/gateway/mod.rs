//! What clients are answered by a node of a cluster: as if all shards were here.

mod admin;
mod list;
mod load;
mod tasks;
mod watch;
mod workers;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::port::gateway::{AccessApi, ApiError, Caller};

use super::Cluster;
use crate::api::LocalNode;
use crate::node::Inner;

/// A node as a door to the whole cluster.
#[derive(Clone)]
pub(crate) struct ClusterNode {
    pub(super) inner: Arc<Inner>,
    pub(super) local: Arc<LocalNode>,
    cluster: Arc<Cluster>,
}

impl fmt::Debug for ClusterNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterNode")
            .field("id", &self.inner.world.node)
            .finish_non_exhaustive()
    }
}

impl ClusterNode {
    pub(crate) fn of(inner: Arc<Inner>, cluster: Arc<Cluster>) -> Self {
        Self {
            local: Arc::new(LocalNode::of(inner.clone())),
            inner,
            cluster,
        }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

#[async_trait]
impl AccessApi for ClusterNode {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        match self.local.authenticate(key).await {
            // It may have been made on another node just now.
            Err(ApiError::Unauthenticated(_)) if key.is_some() => {
                self.look_again().await;
                self.local.authenticate(key).await
            }
            answer => answer,
        }
    }

    async fn ready(&self) -> Result<(), ApiError> {
        self.local.ready().await
    }
}
