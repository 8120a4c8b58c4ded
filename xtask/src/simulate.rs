//! What CI plays of the simulator: every history that broke a promise once, and new ones.
//!
//! New ones are new for each state of what is simulated, and the same for everybody who plays that state: a change that fails can be played again, and one that
//! passed does not fail the next day.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use crate::Failed;
use crate::run::{cargo, root, run as execute};

pub(crate) const USAGE: &str = "\
  simulate [--minutes N]
                plays every history that broke a promise once, then for N minutes (3) those that belong to this state of the code
";

/// What decides in the simulator.
const SOURCES: [&str; 3] = ["scheduler-core/src", "scheduler-sdk/src", "scheduler-sim/src"];
const MINUTES: &str = "3";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let minutes = match words[..] {
        [] => MINUTES,
        ["--minutes", minutes] => minutes,
        _ => return Err(format!("simulate knows `--minutes N` alone\n\n{USAGE}")),
    };
    let simulator = ["run", "--quiet", "--release", "--package", "scheduler-sim", "--"];
    execute(cargo(&[&simulator[..], &["--regressions"]].concat()))?;
    let from = first_seed(&root(), &SOURCES)?.to_string();
    let others = ["--from", &from, "--minutes", minutes, "--coverage"];
    execute(cargo(&[&simulator[..], &others].concat()))
}

/// The first of the seeds that belong to what is in these directories.
fn first_seed(root: &Path, directories: &[&str]) -> Result<u64, Failed> {
    let mut files = BTreeMap::new();
    for directory in directories {
        read(root, &root.join(directory), &mut files)
            .map_err(|error| format!("{directory} cannot be read: {error}"))?;
    }
    let mut hasher = DefaultHasher::new();
    for (name, content) in files {
        hasher.write(name.as_bytes());
        hasher.write(&content);
    }
    // Far from the seeds that people choose, and with room for those that follow.
    Ok(hasher.finish() & !0xff_ffff | 1 << 62)
}

/// Reads every file below a directory, by its path from the root.
fn read(root: &Path, directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.insert(name, fs::read(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_played_changes_with_the_code_and_with_nothing_else() {
        let root = std::env::temp_dir().join(format!("scheduler-xtask-{}-simulate", std::process::id()));
        let source = root.join("a/b");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("one.rs"), "1").unwrap();
        let first = first_seed(&root, &["a"]).unwrap();
        fs::write(root.join("README.md"), "2").unwrap();
        assert_eq!(first_seed(&root, &["a"]), Ok(first));
        fs::write(source.join("one.rs"), "2").unwrap();
        let changed = first_seed(&root, &["a"]).unwrap();
        assert_ne!(changed, first);
        assert!(first_seed(&root, &["b"]).is_err());
        fs::remove_dir_all(&root).unwrap();
    }
}
