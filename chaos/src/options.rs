use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::plan::Scope;

/// What the scheduler runs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// One server with its embedded log and store.
    Embedded,
    /// Several servers on a Kafka and a TiDB of the run's own.
    Cluster {
        /// How many servers; at least 1.
        nodes: usize,
        /// How many brokers: 1 or 3.
        brokers: u16,
    },
}

/// As arguments of the command line.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => write!(f, " --embedded"),
            Self::Cluster { nodes, brokers } => write!(f, " --nodes {nodes} --brokers {brokers}"),
        }
    }
}

impl Stage {
    pub(crate) fn nodes(self) -> usize {
        match self {
            Self::Embedded => 1,
            Self::Cluster { nodes, .. } => nodes,
        }
    }

    pub(crate) fn brokers(self) -> u16 {
        match self {
            Self::Embedded => 0,
            Self::Cluster { brokers, .. } => brokers,
        }
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Default: three servers, one broker.
    pub stage: Stage,
    /// Fixes which faults come when. Default: 1.
    pub seed: u64,
    /// How long there are faults. Default: a minute.
    pub length: Duration,
    /// Tasks that are submitted in a second, about. Default: 200.
    pub rate: u32,
    /// Worker processes; at least 1. Default: 4.
    pub workers: usize,
    /// Kinds of faults, by their names, as `kill-server`; all if it is empty, as by default.
    pub only: Vec<String>,
    /// Logs, data and ledgers, kept; without it they lie in a temporary directory that is deleted.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stage: Stage::Cluster { nodes: 3, brokers: 1 },
            seed: 1,
            length: Duration::from_mins(1),
            rate: 200,
            workers: 4,
            only: Vec::new(),
            directory: None,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.workers > 0, "workers: there must be at least 1");
        anyhow::ensure!(self.rate > 0, "rate: must be at least 1 a second");
        if let Stage::Cluster { nodes, brokers } = self.stage {
            anyhow::ensure!(
                (1..=8).contains(&nodes),
                "nodes: there can be 1 to 8, each with a way of its own to the brokers"
            );
            anyhow::ensure!(matches!(brokers, 1 | 3), "brokers: must be 1 or 3");
        }
        let names = self.scope().names();
        if let Some(unknown) = self.only.iter().find(|name| !names.contains(&name.as_str())) {
            anyhow::bail!(
                "only: {unknown:?} does not happen here; take of {}",
                names.join(", ")
            );
        }
        Ok(())
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope {
            nodes: self.stage.nodes(),
            workers: self.workers,
            brokers: self.stage.brokers(),
            only: self.only.clone(),
        }
    }
}
