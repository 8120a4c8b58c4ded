//! Attempts count on: what was reported of one and is saved is followed by a later one, whoever owns the shard; and no more are made than the
//! pipeline allows.

use std::collections::BTreeMap;

use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset, Partition};
use scheduler_core::policy::PipelinePolicy;

use super::leases::Leases;
use super::said::Saying;
use crate::store::Store;

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// The last attempt of each task that is known to be saved.
    saved: BTreeMap<(Partition, Offset), Attempt>,
    /// Attempts that have failed by the word of whoever held them, and whether that is known to be saved.
    failed: BTreeMap<(Partition, Offset, LeaseToken), bool>,
    /// The most that the pipeline has allowed so far.
    allowed: u32,
}

impl Attempts {
    pub(super) fn new(policy: &PipelinePolicy) -> Self {
        let mut attempts = Self::default();
        attempts.policy_changed(policy);
        attempts
    }

    pub(super) fn policy_changed(&mut self, policy: &PipelinePolicy) {
        self.allowed = self.allowed.max(policy.retry.max_attempts).max(1);
    }

    /// A worker reports an attempt to the owner that has granted it, and to which it still counts.
    pub(super) fn reported(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        said: Saying,
        is_failure: bool,
        leases: &Leases,
    ) {
        if is_failure && said.token.epoch == epoch && leases.is_live(partition, said.offset, said.token) {
            self.failed.insert((partition, said.offset, said.token), false);
        }
    }

    /// A node says that these reports are saved, among them those of its own leases.
    pub(super) fn settled(&mut self, partition: Partition, epoch: Epoch, reports: &[Saying]) {
        let own = reports
            .iter()
            .filter(|said| said.token.epoch == epoch && !said.is_void);
        for said in own {
            let last = self.saved.entry((partition, said.offset)).or_default();
            *last = said.token.attempt.max(*last);
            if let Some(is_saved) = self.failed.get_mut(&(partition, said.offset, said.token)) {
                *is_saved = true;
            }
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

    /// A task is leased that was not brought back from the dead: it has not failed too often by what its owner must know.
    pub(super) fn check_limit(
        &self,
        partition: Partition,
        offset: Offset,
        token: LeaseToken,
    ) -> Result<(), String> {
        let least = LeaseToken {
            epoch: Epoch(0),
            attempt: Attempt(0),
        };
        let of_task = (partition, offset, least)..(partition, Offset(offset.0 + 1), least);
        let known = self
            .failed
            .range(of_task)
            // An owner that was replaced does not know of what was saved after it.
            .filter(|((.., of), is_saved)| **is_saved && of.epoch < token.epoch || of.epoch == token.epoch)
            .count();
        if known >= self.allowed as usize {
            return Err(format!(
                "{partition:?} {offset:?} has failed {known} times and is leased under {token:?}; at most {} attempts are allowed",
                self.allowed
            ));
        }
        Ok(())
    }
}
