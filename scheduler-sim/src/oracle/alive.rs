//! Who is to know of an owner's life, and when: the store that it has survived the tasks it found, placement that it has let go, and itself that it
//! has been replaced.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::{Partition, Tenure};

/// How long word of a release may take.
const WORD: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Alive {
    /// Owners that have made a checkpoint.
    made: BTreeSet<Tenure>,
    /// When each node heard that its release is in the store, of those that placement has not heard of.
    released: BTreeMap<(usize, Partition), u64>,
}

impl Alive {
    /// An owner has made a checkpoint.
    pub(super) fn made(&mut self, tenure: Tenure) {
        self.made.insert(tenure);
    }

    /// An owner has taken in records. Were it to die of them without a word, as often as it takes, the shard would be left alone; so it
    /// says at once that it has not.
    pub(super) fn has_records(&self, tenure: Tenure) -> Result<(), String> {
        if self.made.contains(&tenure) {
            return Ok(());
        }
        Err(format!(
            "{} has taken in its first records under {:?}, and does not save that it lives",
            tenure.shard, tenure.epoch
        ))
    }

    /// Placement has heard that a node has let go.
    pub(super) fn is_told(&mut self, node: usize, partition: Partition) {
        self.released.remove(&(node, partition));
    }

    /// A node has heard that its release is in the store.
    pub(super) fn released(&mut self, node: usize, partition: Partition, now: u64) {
        self.released.insert((node, partition), now);
    }

    pub(super) fn node_gone(&mut self, node: usize) {
        self.released.retain(|(of, _), _| *of != node);
    }

    /// Placement gives up on a node that was to let go of a shard.
    pub(super) fn given_up(&self, node: usize, partition: Partition, now: u64) -> Result<(), String> {
        match self.released.get(&(node, partition)) {
            Some(at) if now > at + WORD => Err(format!(
                "node {node} has released {partition:?} at {at} ms, and placement waits for that in vain"
            )),
            _ => Ok(()),
        }
    }
}
