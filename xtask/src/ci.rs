//! What must hold before a change is taken. It writes nothing but build output.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::{cargo, run as execute};
use crate::{Failed, borders, test, tools};

/// How long new histories are played.
const SIMULATED_MINUTES: &str = "3";

pub(crate) fn run() -> Result<(), Failed> {
    // First what is quick, and what would stop the rest after a long build.
    tools::ensure()?;
    execute(cargo(&["fmt", "--all", "--check"]))?;
    borders::run()?;
    execute(cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    let mut documents = cargo(&["doc", "--workspace", "--no-deps"]);
    documents.env("RUSTDOCFLAGS", "-D warnings");
    execute(documents)?;
    if tools::is_installed("cargo-deny") {
        execute(cargo(&["deny", "check", "licenses", "sources", "bans"]))?;
    }
    simulate()?;
    test::run(&[])
}

/// Plays the simulator: every history that broke a promise once, and new ones for some minutes. A run with the seed that is shown as the first
/// plays the same ones again.
fn simulate() -> Result<(), Failed> {
    let simulator = ["run", "--quiet", "--release", "--package", "scheduler-sim", "--"];
    execute(cargo(&[&simulator[..], &["--regressions"]].concat()))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = (u64::try_from(since.as_millis()).unwrap_or_default() << 20).to_string();
    let fresh = ["--minutes", SIMULATED_MINUTES, "--coverage", "--from", &first];
    execute(cargo(&[&simulator[..], &fresh].concat()))
}
