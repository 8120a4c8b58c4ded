//! What an operator asks of a scheduler: the commands of the `scheduler` binary.

mod audit;
mod replay;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Asks a running system whether all adds up; replays and explains recordings.
#[derive(Debug, Parser)]
#[command(name = "scheduler", version)]
pub struct Arguments {
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

impl Arguments {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// What was asked cannot be done; says why.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Audit(arguments) => audit::run(arguments),
            Command::Replay(arguments) => replay::run(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        <super::Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
