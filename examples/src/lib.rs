//! What the examples and the end to end tests share: a server process, its HTTP API as JSON, and pictures served on loopback.
//!
//! - `cargo demo` is `src/bin/demo.rs`: a whole system on this machine.
//! - `cargo run -p scheduler-examples --example embed`: a service that embeds the scheduler.
//! - `cargo run -p scheduler-examples --example worker`: a worker of its own kind.
//! - `charts/`: pipelines to deploy. `pictures/`: pictures with known text.

mod api;
mod events;
mod pictures;
mod server;

use std::path::{Path, PathBuf};

pub use api::{Answer, Api};
pub use events::{Event, Events};
pub use pictures::Pictures;
pub use server::{Server, ServerOptions};

/// The directory with charts and pictures.
pub fn directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the workspace's binaries lie: `$SCHEDULER_BIN_DIR`, or where this program was built to.
///
/// # Errors
///
/// Where this program lies is not known.
pub fn binaries() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("SCHEDULER_BIN_DIR") {
        return Ok(given.into());
    }
    let own = std::env::current_exe()?;
    // Tests and examples lie one below.
    let beside = own.ancestors().skip(1).find(|directory| {
        !matches!(
            directory.file_name().and_then(|name| name.to_str()),
            Some("deps" | "examples")
        )
    });
    Ok(beside.unwrap_or(Path::new(".")).to_owned())
}

/// Whether a program is in the path.
pub fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// The worker that the README shows is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
