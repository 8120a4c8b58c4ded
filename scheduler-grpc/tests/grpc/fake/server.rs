//! A server with the fake behind it.

use std::sync::Arc;

use scheduler_core::port::gateway::*;
use tokio::sync::mpsc;

use super::{FakeGateway, SessionEnds};

/// A server on a port of its own with a fake behind it. It ends when it is dropped.
pub(crate) struct Server {
    pub(crate) fake: Arc<FakeGateway>,
    pub(crate) address: String,
    pub(crate) sessions: mpsc::UnboundedReceiver<SessionEnds>,
    pub(crate) stop: tokio_util::sync::CancellationToken,
    pub(crate) running: tokio::task::JoinHandle<Result<(), scheduler_grpc::server::ServeError>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(scheduler_grpc::server::GrpcConfig::default(), |_| {}).await
    }

    pub(crate) async fn with(
        config: scheduler_grpc::server::GrpcConfig,
        set: impl FnOnce(&mut FakeGateway),
    ) -> Self {
        let (mut fake, sessions) = FakeGateway::new();
        set(&mut fake);
        let fake = Arc::new(fake);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = tokio_util::sync::CancellationToken::new();
        let running = tokio::spawn(scheduler_grpc::server::serve(
            listener,
            Arc::clone(&fake) as Arc<dyn Gateway>,
            config,
            stop.clone().cancelled_owned(),
        ));
        Self {
            fake,
            address,
            sessions,
            stop,
            running,
        }
    }

    pub(crate) async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(self.address.clone())
            .unwrap()
            .connect()
            .await
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A request with the key that the fake knows.
pub(crate) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", "Bearer good".parse().unwrap());
    request
}
