//! Building the simulator in the copy and running it to the first violation.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::tree::{SIMULATOR, Tree};
use crate::Failed;
use crate::run::cargo;

/// A run that takes longer than that, and many times longer than without a mutation, hangs. 10,000 seeds take a minute where little else runs.
const LONGEST: Duration = Duration::from_mins(15);
/// How many times longer.
const LONGER: u32 = 5;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A build for many short runs: quick to make, and nearly as fast as a release.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "2"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
];

#[derive(Debug)]
pub(super) struct Simulator<'a> {
    tree: &'a Tree,
    from: u64,
    seeds: u64,
}

/// A violation.
#[derive(Debug, PartialEq)]
pub(super) struct Caught {
    pub(super) invariant: String,
    /// `None` if the run as a whole had to be stopped.
    pub(super) seed: Option<u64>,
    /// What the simulator said.
    pub(super) line: String,
}

impl<'a> Simulator<'a> {
    pub(super) fn new(tree: &'a Tree, from: u64, seeds: u64) -> Self {
        Self { tree, from, seeds }
    }

    pub(super) fn build(&self) -> Result<(), Failed> {
        let mut command = cargo(&["build", "--release", "--quiet", "--package", SIMULATOR]);
        command
            .current_dir(&self.tree.root)
            .env("CARGO_TARGET_DIR", &self.tree.target)
            // A bug that leaves something unused is no worse a bug.
            .env("RUSTFLAGS", "--cap-lints allow")
            .envs(PROFILE);
        let status = command
            .status()
            .map_err(|error| format!("cargo did not start: {error}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!(
                "{SIMULATOR} does not build in {}",
                self.tree.root.display()
            ))
        }
    }

    /// Runs to the first violation; answers it, if there is one, and how long it took. Without a mutation it takes `usually`, if that is known.
    pub(super) fn run(&self, usually: Option<Duration>) -> Result<(Option<Caught>, Duration), Failed> {
        let longest = usually.map(|usually| LONGEST.max(usually * LONGER));
        let lost = |error: std::io::Error| format!("{SIMULATOR} is lost: {error}");
        let log = self.tree.root.join("output");
        let mut child = Command::new(self.tree.target.join("release").join(SIMULATOR))
            .args([
                "--from",
                &self.from.to_string(),
                "--seeds",
                &self.seeds.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(File::create(&log).map_err(lost)?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(lost)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(lost)? {
                break Some(status);
            }
            if longest.is_some_and(|longest| begun.elapsed() > longest) {
                child.kill().and_then(|()| child.wait()).map_err(lost)?;
                break None;
            }
            std::thread::sleep(LOOK);
        };
        let said = std::fs::read_to_string(&log).map_err(lost)?;
        let took = begun.elapsed();
        match (first(&said), status) {
            (Some(caught), _) => Ok((Some(caught), took)),
            (None, Some(status)) if status.success() => Ok((None, took)),
            (None, Some(status)) if status.code() == Some(1) => {
                Err(format!("{SIMULATOR} failed and named no seed:\n{said}"))
            }
            (None, status) => Ok((
                Some(Caught {
                    invariant: if status.is_some() { "crash" } else { "hang" }.to_owned(),
                    seed: None,
                    line: status.map_or_else(
                        || format!("it ran for {} s without an end", took.as_secs()),
                        |status| status.to_string(),
                    ),
                }),
                took,
            )),
        }
    }
}

/// The violation of the lowest seed: several threads may find one each.
fn first(said: &str) -> Option<Caught> {
    let violations = said.lines().filter_map(|line| {
        let (seed, rest) = line.strip_prefix("seed ")?.split_once(" violates ")?;
        let (invariant, _) = rest.split_once(':')?;
        Some(Caught {
            invariant: invariant.to_owned(),
            seed: Some(seed.parse().ok()?),
            line: line.to_owned(),
        })
    });
    violations.min_by_key(|caught| caught.seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_seed_that_is_broken_counts() {
        let said = "seed 9 violates once: at 7 ms: twice\n  cargo sim --seed 9 --trace\nseed 8 violates panic: at 3 ms: no\n2 seeds\n";
        let caught = first(said).unwrap();
        assert_eq!((caught.invariant.as_str(), caught.seed), ("panic", Some(8)));
        assert_eq!(first("2 seeds from 1, 0 broken\n"), None);
    }
}
