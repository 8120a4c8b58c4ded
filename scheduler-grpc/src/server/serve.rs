//! The listener.

use std::future::Future;
use std::sync::Arc;

use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::gateway::Gateway;
use scheduler_proto::api::admin_service_server::AdminServiceServer;
use scheduler_proto::api::task_service_server::TaskServiceServer;
use scheduler_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use scheduler_proto::worker::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::HealthServer;

use super::GrpcConfig;
use super::admin::AdminRpc;
use super::call::Node;
use super::health::HealthRpc;
use super::incoming::patient;
use super::scaler::ScalerRpc;
use super::task::TaskRpc;
use super::worker::WorkerRpc;
use crate::node::{ClusterSecret, NodeRpc};

/// Bytes of what KEDA asks: a handful of short texts.
const MAX_SCALER_BYTES: usize = 64 << 10;

/// Why the server ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The descriptors that reflection serves are damaged: a broken build.
    #[error("the descriptors for reflection cannot be read")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
}

/// What is served, to whom.
#[derive(Debug)]
#[must_use]
pub struct GrpcServer {
    gateway: Arc<dyn Gateway>,
    config: GrpcConfig,
    nodes: Option<(ClusterSecret, Arc<dyn PeerGateway>)>,
}

impl GrpcServer {
    /// Serves clients and workers from `gateway`.
    pub fn new(gateway: Arc<dyn Gateway>) -> Self {
        Self {
            gateway,
            config: GrpcConfig::default(),
            nodes: None,
        }
    }

    /// With these limits and times instead of the default ones.
    pub fn config(mut self, config: GrpcConfig) -> Self {
        self.config = config;
        self
    }

    /// Serves the other nodes of a cluster too, from `local`: the gateway for this node's own shards. Without it calls of nodes are refused.
    ///
    /// Workers who have sessions with several nodes are served from it as well.
    pub fn nodes(mut self, secret: ClusterSecret, local: Arc<dyn PeerGateway>) -> Self {
        self.nodes = Some((secret, local));
        self
    }

    /// Serves on `listener` until `shutdown` comes.
    ///
    /// Then no more connections and calls are taken, watches end, and sessions have [`GrpcConfig::shutdown_grace`] to end by themselves:
    /// the gateway tells workers to go away. It returns when every connection is closed, or a little after the grace.
    ///
    /// # Errors
    ///
    /// The listener or the transport failed.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let node = Node {
            gateway: self.gateway,
            local: self.nodes.as_ref().map(|(_, local)| Arc::clone(local)),
            config: Arc::new(self.config),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
        };
        // Streams must end with this function, also when it is dropped.
        let _close = node.closing.clone().drop_guard();
        let config = Arc::clone(&node.config);
        let limit = config.max_message_bytes;

        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(scheduler_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(ServeError::Reflection)?;
        let nodes = self.nodes.map(|(secret, local)| {
            NodeRpc::service(local, secret, node.stopping.clone(), node.closing.clone())
        });

        let server = Server::builder()
            .max_concurrent_streams(config.max_concurrent_streams)
            .initial_stream_window_size(config.stream_window_bytes)
            .initial_connection_window_size(config.connection_window_bytes)
            .http2_keepalive_interval(Some(config.keepalive_interval))
            .http2_keepalive_timeout(Some(config.keepalive_timeout))
            .add_service(
                WorkerServiceServer::new(WorkerRpc::new(node.clone())).max_decoding_message_size(limit),
            )
            .add_service(TaskServiceServer::new(TaskRpc::new(node.clone())).max_decoding_message_size(limit))
            .add_service(
                AdminServiceServer::new(AdminRpc::new(node.clone())).max_decoding_message_size(limit),
            )
            .add_service(
                ExternalScalerServer::new(ScalerRpc::new(node.clone()))
                    .max_decoding_message_size(MAX_SCALER_BYTES),
            )
            .add_service(HealthServer::new(HealthRpc::new(node.clone())))
            .add_service(reflection)
            .add_optional_service(nodes);

        let incoming = patient(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let stop = async {
            shutdown.await;
            node.stopping.cancel();
        };
        let overdue = async {
            node.stopping.cancelled().await;
            tokio::time::sleep(config.shutdown_grace).await;
            node.closing.cancel();
            // The last statuses get a moment to leave; a client that does not read them is left behind.
            tokio::time::sleep(config.shutdown_grace / 10).await;
        };
        tokio::select! {
            ended = server.serve_with_incoming_shutdown(incoming, stop) => Ok(ended?),
            () = overdue => Ok(()),
        }
    }
}

/// Serves clients and workers on `listener` until `shutdown` comes: [`GrpcServer`] without other nodes.
///
/// # Errors
///
/// The listener or the transport failed.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<dyn Gateway>,
    config: GrpcConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    GrpcServer::new(gateway)
        .config(config)
        .serve(listener, shutdown)
        .await
}
