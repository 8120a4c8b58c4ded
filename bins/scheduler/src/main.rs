//! The `scheduler` binary.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> anyhow::Result<ExitCode> {
    scheduler_cli::Arguments::parse().run()
}
