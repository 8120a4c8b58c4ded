//! What `cargo xtask services` was told.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Wish;
use super::kafka::{MOST_FURTHER, TLS_LISTENERS};
use crate::Failed;
use crate::run::root;

pub(crate) const USAGE: &str = "\
  services up [SERVICE...] [--brokers 1|3] [--tls] [--dir DIR]
                start services on 127.0.0.1: those named, or Apache Kafka and TiDB; what died is started again;
                with --tls Kafka and TiDB speak TLS too
  services status [--dir DIR]
                their state, ports, processes, memory and logs
  services down [SERVICE...] [--wipe] [--dir DIR]
                end those named, or all; --wipe deletes their data, and keeps their logs
  services images [--dir DIR]
                give the node of --kubelet the images that `test-k8s` uses
  services fetch [SERVICE...]
                only fetch and build what they are made of
                SERVICE: --kafka, --tidb, --kube (API server of Kubernetes, etcd, the helm CLI), --nodes (with
                controllers, scheduler and played nodes), --kubelet (with this machine as a node; root only),
                --keda (with what scales deployments, and Prometheus), --registry (of charts and images)
";

/// A server, or some that belong together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Service {
    Kafka,
    Tidb,
    /// What keeps the objects of Kubernetes, and helm.
    Kube,
    /// What acts on them.
    Nodes,
    /// This machine as a node.
    Kubelet,
    /// What scales deployments.
    Keda,
    Registry,
}

impl Service {
    pub(crate) const ALL: [Self; 7] = [
        Self::Kafka,
        Self::Tidb,
        Self::Kube,
        Self::Nodes,
        Self::Kubelet,
        Self::Keda,
        Self::Registry,
    ];

    /// What acts on objects, and so needs what keeps them.
    const ACTING: [Self; 3] = [Self::Nodes, Self::Kubelet, Self::Keda];

    fn of_flag(flag: &str) -> Option<Self> {
        let service = match flag {
            "--kafka" => Self::Kafka,
            "--tidb" => Self::Tidb,
            "--kube" => Self::Kube,
            "--nodes" => Self::Nodes,
            "--kubelet" => Self::Kubelet,
            "--keda" => Self::Keda,
            "--registry" => Self::Registry,
            _ => return None,
        };
        Some(service)
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Up,
    Down,
    Status,
    Fetch,
    /// Give images to the node.
    Images,
    /// Wait until standard input ends, then end the services and delete their data. For programs that start services of their own.
    Guard,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    pub(crate) action: Action,
    pub(crate) services: BTreeSet<Service>,
    /// How many brokers; none: as many as there were, or one.
    pub(crate) brokers: Option<u16>,
    /// For each further way to the brokers, at which port each of them is said to be. For programs that put something in between.
    pub(crate) detours: Vec<Vec<u16>>,
    /// Whether Kafka and TiDB are to speak TLS besides.
    pub(crate) tls: bool,
    /// Their data, logs and records.
    pub(crate) run: PathBuf,
    pub(crate) ports: Wish,
    pub(crate) wipe: bool,
}

impl Options {
    /// Services in a run directory.
    pub(crate) fn new(action: Action, run: PathBuf, services: BTreeSet<Service>) -> Self {
        Self {
            action,
            services,
            brokers: None,
            detours: Vec::new(),
            tls: false,
            run,
            ports: Wish::Any,
            wipe: false,
        }
    }

    /// Whether the service is among them.
    pub(crate) fn has(&self, service: Service) -> bool {
        self.services.contains(&service)
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
            "images" => Action::Images,
            "guard" => Action::Guard,
            other => return Err(wrong(&format!("`services {other}` is unknown"))),
        };
        let mut options = Self {
            ports: Wish::Usual,
            ..Self::new(action, root().join("target/services"), BTreeSet::new())
        };
        let mut rest = rest.iter();
        while let Some(flag) = rest.next() {
            let service = Service::of_flag(flag);
            if let (Some(service), Action::Up | Action::Down | Action::Fetch) = (service, action) {
                options.services.insert(service);
                continue;
            }
            match (flag.as_str(), action) {
                ("--wipe", Action::Down) => options.wipe = true,
                ("--tls", Action::Up) => options.tls = true,
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
                        Some(Ok(ports)) if options.detours.len() < MOST_FURTHER => {
                            options.detours.push(ports);
                        }
                        _ => {
                            return Err(wrong(&format!(
                                "--detour takes a port for each broker, with commas, at most {MOST_FURTHER} times"
                            )));
                        }
                    }
                }
                ("--dir", Action::Up | Action::Down | Action::Status | Action::Images | Action::Guard) => {
                    let directory = rest.next().ok_or_else(|| wrong("--dir takes a directory"))?;
                    options.run = std::path::absolute(directory)
                        .map_err(|error| format!("--dir {directory}: {error}"))?;
                    options.ports = Wish::Any;
                }
                (other, _) => return Err(wrong(&format!("`{other}` is not for this command"))),
            }
        }
        if options.tls && options.detours.len() + TLS_LISTENERS > MOST_FURTHER {
            return Err(wrong(&format!(
                "--tls leaves room for {} detours",
                MOST_FURTHER - TLS_LISTENERS
            )));
        }
        match action {
            Action::Up | Action::Fetch if options.services.is_empty() => {
                options.services.extend([Service::Kafka, Service::Tidb]);
            }
            // What acts on objects needs what keeps them, and controllers.
            Action::Up | Action::Fetch if Service::ACTING.iter().any(|service| options.has(*service)) => {
                options.services.extend([Service::Kube, Service::Nodes]);
            }
            // And does not outlive it.
            Action::Down if options.has(Service::Kube) => options.services.extend(Service::ACTING),
            Action::Down | Action::Guard if options.services.is_empty() => {
                options.services.extend(Service::ALL);
            }
            _ => (),
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
    fn without_a_choice_it_is_kafka_and_tidb_and_down_is_all() {
        let services = |line: &str| Vec::from_iter(parse(line).unwrap().services);
        let options = parse("up").unwrap();
        assert_eq!((options.brokers, options.ports), (None, Wish::Usual));
        assert_eq!(services("up"), [Service::Kafka, Service::Tidb]);
        assert_eq!(services("up --tidb"), [Service::Tidb]);
        assert_eq!(services("down"), Service::ALL);
        let options = parse("down --kafka --wipe").unwrap();
        assert!(options.has(Service::Kafka) && !options.has(Service::Tidb) && options.wipe);
    }

    #[test]
    fn nodes_come_and_go_with_what_keeps_their_objects() {
        let services = |line: &str| Vec::from_iter(parse(line).unwrap().services);
        assert_eq!(services("up --nodes"), [Service::Kube, Service::Nodes]);
        assert_eq!(services("up --kube"), [Service::Kube]);
        assert_eq!(
            services("up --keda"),
            [Service::Kube, Service::Nodes, Service::Keda]
        );
        assert_eq!(
            services("down --kube"),
            [Service::Kube, Service::Nodes, Service::Kubelet, Service::Keda]
        );
        assert_eq!(services("down --nodes"), [Service::Nodes]);
    }

    #[test]
    fn a_directory_of_its_own_has_ports_of_its_own() {
        let options = parse("up --brokers 3 --dir here").unwrap();
        assert_eq!((options.brokers, options.ports), (Some(3), Wish::Any));
        assert!(options.run.is_absolute() && options.run.ends_with("here"));
        let options = parse("up --brokers 3 --detour 1,2,3 --detour 4,5,6").unwrap();
        assert_eq!(options.detours, [[1, 2, 3], [4, 5, 6]]);
        assert!(parse("up --tls").unwrap().tls && !options.tls);
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
            ("down --tls", "`--tls`"),
            (
                "up --tls --detour 1 --detour 1 --detour 1 --detour 1 --detour 1 --detour 1 --detour 1",
                "room for 6 detours",
            ),
            ("status --kafka", "`--kafka`"),
            ("down --dir", "--dir takes"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(named), "{line}: {problem}");
        }
    }
}
