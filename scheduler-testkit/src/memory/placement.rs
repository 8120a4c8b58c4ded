//! Placement of several nodes in one process: partitions dealt out evenly, moved one at a time, taken from nodes that die.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use scheduler_core::id::{Partition, ShardId};
use scheduler_core::port::log::Topic;
use scheduler_core::port::placement::{Placement, PlacementError, PlacementEvent};
use tokio::sync::Notify;

use super::lock;

/// The group of nodes among which shards are dealt out. Clones share it.
///
/// A shard moves as in a consumer group with cooperative assignment: its old node is told [`PlacementEvent::Revoked`], and only when that
/// has [released](Placement::released) it is the new one told [`PlacementEvent::Assigned`].
#[derive(Clone, Debug, Default)]
pub struct MemoryGroup {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    nodes: BTreeMap<u64, NodeState>,
    /// Who has each shard, until it is released.
    held: BTreeMap<ShardId, u64>,
    /// Told to be released, and not yet.
    leaving: BTreeSet<ShardId>,
}

#[derive(Debug, Default)]
struct NodeState {
    shards: BTreeSet<ShardId>,
    events: VecDeque<PlacementEvent>,
}

impl MemoryGroup {
    /// A group without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A place for one more node, which joins as soon as it names its topics.
    pub fn join(&self) -> MemoryPlacement {
        let mut state = lock(&self.state);
        state.last += 1;
        let node = state.last;
        state.nodes.insert(node, NodeState::default());
        drop(state);
        MemoryPlacement {
            group: self.clone(),
            node,
        }
    }

    /// A node is gone without a word: its shards are others' at once. If it lives all the same, it hears [`PlacementEvent::Lost`].
    pub fn kill(&self, placement: &MemoryPlacement) {
        let mut state = lock(&self.state);
        let node = placement.node;
        let lost: Vec<ShardId> = state.of(node);
        for shard in &lost {
            state.held.remove(shard);
            state.leaving.remove(shard);
        }
        if let Some(node) = state.nodes.get_mut(&node) {
            node.shards.clear();
            if !lost.is_empty() {
                node.events.push_back(PlacementEvent::Lost(lost));
            }
        }
        state.balance();
        drop(state);
        self.changed.notify_waiters();
    }

    /// How many shards each node has that has any.
    pub fn held(&self) -> Vec<usize> {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for node in lock(&self.state).held.values() {
            *counts.entry(*node).or_default() += 1;
        }
        counts.into_values().collect()
    }
}

impl State {
    fn of(&self, node: u64) -> Vec<ShardId> {
        let of_it = self.held.iter().filter(|(_, holder)| **holder == node);
        of_it.map(|(shard, _)| *shard).collect()
    }

    /// Deals the shards out anew: each stays where it is, if that node wants it and has no more than its share.
    fn balance(&mut self) {
        let wanted: BTreeSet<ShardId> = self
            .nodes
            .values()
            .flat_map(|node| node.shards.iter().copied())
            .collect();
        let takers = self.nodes.values().filter(|node| !node.shards.is_empty()).count();
        let share = wanted.len().div_ceil(takers.max(1));
        let mut counts: BTreeMap<u64, usize> = self.nodes.keys().map(|node| (*node, 0)).collect();
        let mut revoked: BTreeMap<u64, Vec<ShardId>> = BTreeMap::new();
        let mut assigned: BTreeMap<u64, Vec<ShardId>> = BTreeMap::new();
        for (shard, node) in &self.held {
            let count = counts.entry(*node).or_default();
            let wants = self
                .nodes
                .get(node)
                .is_some_and(|node| node.shards.contains(shard));
            if wants && *count < share {
                *count += 1;
            } else if self.leaving.insert(*shard) {
                revoked.entry(*node).or_default().push(*shard);
            }
        }
        for shard in &wanted {
            if self.held.contains_key(shard) {
                continue;
            }
            let takers = self.nodes.iter().filter(|(_, node)| node.shards.contains(shard));
            let Some(taker) = takers.map(|(node, _)| *node).min_by_key(|node| counts[node]) else {
                continue;
            };
            *counts.entry(taker).or_default() += 1;
            assigned.entry(taker).or_default().push(*shard);
        }
        for (node, shards) in assigned {
            self.held.extend(shards.iter().map(|shard| (*shard, node)));
            self.tell(node, PlacementEvent::Assigned(shards));
        }
        for (node, shards) in revoked {
            self.tell(node, PlacementEvent::Revoked(shards));
        }
    }

    fn tell(&mut self, node: u64, event: PlacementEvent) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.events.push_back(event);
        }
    }
}

/// One node's [`Placement`] in a [`MemoryGroup`].
#[derive(Debug)]
pub struct MemoryPlacement {
    group: MemoryGroup,
    node: u64,
}

#[async_trait]
impl Placement for MemoryPlacement {
    async fn set_topics(&self, topics: Vec<Topic>) -> Result<(), PlacementError> {
        let shards = topics.iter().flat_map(|topic| {
            let partitions = (0..topic.partitions).map(Partition);
            partitions.map(|partition| ShardId::new(topic.pipeline, partition))
        });
        let shards = shards.collect();
        let mut state = lock(&self.group.state);
        if let Some(node) = state.nodes.get_mut(&self.node) {
            node.shards = shards;
        }
        state.balance();
        drop(state);
        self.group.changed.notify_waiters();
        Ok(())
    }

    async fn next(&self) -> Result<PlacementEvent, PlacementError> {
        loop {
            // Made before the look, so that no change between the two is missed.
            let changed = self.group.changed.clone().notified_owned();
            let event = lock(&self.group.state)
                .nodes
                .get_mut(&self.node)
                .and_then(|node| node.events.pop_front());
            if let Some(event) = event {
                return Ok(event);
            }
            changed.await;
        }
    }

    async fn released(&self, shards: &[ShardId]) -> Result<(), PlacementError> {
        let mut state = lock(&self.group.state);
        for shard in shards {
            if state.held.get(shard) == Some(&self.node) {
                state.held.remove(shard);
                state.leaving.remove(shard);
            }
        }
        state.balance();
        drop(state);
        self.group.changed.notify_waiters();
        Ok(())
    }
}
