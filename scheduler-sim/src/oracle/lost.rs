//! Promise 1: what was accepted is never lost, and ends. Promise 7: what the log itself loses is counted.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::{Offset, Partition};
use scheduler_core::shard::Account;

use crate::rng::Rng;
use crate::store::Store;

/// Everything that the log has taken, whether or not its submitter knows.
#[derive(Debug, Default)]
pub(super) struct Lost {
    all: Vec<(Partition, Offset)>,
    set: BTreeSet<(Partition, Offset)>,
    /// Before which offset the log has lost records.
    gone: BTreeMap<Partition, Offset>,
    has_gaps: bool,
}

impl Lost {
    pub(super) fn appended(&mut self, partition: Partition, offset: Offset) {
        self.all.push((partition, offset));
        self.set.insert((partition, offset));
    }

    pub(super) fn log_has_gap(&mut self) {
        self.has_gaps = true;
    }

    pub(super) fn records_are_lost(&mut self, partition: Partition, before: Offset) {
        let gone = self.gone.entry(partition).or_default();
        *gone = before.max(*gone);
    }

    pub(super) fn are_lost(&self, partition: Partition, start: Offset) -> bool {
        self.gone.get(&partition).is_some_and(|gone| start <= *gone)
    }

    /// Whether the log may have lost the record of a task before it ended.
    pub(super) fn may_be_gone(&self, partition: Partition, offset: Offset) -> bool {
        self.gone.get(&partition).is_some_and(|gone| offset < *gone)
    }

    pub(super) fn some(&self, rng: &mut Rng) -> Option<(Partition, Offset)> {
        (!self.all.is_empty()).then(|| *rng.pick(&self.all))
    }

    /// Records of a partition from `from` up to `to`.
    pub(super) fn between(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
    ) -> impl Iterator<Item = Offset> {
        self.set
            .range((partition, from)..(partition, to))
            .map(|(_, offset)| *offset)
    }

    pub(super) fn has(&self, partition: Partition, offset: Offset) -> bool {
        self.set.contains(&(partition, offset))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.set.iter().copied()
    }

    pub(super) fn all_ended(&self, store: &Store) -> bool {
        let ended: usize = store
            .shards
            .values()
            .map(|rows| rows.results.len() + rows.dead.len())
            .sum();
        (ended >= self.set.len() || !self.gone.is_empty()) && self.waiting(store).is_empty()
    }

    fn waiting(&self, store: &Store) -> Vec<(Partition, Offset)> {
        let has_ended = |(partition, offset): &(Partition, Offset)| {
            store.shards.get(partition).is_some_and(|rows| {
                // What is before the resume offset and in no row is in nobody's memory, and comes from nowhere.
                let is_gone = *offset < rows.resume
                    && self.may_be_gone(*partition, *offset)
                    && !rows.parked.contains_key(offset);
                rows.has_ended(*offset) || is_gone
            })
        };
        self.all().filter(|task| !has_ended(task)).collect()
    }

    /// At the very end: a shard counts as lost what the log has lost of its tasks before they ended, and nothing else.
    pub(super) fn check_counted(
        &self,
        store: &Store,
        account: &Account,
        partition: Partition,
    ) -> Result<(), String> {
        let Some(rows) = store.shards.get(&partition) else {
            return Ok(());
        };
        let of_it = self.between(partition, Offset::ZERO, account.tail);
        let missing = of_it.filter(|offset| !rows.has_ended(*offset)).count() as u64;
        // Of a gap that nobody has read, nobody can tell whether records were there.
        let is_right = missing == account.lost || self.has_gaps && missing < account.lost;
        if !is_right || account.parked() != Some(0) {
            return Err(format!(
                "{missing} tasks of {partition:?} are gone with their records, and its shard has {account:?}"
            ));
        }
        Ok(())
    }

    pub(super) fn not_ended(&self, store: &Store) -> String {
        let waiting = self.waiting(store);
        let first: Vec<String> = waiting
            .iter()
            .take(8)
            .map(|(partition, offset)| format!("{}/{}", partition.0, offset.0))
            .collect();
        format!(
            "{} of {} tasks have not ended: {}",
            waiting.len(),
            self.set.len(),
            first.join(", ")
        )
    }
}
