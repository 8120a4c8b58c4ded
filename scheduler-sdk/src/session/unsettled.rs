use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};
use scheduler_proto::worker::Report;
use scheduler_proto::worker::report::Outcome;

use super::LeaseKey;

/// Reports that no checkpoint is known to cover, by partition, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    partitions: BTreeMap<u32, Partition>,
    /// Which attempts they are of.
    known: Known,
    count: usize,
    /// Of them: not sent on this stream yet.
    unsent: usize,
    bytes: usize,
}

/// Reports of one partition, in order.
pub(super) type Reports = VecDeque<(LeaseKey, Outcome)>;

#[derive(Debug, Default)]
struct Partition {
    reports: Reports,
    /// How many of them, from the first on, were sent on this stream.
    sent: usize,
    /// How many of this session's reports are settled.
    settled: u64,
    /// The latest activation that settled any.
    epoch: u32,
}

/// A set of attempts. Most are the first of their task, and lie close together: a bit does for each of those.
#[derive(Debug, Default)]
struct Known {
    /// By partition, epoch and offset / 64.
    firsts: FxHashMap<(u32, u32, u64), u64>,
    others: FxHashSet<LeaseKey>,
}

impl Known {
    fn insert(&mut self, key: LeaseKey) {
        if key.attempt == 1 {
            *self.firsts.entry(word(key)).or_default() |= bit(key);
        } else {
            self.others.insert(key);
        }
    }

    fn remove(&mut self, key: LeaseKey) {
        if key.attempt != 1 {
            self.others.remove(&key);
        } else if let Some(bits) = self.firsts.get_mut(&word(key)) {
            *bits &= !bit(key);
            if *bits == 0 {
                self.firsts.remove(&word(key));
            }
        }
    }

    fn contains(&self, key: LeaseKey) -> bool {
        if key.attempt == 1 {
            self.firsts
                .get(&word(key))
                .is_some_and(|bits| bits & bit(key) != 0)
        } else {
            self.others.contains(&key)
        }
    }
}

fn word(key: LeaseKey) -> (u32, u32, u64) {
    (key.partition, key.epoch, key.offset / 64)
}

fn bit(key: LeaseKey) -> u64 {
    1 << (key.offset % 64)
}

fn report((key, outcome): &(LeaseKey, Outcome)) -> Report {
    Report {
        r#ref: Some((*key).into()),
        outcome: Some(outcome.clone()),
    }
}

/// Bytes that a report takes on its way, at most.
fn weight(outcome: &Outcome) -> usize {
    /// Of everything but what the outcome says: tags, lengths and the lease.
    const FRAME: usize = 48;
    FRAME
        + match outcome {
            Outcome::Succeeded(output) => output.len(),
            Outcome::Failed(text) | Outcome::Rejected(text) => text.len(),
            Outcome::Returned(_) | Outcome::Stopped(_) => 0,
        }
}

impl Unsettled {
    pub(super) fn push(&mut self, key: LeaseKey, outcome: Outcome) {
        self.bytes += weight(&outcome);
        self.count += 1;
        self.unsent += 1;
        self.known.insert(key);
        self.partitions
            .entry(key.partition)
            .or_default()
            .reports
            .push_back((key, outcome));
    }

    pub(super) fn contains(&self, key: LeaseKey) -> bool {
        self.known.contains(key)
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
        let Some(found) = self.partitions.remove(&partition) else {
            return Reports::new();
        };
        for (key, outcome) in &found.reports {
            self.known.remove(*key);
            self.bytes -= weight(outcome);
        }
        self.count -= found.reports.len();
        self.unsent -= found.reports.len() - found.sent;
        found.reports
    }

    /// Takes another session's reports: they come before those that are here, for they are older. Whoever had this session's stream hears of
    /// them at the beginning of the next one.
    pub(super) fn take_over(&mut self, partition: u32, mut reports: Reports) {
        for (key, outcome) in &reports {
            self.known.insert(*key);
            self.bytes += weight(outcome);
        }
        self.count += reports.len();
        let here = self.partitions.entry(partition).or_default();
        self.unsent += reports.len() + std::mem::take(&mut here.sent);
        reports.append(&mut here.reports);
        here.reports = reports;
    }

    /// A new session counts from its own beginning, and nothing was sent by it.
    pub(super) fn begin_session(&mut self) {
        self.partitions.retain(|_, partition| {
            partition.settled = 0;
            partition.sent = 0;
            !partition.reports.is_empty()
        });
        self.unsent = self.count;
    }

    /// Sends what was not sent on this stream, in order, as long as `send` says that it goes along. What does not go along makes nothing after it
    /// go along.
    pub(super) fn send(&mut self, mut send: impl FnMut(Report, usize) -> bool) {
        if self.unsent == 0 {
            return;
        }
        for partition in self.partitions.values_mut() {
            while let Some(next) = partition.reports.get(partition.sent) {
                if !send(report(next), weight(&next.1)) {
                    return;
                }
                partition.sent += 1;
                self.unsent -= 1;
            }
        }
    }

    /// The attempts whose reports were not sent on this stream.
    pub(super) fn unsent(&self) -> impl Iterator<Item = LeaseKey> {
        let partitions = self.partitions.values();
        let unsent = partitions.flat_map(|partition| partition.reports.range(partition.sent..));
        unsent.map(|(key, _)| *key)
    }

    /// Forgets the first `count` reports of the session for the partition; `false` if so many were not sent.
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
            let Some(sent) = found.sent.checked_sub(1) else {
                return false;
            };
            let Some((key, outcome)) = found.reports.pop_front() else {
                return false;
            };
            found.sent = sent;
            found.settled += 1;
            self.count -= 1;
            self.bytes -= weight(&outcome);
            self.known.remove(key);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(offset: u64, attempt: u32) -> LeaseKey {
        LeaseKey {
            partition: 1,
            offset,
            epoch: 1,
            attempt,
        }
    }

    #[test]
    fn attempts_are_told_apart_by_all_of_their_name() {
        let mut known = Known::default();
        let attempts = [lease(0, 1), lease(63, 1), lease(64, 1), lease(0, 2)];
        for attempt in attempts {
            assert!(!known.contains(attempt));
            known.insert(attempt);
            assert!(known.contains(attempt));
        }
        assert!(!known.contains(lease(0, 3)));
        assert!(!known.contains(LeaseKey {
            epoch: 2,
            ..lease(0, 1)
        }));
        for attempt in attempts {
            known.remove(attempt);
            assert!(!known.contains(attempt));
        }
        assert!(known.firsts.is_empty() && known.others.is_empty());
    }

    #[test]
    fn no_more_is_settled_than_was_sent() {
        let mut unsettled = Unsettled::default();
        for offset in 0..3 {
            unsettled.push(lease(offset, 1), Outcome::Failed(String::new()));
        }
        let mut asked = 0;
        unsettled.send(|_, _| {
            asked += 1;
            asked <= 2
        });
        assert_eq!(unsettled.unsent().collect::<Vec<_>>(), [lease(2, 1)]);
        assert!(!unsettled.settle(1, 1, 3));
        assert_eq!(unsettled.keys().collect::<Vec<_>>(), [lease(2, 1)]);
        unsettled.send(|_, _| true);
        assert!(unsettled.settle(1, 1, 3));
        assert!(unsettled.is_empty());
        assert_eq!(unsettled.bytes(), 0);
    }
}
