//! Instructions that the core takes for a task, counted by valgrind: the same on a busy machine as on an idle one.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{cargo, root, run as execute};
use crate::{Failed, tools};

pub(crate) const USAGE: &str = "\
  instructions [--write]
                count what the core takes for a task, and fail where that is more than 3 % off benches/instructions.txt;
                --write takes what was counted for what is expected
";

/// Live tasks of the shard that is measured.
const LIVE: [u32; 3] = [1_000, 10_000, 100_000];
/// Lives of tasks in the shorter and in the longer of two runs: their difference has no start in it.
const TASKS: [u32; 2] = [200_000, 400_000];
/// Percent that a count may be off: another compiler or allocator makes a little difference.
const TOLERANCE: f64 = 3.0;

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let write = match arguments {
        [] => false,
        [flag] if flag == "--write" => true,
        _ => return Err(format!("what is to be counted?\n\n{USAGE}")),
    };
    if !tools::is_installed("valgrind") {
        return Err("`valgrind` is missing; on Debian: apt-get install -y valgrind".to_owned());
    }
    execute(cargo(&[
        "build",
        "--release",
        "--package",
        "scheduler-benches",
        "--bin",
        "core-cycle",
    ]))?;
    let expected = if write { Vec::new() } else { expected()? };
    let mut text = String::from(
        "# Instructions of a full cycle of one task, by live tasks: arrive, lease, report, share of a checkpoint.\n",
    );
    let mut off = Vec::new();
    for live in LIVE {
        let [short, long] = TASKS.map(|tasks| count(live, tasks));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = (long?.saturating_sub(short?)) as f64 / f64::from(TASKS[1] - TASKS[0]);
        // Writing into a string does not fail.
        let _ = writeln!(text, "{live} {each:.1}");
        let before = expected.iter().find(|(of, _)| *of == live).map(|(_, each)| *each);
        let change = before.map(|before| (each / before - 1.0) * 100.0);
        let shown = change.map_or(String::new(), |change| {
            format!(", {change:+.1} % of what is expected")
        });
        println!("{live} live tasks: {each:.1} instructions a task{shown}");
        match change {
            Some(change) if change.abs() <= TOLERANCE => (),
            None if write => (),
            _ => off.push(live.to_string()),
        }
    }
    if write {
        return fs::write(file(), text).map_err(|error| format!("{}: {error}", file().display()));
    }
    if off.is_empty() {
        return Ok(());
    }
    Err(format!(
        "at {} live tasks the core takes other than expected; if that is meant: cargo xtask instructions --write",
        off.join(", ")
    ))
}

fn file() -> PathBuf {
    root().join("benches/instructions.txt")
}

fn expected() -> Result<Vec<(u32, f64)>, Failed> {
    let text = fs::read_to_string(file()).map_err(|error| format!("{}: {error}", file().display()))?;
    Ok(text.lines().filter_map(entry).collect())
}

fn entry(line: &str) -> Option<(u32, f64)> {
    let (live, each) = line.split_once(' ')?;
    Some((live.parse().ok()?, each.parse().ok()?))
}

/// Instructions of a whole run.
fn count(live: u32, tasks: u32) -> Result<u64, Failed> {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(root().join("target/release/core-cycle"))
        .args([live.to_string(), tasks.to_string()]);
    let output = valgrind
        .output()
        .map_err(|error| format!("`valgrind` did not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said)
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind counted nothing ({}):\n{said}", output.status))
}

fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_valgrind_says() {
        let said = "==1== Callgrind\n==1== Events    : Ir\n==1== Collected : 1059917795\n==1== \n";
        assert_eq!(collected(said), Some(1_059_917_795));
        assert_eq!(collected("==1== no such file\n"), None);
    }

    #[test]
    fn what_is_expected_is_a_number_for_each_number_of_live_tasks() {
        assert_eq!(entry("1000 612.5"), Some((1_000, 612.5)));
        assert_eq!(entry("# Instructions of a full cycle"), None);
    }
}
