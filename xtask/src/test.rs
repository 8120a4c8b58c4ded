//! Every test, after everything that they need.

use std::time::Instant;

use crate::run::{binaries, cargo, follow, own, run as execute};
use crate::services::{self, Private, Service};
use crate::{Failed, tools};

/// Names the directory with the binaries that end to end tests start.
pub(crate) const BINARIES: &str = "SCHEDULER_BIN_DIR";
/// Names this program, for tests that start services of their own to kill them.
pub(crate) const XTASK: &str = "SCHEDULER_XTASK";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    tools::ensure()?;
    let services = &[Service::Kafka, Service::Tidb, Service::Kube];
    let all = Pass::of(&["test", "--workspace", "--no-fail-fast"]);
    with(services, &PROGRAMS, |_| Ok(()), &all, arguments)
}

/// Builds what tests start as processes, which cargo would not all build of itself for `cargo test`.
pub(crate) const PROGRAMS: [&str; 4] = ["build", "--workspace", "--bins", "--examples"];

/// Tests that cargo runs at once.
#[derive(Clone, Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) command: &'a [&'a str],
    /// Variables besides those that lead to services, or in their place.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl<'a> Pass<'a> {
    pub(crate) fn of(command: &'a [&'a str]) -> Self {
        Self {
            command,
            environment: Vec::new(),
        }
    }
}

/// Builds, starts services of their own, prepares, and runs tests.
pub(crate) fn with(
    services: &'static [Service],
    build: &[&str],
    prepare: impl FnOnce(&Private) -> Result<(), Failed>,
    pass: &Pass<'_>,
    arguments: &[String],
) -> Result<(), Failed> {
    let begun = Instant::now();
    // The first time they take minutes to build, which is time that cargo takes as well.
    let services = std::thread::spawn(|| Private::start(services));
    let binaries_built = execute(cargo(build));
    if binaries_built.is_err() {
        services::cancel();
    }
    let services = services
        .join()
        .unwrap_or_else(|_| Err("the services were not started: a bug of xtask".to_owned()));
    binaries_built?;
    let services = services?;
    prepare(&services)?;
    let built = begun.elapsed();

    let mut tally = Tally::default();
    let outcome = run_pass(&services, pass, arguments, &mut tally);
    println!(
        "\n{} tests passed, {} failed, {} ignored; ready to begin after {} s, all in {} s",
        tally.passed,
        tally.failed,
        tally.ignored,
        built.as_secs(),
        begun.elapsed().as_secs()
    );
    for name in &tally.failures {
        println!("FAILED {name}");
    }
    if tally.passed == 0 {
        return outcome.and(Err("no test ran".to_owned()));
    }
    outcome
}

fn run_pass(
    services: &Private,
    pass: &Pass<'_>,
    arguments: &[String],
    tally: &mut Tally,
) -> Result<(), Failed> {
    let mut command = cargo(pass.command);
    command
        .args(arguments)
        .env(BINARIES, binaries()?)
        .env(XTASK, own()?)
        .envs(services.addresses().iter().map(|(name, value)| (name, value)))
        .envs(pass.environment.iter().map(|(name, value)| (name, value)));
    follow(command, |line| tally.take(line))
}

/// How tests ended, read from what they print.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

impl Tally {
    fn take(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split([';', '.']) {
                let mut words = part.split_whitespace();
                if let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                    match what {
                        "passed" => self.passed += count,
                        "failed" => self.failed += count,
                        "ignored" => self.ignored += count,
                        _ => (),
                    }
                }
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_targets_add_up() {
        let mut tally = Tally::default();
        for line in [
            "test a_thing_holds ... ok",
            "test another ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.25s",
            "test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s",
        ] {
            tally.take(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.ignored), (31, 1, 2));
        assert_eq!(tally.failures, ["another"]);
    }
}
