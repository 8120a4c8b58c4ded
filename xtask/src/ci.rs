//! What must hold before a change is taken. It writes nothing but build output.

use crate::run::{cargo, run as execute};
use crate::{Failed, borders, instructions, k8s, test, tools};

/// Histories that are played: always the same, so that a change is judged by what it changed. New ones: `cargo sim --minutes 3 --coverage`.
const SEEDS: [&str; 2] = ["1000000", "30000"];

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
    instructions::run(&[])?;
    test::run(&[])?;
    if tools::is_root() {
        k8s::run(&[])
    } else {
        println!("left out, since pods run as root alone: `sudo cargo xtask test-k8s`");
        Ok(())
    }
}

/// Plays the simulator: every history that broke a promise once, and as many others as reach every branch of interest.
fn simulate() -> Result<(), Failed> {
    let simulator = ["run", "--quiet", "--release", "--package", "scheduler-sim", "--"];
    execute(cargo(&[&simulator[..], &["--regressions"]].concat()))?;
    let [from, count] = SEEDS;
    let others = ["--from", from, "--seeds", count, "--coverage"];
    execute(cargo(&[&simulator[..], &others].concat()))
}
