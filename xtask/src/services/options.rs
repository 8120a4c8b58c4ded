//! What `cargo xtask services` was told.

use std::path::PathBuf;

use super::Wish;
use super::kafka::MOST_DETOURS;
use crate::Failed;
use crate::run::root;

pub(crate) const USAGE: &str = "\
  services up [--kafka] [--tidb] [--brokers 1|3] [--dir DIR]
                start Apache Kafka and TiDB on 127.0.0.1, or one of them; what died is started again
  services status [--dir DIR]
                their state, ports, processes, memory and logs
  services down [--kafka] [--tidb] [--wipe] [--dir DIR]
                end them; --wipe deletes their data, and keeps their logs
  services fetch [--kafka] [--tidb]
                only fetch and build what they are made of
";

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Up,
    Down,
    Status,
    Fetch,
    /// Wait until standard input ends, then end the services and delete their data. For programs that start services of their own.
    Guard,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    pub(crate) action: Action,
    pub(crate) kafka: bool,
    pub(crate) tidb: bool,
    /// How many brokers; none: as many as there were, or one.
    pub(crate) brokers: Option<u16>,
    /// For each further way to the brokers, at which port each of them is said to be. For programs that put something in between.
    pub(crate) detours: Vec<Vec<u16>>,
    /// Their data, logs and records.
    pub(crate) run: PathBuf,
    pub(crate) ports: Wish,
    pub(crate) wipe: bool,
}

impl Options {
    /// Both services in a run directory.
    pub(crate) fn new(action: Action, run: PathBuf) -> Self {
        Self {
            action,
            kafka: true,
            tidb: true,
            brokers: None,
            detours: Vec::new(),
            run,
            ports: Wish::Any,
            wipe: false,
        }
    }

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failed> {
        let wrong = |problem: &str| format!("{problem}\n\n{USAGE}");
        let (action, rest) = match arguments.split_first() {
            Some((action, rest)) => (action.as_str(), rest),
            None => return Err(wrong("what is to be done with the services?")),
        };
        let action = match action {
            "up" => Action::Up,
            "down" => Action::Down,
            "status" => Action::Status,
            "fetch" => Action::Fetch,
            "guard" => Action::Guard,
            other => return Err(wrong(&format!("`services {other}` is unknown"))),
        };
        let mut options = Self {
            ports: Wish::Usual,
            ..Self::new(action, root().join("target/services"))
        };
        let (mut kafka, mut tidb) = (false, false);
        let mut rest = rest.iter();
        while let Some(flag) = rest.next() {
            match (flag.as_str(), action) {
                ("--kafka", Action::Up | Action::Down | Action::Fetch) => kafka = true,
                ("--tidb", Action::Up | Action::Down | Action::Fetch) => tidb = true,
                ("--wipe", Action::Down) => options.wipe = true,
                ("--brokers", Action::Up) => {
                    options.brokers = match rest.next().map(String::as_str) {
                        Some("1") => Some(1),
                        Some("3") => Some(3),
                        _ => return Err(wrong("--brokers takes 1 or 3")),
                    };
                }
                ("--detour", Action::Up) => {
                    let ports = rest
                        .next()
                        .map(|ports| ports.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>());
                    match ports {
                        Some(Ok(ports)) if options.detours.len() < MOST_DETOURS => {
                            options.detours.push(ports);
                        }
                        _ => {
                            return Err(wrong(&format!(
                                "--detour takes a port for each broker, with commas, at most {MOST_DETOURS} times"
                            )));
                        }
                    }
                }
                ("--dir", Action::Up | Action::Down | Action::Status | Action::Guard) => {
                    let directory = rest.next().ok_or_else(|| wrong("--dir takes a directory"))?;
                    options.run = std::path::absolute(directory)
                        .map_err(|error| format!("--dir {directory}: {error}"))?;
                    options.ports = Wish::Any;
                }
                (other, _) => return Err(wrong(&format!("`{other}` is not for this command"))),
            }
        }
        if kafka || tidb {
            (options.kafka, options.tidb) = (kafka, tidb);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failed> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn without_a_choice_it_is_both() {
        let options = parse("up").unwrap();
        assert!(options.kafka && options.tidb && options.ports == Wish::Usual);
        assert_eq!(options.brokers, None);
        let options = parse("up --tidb").unwrap();
        assert!(!options.kafka && options.tidb);
        let options = parse("down --kafka --wipe").unwrap();
        assert!(options.kafka && !options.tidb && options.wipe);
    }

    #[test]
    fn a_directory_of_its_own_has_ports_of_its_own() {
        let options = parse("up --brokers 3 --dir here").unwrap();
        assert_eq!((options.brokers, options.ports), (Some(3), Wish::Any));
        assert!(options.run.is_absolute() && options.run.ends_with("here"));
        let options = parse("up --brokers 3 --detour 1,2,3 --detour 4,5,6").unwrap();
        assert_eq!(options.detours, [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("", "what is to be done"),
            ("start", "`services start`"),
            ("up --brokers", "--brokers takes 1 or 3"),
            ("up --brokers 2", "--brokers takes 1 or 3"),
            ("up --detour 1,x", "--detour takes"),
            ("up --wipe", "`--wipe`"),
            ("status --kafka", "`--kafka`"),
            ("down --dir", "--dir takes"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(named), "{line}: {problem}");
        }
    }
}
