//! Promise 1: what was accepted is never lost, and ends.

use std::collections::BTreeSet;

use scheduler_core::id::{Offset, Partition};

use crate::rng::Rng;
use crate::store::Store;

/// Everything that the log has taken, whether or not its submitter knows.
#[derive(Debug, Default)]
pub(super) struct Lost {
    all: Vec<(Partition, Offset)>,
    set: BTreeSet<(Partition, Offset)>,
}

impl Lost {
    pub(super) fn appended(&mut self, partition: Partition, offset: Offset) {
        self.all.push((partition, offset));
        self.set.insert((partition, offset));
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
        ended >= self.set.len() && self.waiting(store).is_empty()
    }

    fn waiting(&self, store: &Store) -> Vec<(Partition, Offset)> {
        let has_ended = |(partition, offset): &(Partition, Offset)| {
            store
                .shards
                .get(partition)
                .is_some_and(|rows| rows.has_ended(*offset))
        };
        self.all().filter(|task| !has_ended(task)).collect()
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
