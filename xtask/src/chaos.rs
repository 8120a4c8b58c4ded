//! Builds what faults happen to, and becomes the program that lets them happen. What it does is in `docs/chaos.md`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::Failed;
use crate::run::{binaries, cargo, own, run as execute};
use crate::services::Service;
use crate::test::{BINARIES, XTASK};
use crate::tools;

pub(crate) const USAGE: &str = "\
  chaos [--release] [ARGS]
                kill, stop, cut off and restart real processes under load, and prove what came of every task;
                `chaos --help` shows the rest
";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let is_fast = arguments.iter().any(|argument| argument == "--release");
    let rest = arguments.iter().filter(|argument| *argument != "--release");
    tools::ensure_for_services(&[Service::Kafka, Service::Tidb].into())?;
    let mut build = vec!["build", "--bins"];
    build.extend(["-p", "scheduler-server", "-p", "scheduler-chaos"]);
    if is_fast {
        build.push("--release");
    }
    execute(cargo(&build))?;
    // Cargo lays profiles side by side.
    let own_profile = binaries()?;
    let profile = match own_profile.parent() {
        Some(target) if is_fast => target.join("release"),
        _ => own_profile,
    };
    let chaos = profile.join("chaos");
    let error = Command::new(&chaos)
        .args(rest)
        .env(BINARIES, &profile)
        .env(XTASK, own()?)
        .exec();
    Err(format!("{} did not start: {error}", chaos.display()))
}
