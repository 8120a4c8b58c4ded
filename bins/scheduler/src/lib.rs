//! What an operator asks of a scheduler: the commands of the `scheduler` binary.

mod replay;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Recordings replayed and explained.
#[derive(Debug, Parser)]
#[command(name = "scheduler", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
