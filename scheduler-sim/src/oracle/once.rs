//! Promise 4: a crash of the scheduler does not by itself make finished work run again.
//!
//! At every step: nothing is leased that a worker has said to this owner it has finished, and nothing that a vanished owner may have leased
//! before its workers have had time to come back. In histories where only schedulers fail, no task is ever finished twice or runs twice
//! at a time.

use std::collections::BTreeMap;

use scheduler_core::id::{Offset, Partition};
use scheduler_core::time::Timestamp;
use scheduler_sdk::session::LeaseKey;

#[derive(Debug)]
pub(super) struct Once {
    strict: bool,
    /// Until when, and below which offset, tasks wait for workers.
    graces: BTreeMap<(usize, Partition), (Timestamp, Offset)>,
    running: BTreeMap<(u32, u64), (usize, LeaseKey)>,
    finished: BTreeMap<(u32, u64), LeaseKey>,
}

impl Once {
    pub(super) fn new(strict: bool) -> Self {
        Self {
            strict,
            graces: BTreeMap::new(),
            running: BTreeMap::new(),
            finished: BTreeMap::new(),
        }
    }

    pub(super) fn activated(
        &mut self,
        node: usize,
        partition: Partition,
        grace: Option<Timestamp>,
        end: Offset,
    ) {
        self.graces
            .insert((node, partition), (grace.unwrap_or(Timestamp::ZERO), end));
    }

    pub(super) fn check_lease(
        &self,
        node: usize,
        partition: Partition,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), String> {
        if let Some((until, below)) = self.graces.get(&(node, partition))
            && now < *until
            && offset < *below
        {
            return Err(format!(
                "{partition:?} {offset:?} is leased at {now:?}; workers have until {until:?} to come back"
            ));
        }
        Ok(())
    }

    pub(super) fn started(&mut self, worker: usize, key: LeaseKey) -> Result<(), String> {
        if !self.strict {
            return Ok(());
        }
        let task = (key.partition, key.offset);
        if let Some(before) = self.finished.get(&task) {
            return Err(format!("{before:?} has finished its task, and {key:?} begins"));
        }
        if let Some((other, before)) = self.running.insert(task, (worker, key)) {
            return Err(format!(
                "{before:?} runs at worker {other}, and {key:?} begins at worker {worker}"
            ));
        }
        Ok(())
    }

    pub(super) fn ended(&mut self, worker: usize, key: LeaseKey, is_success: bool) -> Result<(), String> {
        if !self.strict {
            return Ok(());
        }
        let task = (key.partition, key.offset);
        self.running.remove(&task);
        if is_success && let Some(before) = self.finished.insert(task, key) {
            return Err(format!(
                "worker {worker} has finished {key:?}, as {before:?} was before"
            ));
        }
        Ok(())
    }
}
