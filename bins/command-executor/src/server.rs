use std::time::Duration;

use scheduler_proto::exec::exec_service_server::ExecServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::Config;
use crate::service::Executor;

/// Connections that do not close after a graceful end are dropped after so long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `exec.ExecService`, gRPC health and server reflection until `stop`, then drains: calls are served until none
/// has come for [`Config::drain_idle`], at most for [`Config::drain_timeout`]; what still runs then is killed.
///
/// # Errors
///
/// The server cannot accept connections.
pub async fn serve(listener: TcpListener, config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let calls = TaskTracker::new();
    let shutdown = CancellationToken::new();
    let (drain_idle, drain_timeout, kill_grace) =
        (config.drain_idle, config.drain_timeout, config.kill_grace);
    let executor = Executor::new(config, calls.clone(), shutdown.clone());
    let active = executor.active();

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ExecServiceServer<Executor>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(scheduler_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("exec.ExecService")
            .with_service_name("grpc.health.v1.Health")
    };

    let drained = {
        let shutdown = shutdown.clone();
        async move {
            stop.cancelled().await;
            health.set_not_serving::<ExecServiceServer<Executor>>().await;
            if timeout(drain_timeout, idle(active, drain_idle)).await.is_err() {
                tracing::warn!("calls still run after the drain timeout; killing their commands");
            }
            shutdown.cancel();
        }
    };
    let server = Server::builder()
        .add_service(ExecServiceServer::new(executor))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // Older tools ask by the older name.
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), drained);
    let closed = async {
        shutdown.cancelled().await;
        tokio::time::sleep(kill_grace + CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        result = server => result?,
        () = closed => tracing::warn!("dropping connections that did not close"),
    }
    // Also when the server failed to accept: no command may outlive it.
    shutdown.cancel();
    calls.close();
    calls.wait().await;
    Ok(())
}

/// Returns when no call has run for `pause`.
async fn idle(mut active: watch::Receiver<usize>, pause: Duration) {
    loop {
        if active.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        if timeout(pause, active.changed()).await.is_err() {
            return;
        }
    }
}
