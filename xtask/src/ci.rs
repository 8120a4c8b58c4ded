//! What must hold before a change is taken. It writes nothing but build output.

use crate::run::{cargo, run as execute};
use crate::{Failed, borders, instructions, simulate, test, tools};

pub(crate) fn run() -> Result<(), Failed> {
    // First what is quick, and what would stop the rest after a long build.
    tools::ensure()?;
    execute(cargo(&["fmt", "--all", "--check"]))?;
    borders::run()?;
    // The tests where there are pods are no part of `cargo test`, nor of all targets.
    for targets in [&["--all-targets"][..], &["--test", "k8s"]] {
        let lints = [&["clippy", "--workspace"], targets, &["--", "-D", "warnings"]].concat();
        execute(cargo(&lints))?;
    }
    let mut documents = cargo(&["doc", "--workspace", "--no-deps"]);
    documents.env("RUSTDOCFLAGS", "-D warnings");
    execute(documents)?;
    if tools::is_installed("cargo-deny") {
        execute(cargo(&["deny", "check", "licenses", "sources", "bans"]))?;
    }
    simulate::run(&[])?;
    instructions::run(&[])?;
    test::run(&[])
}
