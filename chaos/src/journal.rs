//! What servers wrote about their shards: who claimed which in which epoch, and in which it saved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use serde::Deserialize;

use crate::ledger::Ran;

/// A server process: the server's number, and which of its starts.
pub type Process = (usize, usize);

/// A shard that came up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Activation {
    /// Of which partition.
    pub partition: u32,
    /// By which right.
    pub epoch: u32,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Where.
    pub process: Process,
}

/// What all servers wrote.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// In the order of their epochs, by partition.
    pub activations: Vec<Activation>,
    /// Who saved, by partition and epoch.
    saves: BTreeMap<(u32, u32), BTreeSet<Process>>,
    /// Checkpoints that were saved.
    pub saved: usize,
}

#[derive(Deserialize)]
struct Line<'a> {
    timestamp: &'a str,
    #[serde(borrow)]
    fields: Fields<'a>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(default)]
    message: std::borrow::Cow<'a, str>,
    shard: Option<std::borrow::Cow<'a, str>>,
    epoch: Option<u32>,
}

impl Journal {
    /// Reads the logs, each of one start of a server.
    pub(crate) fn read(logs: &[(usize, PathBuf)]) -> anyhow::Result<Self> {
        let mut journal = Self::default();
        for (start, (node, path)) in logs.iter().enumerate() {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            for line in text.lines() {
                journal.take((*node, start), line);
            }
        }
        journal
            .activations
            .sort_by_key(|activation| (activation.partition, activation.epoch, activation.at));
        Ok(journal)
    }

    fn take(&mut self, process: Process, line: &str) {
        // The last line of a server that was killed may be cut, and a panic is no JSON.
        let Ok(line) = serde_json::from_str::<Line<'_>>(line) else {
            return;
        };
        let Fields {
            message,
            shard: Some(shard),
            epoch: Some(epoch),
        } = line.fields
        else {
            return;
        };
        let partition = shard.split_once('/').and_then(|(_, number)| number.parse().ok());
        let at = humantime::parse_rfc3339(line.timestamp)
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let (Some(partition), Some(at)) = (partition, at) else {
            return;
        };
        match &*message {
            "shard is active" => self.activations.push(Activation {
                partition,
                epoch,
                at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
                process,
            }),
            "checkpoint is saved" => {
                self.saved += 1;
                self.saves.entry((partition, epoch)).or_default().insert(process);
            }
            _ => (),
        }
    }

    /// When a partition came up with an epoch, and where.
    pub fn activation(&self, partition: u32, epoch: u32) -> Option<&Activation> {
        self.activations
            .iter()
            .find(|activation| activation.partition == partition && activation.epoch == epoch)
    }

    /// Epochs that belonged to more than one process, or to none.
    pub(crate) fn problems(&self, ran: &[Ran]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut owners = BTreeMap::<(u32, u32), BTreeSet<Process>>::new();
        for activation in &self.activations {
            let owner = owners
                .entry((activation.partition, activation.epoch))
                .or_default();
            if !owner.insert(activation.process) || owner.len() > 1 {
                problems.push(format!(
                    "partition {} came up more than once in epoch {}",
                    activation.partition, activation.epoch
                ));
            }
        }
        for ((partition, epoch), processes) in &self.saves {
            if owners.get(&(*partition, *epoch)) != Some(processes) {
                problems.push(format!(
                    "partition {partition} was saved in epoch {epoch} by {processes:?}, who did not own it"
                ));
            }
        }
        let leased: BTreeSet<(u32, u32)> = ran.iter().map(|ran| (ran.place.0, ran.epoch)).collect();
        for (partition, epoch) in leased {
            if !owners.contains_key(&(partition, epoch)) {
                problems.push(format!(
                    "a worker had leases of partition {partition} in epoch {epoch}, which nobody owned"
                ));
            }
        }
        problems
    }

    /// Whether somebody wrote that it saved a partition in an epoch.
    pub(crate) fn has_saved(&self, partition: u32, epoch: u32) -> bool {
        self.saves.contains_key(&(partition, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, epoch: u32) -> String {
        format!(
            r#"{{"timestamp":"2026-01-02T03:04:05.678901Z","level":"INFO","fields":{{"message":"{message}","shard":"1/2","epoch":{epoch}}},"target":"x"}}"#
        )
    }

    fn journal(lines: &[(Process, String)]) -> Journal {
        let mut journal = Journal::default();
        for (process, line) in lines {
            journal.take(*process, line);
        }
        journal
    }

    #[test]
    fn an_epoch_belongs_to_one_process() {
        let active = || line("shard is active", 4);
        let saved = || line("checkpoint is saved", 4);
        let good = journal(&[((0, 0), active()), ((0, 0), saved()), ((0, 0), saved())]);
        assert!(good.problems(&[]).is_empty());
        assert_eq!(
            good.activation(2, 4).map(|activation| activation.at),
            Some(1_767_323_045_678)
        );
        assert!(good.has_saved(2, 4) && !good.has_saved(2, 5));

        let two = journal(&[((0, 0), active()), ((1, 1), active())]);
        assert!(two.problems(&[])[0].contains("came up more than once"));
        let thief = journal(&[((0, 0), active()), ((0, 0), saved()), ((1, 1), saved())]);
        assert!(thief.problems(&[])[0].contains("did not own it"));
        let nobody = journal(&[((0, 0), saved())]);
        assert!(nobody.problems(&[])[0].contains("did not own it"));
    }

    #[test]
    fn a_lease_has_an_owner() {
        let ran = Ran::parse(0, "0 1 2 9 4 1 0 1 2.")
            .into_iter()
            .collect::<Vec<_>>();
        assert!(journal(&[]).problems(&ran)[0].contains("nobody owned"));
        let owned = journal(&[((0, 0), line("shard is active", 4))]);
        assert!(owned.problems(&ran).is_empty());
    }

    #[test]
    fn a_line_that_was_cut_says_nothing() {
        let whole = line("shard is active", 4);
        assert!(
            journal(&[((0, 0), whole[..whole.len() - 9].to_owned())])
                .activations
                .is_empty()
        );
    }
}
