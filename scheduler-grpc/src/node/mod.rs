//! What the nodes of a cluster say to each other: the [`PeerGateway`](scheduler_core::port::cluster::PeerGateway) of another node over gRPC.
//!
//! - A node serves its own with [`GrpcServer::nodes`](crate::server::GrpcServer::nodes), on the listener of everything else.
//! - [`GrpcPeers`] reaches the others. A call's arguments arrive as they were given, and its answer comes back equal, errors included.
//! - Both know the same [`ClusterSecret`]; whoever does not is no node. What nodes may say to each other they may say about every client:
//!   a node believes another which client asks.
//!
//! A node that is away, dead or a stranger answers [`ApiError::Unavailable`](scheduler_core::port::gateway::ApiError::Unavailable) within
//! [`PeersConfig`]'s bounds.
//!
//! ```no_run
//! use scheduler_core::port::cluster::Peers as _;
//! use scheduler_core::port::gateway::AccessApi as _;
//! use scheduler_grpc::node::{ClusterSecret, GrpcPeers, PeersConfig};
//!
//! # async fn run() -> Result<(), scheduler_core::port::gateway::ApiError> {
//! let peers = GrpcPeers::new(ClusterSecret::new("of all nodes"), PeersConfig::default());
//! peers.at("http://10.0.0.7:50051").ready().await?;
//! # Ok(())
//! # }
//! ```

mod channels;
mod convert;
pub mod decode;
mod peers;
mod remote;
mod remote_session;
mod secret;
mod service;
mod service_session;

pub use peers::{GrpcPeers, PeersConfig};
pub use secret::ClusterSecret;
pub(crate) use service::NodeRpc;

/// Bytes of one message between nodes, at most: far more than any client's message becomes on its way.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Bytes after which a list, or a session's batch, goes on in another message.
pub(crate) const PART_BYTES: usize = 4 << 20;
