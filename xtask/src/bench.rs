//! All benchmarks of criterion, one after the other, and one table of what they say.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Failed;
use crate::run::{cargo, follow, root};
use crate::services::{Private, Service, TIDB as ADDRESS};
use crate::stamp::stamp;

pub(crate) const USAGE: &str = "\
  bench [NAME ...]
                run the benchmarks and print one table with the machine, the commit and the date; `bench list` names them.
                A TiDB is started for `tidb`, unless SCHEDULER_TEST_TIDB leads to one
";

/// Benchmarks by their package.
const ALL: &[(&str, &[&str])] = &[
    (
        "scheduler-benches",
        &["core", "skew", "timers", "state", "segments", "transport", TIDB],
    ),
    // It prints lines of its own, of one run each.
    (EMBEDDED, &["pipe"]),
];

const TIDB: &str = "tidb";
const EMBEDDED: &str = "scheduler-embedded";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    if arguments == ["list"] {
        for name in ALL.iter().flat_map(|(_, names)| *names) {
            println!("{name}");
        }
        return Ok(());
    }
    let is_known = |wanted: &String| ALL.iter().any(|(_, names)| names.contains(&wanted.as_str()));
    if let Some(unknown) = arguments.iter().find(|wanted| !is_known(wanted)) {
        return Err(format!(
            "there is no benchmark `{unknown}`; `cargo xtask bench list` names them"
        ));
    }
    let is_wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|wanted| wanted == name);
    let has_tidb = std::env::var_os(ADDRESS).is_some_and(|address| !address.is_empty());
    let needs_tidb = is_wanted(TIDB) && !has_tidb;
    let services = needs_tidb.then(|| Private::start(&[Service::Tidb])).transpose()?;
    let addresses = services.as_ref().map_or(&[][..], Private::addresses);
    let begun = SystemTime::now();
    let before = stamp();
    let mut said = Said::default();
    for (package, names) in ALL {
        let names: Vec<&str> = names.iter().copied().filter(|name| is_wanted(name)).collect();
        if !names.is_empty() {
            said.take_from(package, &names, addresses)?;
        }
    }
    drop(services);

    let mut measured = Vec::new();
    find(&root().join("target/criterion"), begun, &mut measured)?;
    // In the order in which they ran.
    measured.sort_by_key(|(written, _)| *written);
    let measured: Vec<Measured> = measured.into_iter().map(|(_, one)| one).collect();
    println!("\n{before}\n\n{}", table(&measured));
    if !said.figures.is_empty() {
        println!("| counted | | |\n| --- | ---: | --- |");
        for figure in &said.figures {
            println!("| {figure} |");
        }
    }
    for line in said.lines {
        println!("{line}");
    }
    Ok(())
}

/// What benchmarks print besides times.
#[derive(Debug, Default)]
struct Said {
    /// What is counted: `what | value | unit`.
    figures: Vec<String>,
    /// All that is said by those that are not criterion's.
    lines: Vec<String>,
}

impl Said {
    fn take_from(
        &mut self,
        package: &str,
        names: &[&str],
        addresses: &[(&'static str, String)],
    ) -> Result<(), Failed> {
        let mut command = cargo(&["bench", "--package", package]);
        command
            .args(names.iter().flat_map(|name| ["--bench", name]))
            .envs(addresses.iter().map(|(name, value)| (name, value)));
        follow(command, |line| {
            if let Some(figure) = line.strip_prefix("figure: ") {
                self.figures.push(figure.to_owned());
            } else if package == EMBEDDED {
                self.lines.push(line.to_owned());
            }
        })
    }
}

/// What criterion has measured, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    name: String,
    median: f64,
    lower: f64,
    upper: f64,
    /// What there is of in one iteration.
    elements: Option<f64>,
}

impl Measured {
    /// From `benchmark.json` and `estimates.json`, which criterion writes without spaces.
    fn read(benchmark: &str, estimates: &str) -> Option<Self> {
        let median = estimates.split_once("\"median\":")?.1;
        let name = benchmark.split_once("\"full_id\":\"")?.1.split_once('"')?.0;
        Some(Self {
            name: name.to_owned(),
            median: number(median, "point_estimate")?,
            lower: number(median, "lower_bound")?,
            upper: number(median, "upper_bound")?,
            elements: number(benchmark, "Elements"),
        })
    }
}

/// The first number of that name.
fn number(json: &str, name: &str) -> Option<f64> {
    let rest = json.split_once(&format!("\"{name}\":"))?.1;
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    rest[..end].trim().parse().ok()
}

/// What was measured since `begun`, from the directories in which criterion keeps it.
fn find(directory: &Path, begun: SystemTime, found: &mut Vec<(SystemTime, Measured)>) -> Result<(), Failed> {
    let cannot = |path: &Path, error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(directory, error)),
    };
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    for path in paths.iter().filter(|path| path.is_dir()) {
        let (benchmark, estimates) = (path.join("benchmark.json"), path.join("estimates.json"));
        if path.ends_with("new") && benchmark.is_file() && estimates.is_file() {
            let written = estimates.metadata().and_then(|file| file.modified());
            let written = written.map_err(|error| cannot(&estimates, error))?;
            if written < begun {
                continue;
            }
            let read = |path: &Path| fs::read_to_string(path).map_err(|error| cannot(path, error));
            let measured = Measured::read(&read(&benchmark)?, &read(&estimates)?)
                .ok_or_else(|| format!("{} is not as criterion writes it", estimates.display()))?;
            found.push((written, measured));
        } else {
            find(path, begun, found)?;
        }
    }
    Ok(())
}

fn table(measured: &[Measured]) -> String {
    let mut text = String::from(
        "| benchmark | median | 95 % | for each of its elements | elements a second |\n| --- | ---: | --- | ---: | ---: |\n",
    );
    for one in measured {
        let each = one.elements.map(|elements| one.median / elements);
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} to {} | {} | {} |",
            one.name,
            time(one.median),
            time(one.lower),
            time(one.upper),
            each.map_or(String::new(), time),
            each.map_or(String::new(), |each| count(1e9 / each)),
        );
    }
    text
}

fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ..1e3 => (nanoseconds, "ns"),
        ..1e6 => (nanoseconds / 1e3, "µs"),
        ..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

fn count(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} million", value / 1e6),
        1e4.. => format!("{:.0} thousand", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_criterion_writes_becomes_a_row() {
        let benchmark = r#"{"group_id":"g","throughput":{"Elements":64},"full_id":"g/10","title":"g/10"}"#;
        let estimates = r#"{"mean":{"confidence_interval":{"lower_bound":1.0,"upper_bound":2.0},"point_estimate":1.5},"median":{"confidence_interval":{"confidence_level":0.95,"lower_bound":6000.0,"upper_bound":7000.5},"point_estimate":6400.0,"standard_error":1.0}}"#;
        let measured = Measured::read(benchmark, estimates);
        let Some(measured) = measured else {
            panic!("nothing was read")
        };
        assert_eq!(measured.elements, Some(64.0));
        let row = table(&[measured]);
        assert!(
            row.ends_with("| g/10 | 6.40 µs | 6.00 µs to 7.00 µs | 100 ns | 10.00 million |\n"),
            "{row}"
        );
        assert_eq!(Measured::read("{}", estimates), None);
        let without = r#"{"throughput":null,"full_id":"h"}"#;
        assert_eq!(
            Measured::read(without, estimates).and_then(|one| one.elements),
            None
        );
    }
}
