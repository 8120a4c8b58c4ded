//! One node of several: who the others are, what they have changed, where each shard lives, and the gateway that answers for all of them.
//!
//! Requests go at most one node further: a node asks the owner of a shard for its [`LocalNode`](crate::api::LocalNode), which asks nobody.
//!
//! | file | idea |
//! | --- | --- |
//! | `hosting.rs` | which shards live here |
//! | `members.rs` | which nodes there are |
//! | `feed.rs` | what other nodes have changed in the catalog |
//! | `routes.rs` | which node owns which shard |
//! | `owner.rs` | asking owners, also while shards move |
//! | `gateway/` | what clients are answered |

mod feed;
mod gateway;
mod hosting;
mod members;
mod owner;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::NodeId;
use scheduler_core::port::cluster::{ClusterStore, Member, Peers};

pub(crate) use self::gateway::ClusterNode;
pub(crate) use self::hosting::Hosting;

use self::feed::Feed;
use self::members::Members;
use self::routes::Routes;
use crate::node::Inner;

/// How long a node that goes down waits for placement to take its shards back.
pub(crate) const GOODBYE: Duration = Duration::from_secs(10);

/// What makes a node one of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// What the nodes know of each other; of the same storage as the node's store.
    pub store: Arc<dyn ClusterStore>,
    /// Reaches the others.
    pub peers: Arc<dyn Peers>,
    /// The node's name, for people.
    pub name: String,
    /// The base URI of its gRPC endpoint, as other nodes and workers reach it: `http://10.0.0.7:50051`.
    pub address: String,
    /// How often the node says that it lives. Default 2 s.
    pub heartbeat: Duration,
    /// After how long without such a sign others take it for gone. Default 10 s.
    pub ttl: Duration,
    /// How often changes of the catalog by other nodes are looked for. Default 500 ms.
    pub refresh: Duration,
}

impl ClusterConfig {
    /// A node called `name` that others reach at `address`, with the defaults.
    pub fn new(
        store: Arc<dyn ClusterStore>,
        peers: Arc<dyn Peers>,
        name: impl Into<String>,
        address: impl Into<String>,
    ) -> Self {
        Self {
            store,
            peers,
            name: name.into(),
            address: address.into(),
            heartbeat: Duration::from_secs(2),
            ttl: Duration::from_secs(10),
            refresh: Duration::from_millis(500),
        }
    }
}

/// A node's part in its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) store: Arc<dyn ClusterStore>,
    peers: Arc<dyn Peers>,
    refresh: Duration,
    pub(crate) members: Arc<Members>,
    pub(crate) feed: Feed,
    routes: Routes,
}

impl Cluster {
    pub(crate) fn new(id: NodeId, config: ClusterConfig) -> Self {
        let ClusterConfig {
            store,
            peers,
            name,
            address,
            heartbeat,
            ttl,
            refresh,
        } = config;
        let me = Member { id, name, address };
        Self {
            members: Arc::new(Members::new(store.clone(), me, heartbeat, ttl)),
            feed: Feed::default(),
            routes: Routes::new(store.clone()),
            store,
            peers,
            refresh,
        }
    }

    /// Whether a node can be believed to live.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.members.get(node).is_some()
    }
}

/// Starts what a node of a cluster does by itself.
pub(crate) fn spawn(inner: &Arc<Inner>) {
    if let Some(cluster) = &inner.cluster {
        inner.spawn_background(members::beat(cluster.members.clone()));
        inner.spawn_background(feed::follow(inner, cluster.refresh));
    }
}
