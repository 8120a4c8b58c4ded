//! What a figure is written down with: the machine, the commit and the date.

use std::process::Command;

use crate::run::{output, root};

/// One line.
pub(crate) fn stamp() -> String {
    let mut date = Command::new("date");
    date.args(["-u", "+%F %R UTC"]);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Machine: {}; load {}; commit {}; {}",
        machine(),
        load.split_whitespace().next().unwrap_or("unknown"),
        commit(),
        output(date).map_or("at an unknown time".to_owned(), |date| date.trim().to_owned()),
    )
}

/// The processor, its cores and the memory.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores, {} memory",
        of(&read("/proc/cpuinfo"), "model name"),
        of(&read("/proc/meminfo"), "MemTotal")
    )
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(root());
    output(git).map_or("unknown".to_owned(), |commit| commit.trim().to_owned())
}
