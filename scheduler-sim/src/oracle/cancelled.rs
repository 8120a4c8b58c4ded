//! Promise 3, of those who change their minds: once a cancellation is answered the task is not tried again.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::{Epoch, LeaseToken, Offset, Partition};

#[derive(Debug, Default)]
pub(super) struct Cancelled {
    /// What somebody wanted cancelled, whether or not an owner has heard it.
    asked: BTreeSet<(Partition, Offset)>,
    /// What an owner has taken note of.
    told: BTreeSet<(Partition, Offset, Epoch)>,
    /// What is saved, and under which epoch: every later owner must know. One that was replaced does not.
    saved: BTreeMap<(Partition, Offset), Epoch>,
}

impl Cancelled {
    pub(super) fn asked(&mut self, partition: Partition, offset: Offset) {
        self.asked.insert((partition, offset));
    }

    pub(super) fn told(&mut self, partition: Partition, offset: Offset, epoch: Epoch) {
        self.told.insert((partition, offset, epoch));
    }

    pub(super) fn saved(&mut self, partition: Partition, offset: Offset, epoch: Epoch) {
        self.saved.entry((partition, offset)).or_insert(epoch);
    }

    pub(super) fn may_be(&self, partition: Partition, offset: Offset) -> bool {
        self.asked.contains(&(partition, offset))
    }

    /// A task is leased.
    pub(super) fn check_lease(
        &self,
        partition: Partition,
        offset: Offset,
        token: LeaseToken,
    ) -> Result<(), String> {
        let is_known = self.told.contains(&(partition, offset, token.epoch));
        let saved = self.saved.get(&(partition, offset));
        if is_known || saved.is_some_and(|epoch| *epoch <= token.epoch) {
            return Err(format!(
                "{partition:?} {offset:?} was cancelled and is leased under {token:?}"
            ));
        }
        Ok(())
    }
}
