use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashSet;
use scheduler_proto::worker::Report;
use scheduler_proto::worker::report::Outcome;

use super::LeaseKey;

/// Reports that no checkpoint is known to cover, by partition, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    partitions: BTreeMap<u32, Partition>,
    /// Of all of them. Whoever wants an order takes that of the partitions.
    keys: FxHashSet<LeaseKey>,
    bytes: usize,
}

/// Reports of one partition, in order.
pub(super) type Reports = VecDeque<(LeaseKey, Report)>;

#[derive(Debug, Default)]
struct Partition {
    reports: Reports,
    /// How many of this session's reports are settled.
    settled: u64,
    /// The latest activation that settled any.
    epoch: u32,
}

/// Bytes that a report takes on its way, at most.
pub(super) fn weight(report: &Report) -> usize {
    /// Of everything but what the outcome says: tags, lengths and the lease.
    const FRAME: usize = 48;
    FRAME
        + match &report.outcome {
            Some(Outcome::Succeeded(output)) => output.len(),
            Some(Outcome::Failed(text) | Outcome::Rejected(text)) => text.len(),
            Some(Outcome::Returned(_) | Outcome::Stopped(_)) | None => 0,
        }
}

impl Unsettled {
    pub(super) fn push(&mut self, key: LeaseKey, report: Report) {
        self.bytes += weight(&report);
        self.keys.insert(key);
        self.partitions
            .entry(key.partition)
            .or_default()
            .reports
            .push_back((key, report));
    }

    pub(super) fn contains(&self, key: LeaseKey) -> bool {
        self.keys.contains(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Report> {
        self.partitions
            .values()
            .flat_map(|partition| &partition.reports)
            .map(|(_, report)| report)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = LeaseKey> {
        let reports = self.partitions.values().flat_map(|partition| &partition.reports);
        reports.map(|(key, _)| *key)
    }

    /// Whether this session has reports of the partition, or had some that are settled.
    pub(super) fn counts(&self, partition: u32) -> bool {
        let found = self.partitions.get(&partition);
        found.is_some_and(|found| found.settled > 0 || !found.reports.is_empty())
    }

    /// Forgets a partition's reports, which are another session's from now on.
    pub(super) fn give_up(&mut self, partition: u32) -> Reports {
        let reports = self
            .partitions
            .remove(&partition)
            .map(|found| found.reports)
            .unwrap_or_default();
        for (key, report) in &reports {
            self.keys.remove(key);
            self.bytes -= weight(report);
        }
        reports
    }

    /// Takes another session's reports: they come before those that are here, for they are older.
    pub(super) fn take_over(&mut self, partition: u32, mut reports: Reports) {
        for (key, report) in &reports {
            self.keys.insert(*key);
            self.bytes += weight(report);
        }
        let here = &mut self.partitions.entry(partition).or_default().reports;
        reports.append(here);
        *here = reports;
    }

    /// A new session counts from its own beginning.
    pub(super) fn begin_session(&mut self) {
        self.partitions.retain(|_, partition| {
            partition.settled = 0;
            !partition.reports.is_empty()
        });
    }

    /// Forgets the first `count` reports of the session for the partition; `false` if there were not so many.
    pub(super) fn settle(&mut self, partition: u32, epoch: u32, count: u64) -> bool {
        let Some(found) = self.partitions.get_mut(&partition) else {
            return count == 0;
        };
        if epoch < found.epoch {
            // A word of an older activation that was overtaken: what it covers, the newer one has said already.
            return true;
        }
        found.epoch = epoch;
        while found.settled < count {
            let Some((key, report)) = found.reports.pop_front() else {
                return false;
            };
            found.settled += 1;
            self.bytes -= weight(&report);
            self.keys.remove(&key);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
