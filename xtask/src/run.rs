//! Running other programs.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Failed;

/// The cargo that runs this.
///
/// It does not hear which package it was run by: there are crates whose builds depend on that, and whatever stands on them would be built anew whenever
/// a command is typed without xtask, or with it.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name
            .to_str()
            .is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
    command
}

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or(own.clone(), PathBuf::from)
}

/// This program.
pub(crate) fn own() -> Result<PathBuf, Failed> {
    std::env::current_exe().map_err(|error| format!("where this program lies is unknown: {error}"))
}

/// Where the binaries of the profile that this was built with lie.
pub(crate) fn binaries() -> Result<PathBuf, Failed> {
    let own = own()?;
    own.parent()
        .map(PathBuf::from)
        .ok_or_else(|| format!("{} lies nowhere", own.display()))
}

/// Runs it to its end, shown as it is typed.
pub(crate) fn run(mut command: Command) -> Result<(), Failed> {
    let shown = shown(&command);
    println!("$ {shown}");
    let status = command
        .status()
        .map_err(|error| format!("`{shown}` did not start: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{shown}` failed: {status}"))
    }
}

/// Runs it to its end, shown as it is typed, and passes on what it prints, line by line.
pub(crate) fn follow(mut command: Command, mut each: impl FnMut(&str)) -> Result<(), Failed> {
    let shown = shown(&command);
    println!("$ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{shown}` did not start: {error}"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| format!("the output of `{shown}` broke off: {error}"))?;
            println!("{line}");
            each(&line);
        }
    }
    let status = child
        .wait()
        .map_err(|error| format!("`{shown}` was lost: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{shown}` failed: {status}"))
    }
}

/// What it wrote.
pub(crate) fn output(mut command: Command) -> Result<String, Failed> {
    let shown = shown(&command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("`{shown}` did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{shown}` failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{shown}` wrote what is not text"))
}

/// The command line, for people.
pub(crate) fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
