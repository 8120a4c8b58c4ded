//! Builds the demonstration and becomes it. What it does is in `examples/src/bin/demo.rs`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::Failed;
use crate::run::{binaries, cargo, run as execute};

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let packages = [
        "scheduler-server",
        "scheduler-worker",
        "command-executor",
        "scheduler-examples",
    ];
    let mut build = vec!["build", "--bins"];
    build.extend(packages.iter().flat_map(|package| ["--package", package]));
    execute(cargo(&build))?;
    let demo = binaries()?.join("demo");
    let error = Command::new(&demo).args(arguments).exec();
    Err(format!("{} did not start: {error}", demo.display()))
}
