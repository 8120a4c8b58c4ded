//! A node with the far gateway behind it, and a way to it that can be cut.

use std::sync::Arc;

use scheduler_grpc::node::ClusterSecret;
use scheduler_grpc::server::GrpcServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::{FarGateway, FarSession};

/// A node on a port of its own. It ends when it is dropped.
pub(crate) struct FarNode {
    pub(crate) far: Arc<FarGateway>,
    pub(crate) address: String,
    pub(crate) sessions: mpsc::UnboundedReceiver<FarSession>,
    running: tokio::task::JoinHandle<Result<(), scheduler_grpc::server::ServeError>>,
}

impl FarNode {
    pub(crate) async fn start(secret: &str) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), secret)
    }

    pub(crate) fn on(listener: TcpListener, secret: &str) -> Self {
        let (far, sessions) = FarGateway::new();
        let far = Arc::new(far);
        let address = format!("http://{}", listener.local_addr().unwrap());
        // What clients ask goes elsewhere, so that a node's call that lands there is seen.
        let (public, _) = FarGateway::new();
        let server = GrpcServer::new(Arc::new(public)).nodes(ClusterSecret::new(secret), far.clone());
        Self {
            far,
            address,
            sessions,
            running: tokio::spawn(server.serve(listener, std::future::pending())),
        }
    }
}

impl Drop for FarNode {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A way to a node that can be cut.
pub(crate) struct Link {
    pub(crate) address: String,
    cuts: watch::Sender<u32>,
    _running: tokio_util::task::AbortOnDropHandle<()>,
}

impl Link {
    pub(crate) async fn to(address: &str) -> Self {
        let there = address.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (cuts, seen) = watch::channel(0);
        let running = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (there, mut seen) = (there.clone(), seen.clone());
                seen.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(there).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => (),
                        _ = seen.changed() => (),
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            _running: tokio_util::task::AbortOnDropHandle::new(running),
        }
    }

    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}
