//! The `command-executor` binary: configuration, signals, and nothing else.

use anyhow::Context as _;
use clap::Parser;
use command_executor::{Arguments, serve};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Who reads the log may be gone, and a complaint about it would be a panic.
        .log_internal_errors(false)
        .init();

    if let Some(file) = &arguments.install {
        let own = std::env::current_exe().context("where this program is")?;
        std::fs::copy(own, file).with_context(|| format!("--install {}", file.display()))?;
        return Ok(());
    }

    let listener = arguments.listen.bind().await?;
    let config = arguments.config();
    tracing::info!(
        name = arguments.name,
        address = %listener.local_addr()?,
        shell = config.shell,
        "listening"
    );

    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    let orphaned = CancellationToken::new();
    if arguments.exit_with_stdin {
        let orphaned = orphaned.clone();
        // A thread of its own: a read cannot be taken back, and the runtime waits for those that it makes.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            orphaned.cancel();
        });
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = orphaned.cancelled() => {}
        }
        tracing::info!("draining");
        stopping.cancel();
    });
    serve(listener, config, stop).await
}
