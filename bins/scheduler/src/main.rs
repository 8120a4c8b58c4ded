//! What an operator asks of a scheduler.

mod audit;
mod replay;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Asks a running system whether all adds up; replays and explains recordings.
#[derive(Debug, Parser)]
#[command(name = "scheduler", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks the nodes of a running system whether every offset of every log is accounted for. Fails if not.
    Audit(audit::Arguments),
    /// Replays the recording of a shard, and says what it was told and what it decided.
    Replay(replay::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        <super::Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
