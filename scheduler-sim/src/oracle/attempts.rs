//! Attempts count on: what was reported of one and is saved is followed by a later one, whoever owns the shard.

use std::collections::BTreeMap;

use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset, Partition};

use super::said::Saying;
use crate::store::Store;

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The last attempt of each task that is known to be saved.
    saved: BTreeMap<(Partition, Offset), Attempt>,
}

impl Attempts {
    /// A node says that these reports are saved, among them those of its own leases.
    pub(super) fn settled(&mut self, partition: Partition, epoch: Epoch, reports: &[Saying]) {
        let own = reports
            .iter()
            .filter(|said| said.token.epoch == epoch && !said.is_void);
        for said in own {
            let last = self.saved.entry((partition, said.offset)).or_default();
            *last = said.token.attempt.max(*last);
        }
    }

    /// A task is leased by whoever the store says owns its shard.
    pub(super) fn check_lease(
        &self,
        store: &mut Store,
        partition: Partition,
        offset: Offset,
        token: LeaseToken,
    ) -> Result<(), String> {
        let saved = self.saved.get(&(partition, offset)).copied().unwrap_or_default();
        if token.epoch == Epoch(store.shard(partition).epoch) && token.attempt <= saved {
            return Err(format!(
                "{partition:?} {offset:?} is leased under {token:?}, and {saved:?} is saved"
            ));
        }
        Ok(())
    }
}
