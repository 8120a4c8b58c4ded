//! Serves a router on a listener: bounded connections, timeouts, graceful shutdown.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::config::HttpConfig;
use crate::idle::IdleGuard;
use crate::linger::Lingering;

/// Tells requests that wait for something (a task's end, an event, the next line) that the shutdown has begun. In a
/// request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Draining(CancellationToken);

impl Draining {
    /// Waits for the shutdown; for ever where there will be none.
    pub(crate) async fn begun(draining: Option<Self>) {
        match draining {
            Some(Self(token)) => token.cancelled_owned().await,
            None => pending().await,
        }
    }
}

/// Streams of one HTTP/2 connection, at most.
const MAX_STREAMS: u32 = 256;
/// How often an HTTP/2 client is asked for a sign of life, and how long it may take.
const PING: Duration = Duration::from_secs(20);
/// How long to wait when the process cannot take a connection, as when it has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` with HTTP/1.1 and HTTP/2 without TLS on `listener` until `shutdown` completes.
///
/// Then it takes no more connections, ends waits and event streams, lets requests in flight end for
/// [`HttpConfig::drain_timeout`], and cuts the rest off.
///
/// Requests that are no HTTP are answered by the HTTP library, with a bare status; everything else by the router.
///
/// # Errors
///
/// None so far: trouble with one connection is not trouble with the others.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let builder = Arc::new(builder(config));
    let idle = config.idle_timeout.max(config.max_wait * 2);
    let permits = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let draining = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let accept = async || {
        // The permit comes first: a connection that would have to wait stays in the backlog.
        let permit = Arc::clone(&permits).acquire_owned().await.ok();
        (permit, listener.accept().await)
    };
    loop {
        let (permit, accepted) = tokio::select! {
            accepted = accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(
                    stream,
                    router.clone(),
                    Arc::clone(&builder),
                    idle,
                    draining.clone(),
                );
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    draining.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(config.drain_timeout, all_ended)
        .await
        .is_err()
    {
        tracing::warn!("{} connections were cut off at shutdown", connections.len());
        connections.shutdown().await;
    }
    Ok(())
}

fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn builder(config: &HttpConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        // The library takes no less.
        .max_buf_size(config.max_header_bytes.max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX));
    builder
}

async fn connection(
    stream: TcpStream,
    router: Router,
    builder: Arc<Builder<TokioExecutor>>,
    idle: Duration,
    draining: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("no TCP_NODELAY: {error}");
    }
    let token = draining.clone();
    let service = hyper_util::service::TowerToHyperService::new(tower::service_fn(
        move |request: Request<hyper::body::Incoming>| {
            let due = Lingering::is_due(request.version(), request.headers(), request.body());
            let mut request = request.map(|body| {
                if due {
                    Body::new(Lingering::new(body, token.clone()))
                } else {
                    Body::new(body)
                }
            });
            request.extensions_mut().insert(Draining(token.clone()));
            router.clone().call(request)
        },
    ));
    let io = TokioIo::new(IdleGuard::new(stream, idle));
    let mut connection = pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
