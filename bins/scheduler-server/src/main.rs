//! The scheduler as a server. It reads its configuration, picks adapters, starts, and waits for a signal.

mod process;
mod storage;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::Gateway;
use scheduler_deploy::helm::HelmDeployer;
use scheduler_deploy::local::{LocalConfig, LocalDeployer};
use scheduler_grpc::server::GrpcServer;
use scheduler_http::{HttpConfig, NamespaceOf};
use scheduler_server::{Arguments, DeployerKind, LogFormat};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// It gives memory back after a burst, which the system's allocator keeps: a moved backlog would stay in the RSS for ever.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged if `RUST_LOG` does not say: the storage engine tells a lot about its own affairs.
const LOGGED: &str = "info,fjall=warn,lsm_tree=warn";

fn main() -> anyhow::Result<()> {
    process::have_memory_given_back();
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_logging(arguments.log_format);
    arguments.check()?;
    process::raise_file_limit();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let http = bind(arguments.http, "--http").await?;
    let grpc = bind(arguments.grpc, "--grpc").await?;
    let metrics = match arguments.metrics {
        Some(address) => Some(bind(address, "--metrics").await?),
        None => None,
    };
    let grpc_url = format!("http://{}", grpc.local_addr()?);
    let http_url = format!("http://{}", http.local_addr()?);
    let advertise = arguments.advertise.clone().unwrap_or_else(|| grpc_url.clone());

    let storage = storage::open(&arguments, &advertise).await?;
    let mut builder = storage.builder.config(arguments.node(&advertise)?);
    // Workers that come by themselves are where their operator put them: in a namespace that is called like the application, if charts are to find it.
    let mut namespace_of: NamespaceOf = Arc::new(|path: &PipelinePath| path.application.to_string());
    match arguments.deployer {
        DeployerKind::Local => {
            let keys: BTreeMap<_, _> = arguments
                .api_keys
                .iter()
                .map(|key| (key.client.clone(), key.key.clone()))
                .collect();
            let config = LocalConfig {
                api_keys: keys,
                chart_roots: arguments.chart_roots.clone(),
                ..LocalConfig::new(arguments.data.join("workers"), &grpc_url)
            };
            builder = builder.deployer(Arc::new(LocalDeployer::open(config).await?));
        }
        DeployerKind::Helm => {
            let config = arguments.helm(&advertise)?;
            let applications = config.application.clone();
            namespace_of = Arc::new(move |path: &PipelinePath| applications.namespace(path));
            let deployer = HelmDeployer::open(config).await?;
            builder = builder.deployer(Arc::new(deployer));
        }
        DeployerKind::None => (),
    }
    let node = builder.start().await?;
    for key in &arguments.revoked_api_keys {
        node.remove_key(key).await?;
    }
    for key in &arguments.api_keys {
        node.add_client(key.client.clone()).await?;
        node.add_key(key.client.clone(), &key.key, "command line").await?;
    }

    let gateway: Arc<dyn Gateway> = Arc::new(node.clone());
    let stop = CancellationToken::new();
    let config = HttpConfig {
        max_params: arguments.max_params,
        ..HttpConfig::default()
    };
    let router = scheduler_http::inspectable_router(gateway.clone(), Arc::new(node.local()), config.clone());
    let stop_http = stop.clone();
    let http = tokio::spawn(async move {
        scheduler_http::serve(http, router, &config, stop_http.cancelled_owned()).await
    });
    let mut where_metrics = String::new();
    let metrics = match metrics {
        Some(listener) => {
            where_metrics = format!(" metrics=http://{}/metrics", listener.local_addr()?);
            let router = scheduler_http::metrics_router(Arc::new(node.clone()), namespace_of);
            let stop = stop.clone();
            Some(tokio::spawn(async move {
                let config = HttpConfig::default();
                scheduler_http::serve(listener, router, &config, stop.cancelled_owned()).await
            }))
        }
        None => None,
    };
    let mut server = GrpcServer::new(gateway);
    if let Some(membership) = &storage.membership {
        server = server.nodes(membership.secret.clone(), Arc::new(node.local()));
    }
    let grpc = tokio::spawn(server.serve(grpc, stop.clone().cancelled_owned()));

    // For whoever started us: where we are, and that we are.
    writeln!(
        std::io::stdout(),
        "ready http={http_url} grpc={grpc_url}{where_metrics}"
    )?;
    info!(%http_url, %grpc_url, data = %arguments.data.display(), "ready");

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: going down"),
        _ = interrupt.recv() => info!("SIGINT: going down"),
    }
    // Workers report over gRPC what they are still running, so the transports go last.
    node.shutdown().await;
    if let Some(membership) = &storage.membership {
        membership.leave().await;
    }
    stop.cancel();
    http.await??;
    grpc.await??;
    if let Some(metrics) = metrics {
        metrics.await??;
    }
    info!("everything is saved; bye");
    Ok(())
}

async fn bind(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} is not free; choose another with {flag}"))
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let ansi = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        // A complaint about a broken pipe would go into the same pipe, and panic.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
