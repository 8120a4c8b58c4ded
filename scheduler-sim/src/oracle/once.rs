//! Promise 4: a crash of the scheduler does not by itself make finished work run again.
//!
//! At every step: nothing is leased that a worker has said to this owner it has finished, and nothing that a vanished owner may have leased
//! before its workers have had time to come back; an owner that lets go of a shard meanwhile passes that on. In histories where only schedulers
//! fail, no task is ever finished twice or runs twice at a time, and no worker is told to stop what nobody wants stopped.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::{Epoch, Offset, Partition};
use scheduler_core::task::RecordBody;
use scheduler_core::time::Timestamp;
use scheduler_sdk::session::LeaseKey;

#[derive(Debug)]
pub(super) struct Once {
    strict: bool,
    /// Until when, and below which offset, tasks wait for workers.
    graces: BTreeMap<(usize, Partition), (Timestamp, Offset)>,
    /// The same, by epoch.
    passed_on: BTreeMap<(Partition, Epoch), (Timestamp, Offset)>,
    /// Tasks that may be over before they end.
    with_deadlines: BTreeSet<(u32, u64)>,
    running: BTreeMap<(u32, u64), (usize, LeaseKey)>,
    finished: BTreeMap<(u32, u64), LeaseKey>,
}

impl Once {
    pub(super) fn new(strict: bool) -> Self {
        Self {
            strict,
            graces: BTreeMap::new(),
            passed_on: BTreeMap::new(),
            with_deadlines: BTreeSet::new(),
            running: BTreeMap::new(),
            finished: BTreeMap::new(),
        }
    }

    pub(super) fn activated(
        &mut self,
        node: usize,
        (partition, epoch): (Partition, Epoch),
        unclean: bool,
        until: Timestamp,
        end: Offset,
    ) {
        let before = (partition, Epoch(0))..(partition, epoch);
        let inherited = self.passed_on.range(before).next_back();
        let below = match inherited {
            _ if unclean => end,
            // Whoever let go of it had not waited long enough: its workers have all the time again.
            Some((_, (_, below))) => *below,
            None => Offset::ZERO,
        };
        let grace = (until, below);
        self.graces.insert((node, partition), grace);
        self.passed_on.insert((partition, epoch), grace);
    }

    /// An owner lets go of a shard when its clock says `now`.
    pub(super) fn deactivated(&mut self, partition: Partition, epoch: Epoch, now: Timestamp) {
        if let Some(grace) = self.passed_on.get_mut(&(partition, epoch))
            && now >= grace.0
        {
            *grace = (Timestamp::ZERO, Offset::ZERO);
        }
    }

    pub(super) fn appended(&mut self, partition: Partition, offset: Offset, body: &RecordBody) {
        if let RecordBody::Task(spec) = body
            && spec
                .options
                .as_ref()
                .is_some_and(|options| options.deadline.is_some())
        {
            self.with_deadlines.insert((partition.0, offset.0));
        }
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

    /// A worker is told to stop a task.
    pub(super) fn stopped(&self, worker: usize, key: LeaseKey, is_wanted: bool) -> Result<(), String> {
        let task = (key.partition, key.offset);
        let is_its_own = self.running.get(&task) == Some(&(worker, key));
        if self.strict && is_its_own && !is_wanted && !self.with_deadlines.contains(&task) {
            return Err(format!(
                "worker {worker} is to stop {key:?}, which it runs and nobody else has"
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
