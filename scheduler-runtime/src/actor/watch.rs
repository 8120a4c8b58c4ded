//! Those who want to know what happens to tasks.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::{Offset, Partition, ShardId};
use scheduler_core::pipeline::Event;
use scheduler_core::port::gateway::TaskView;
use scheduler_core::shard::{Found, Input, Shard};
use scheduler_core::time::Timestamp;
use tokio::sync::mpsc;

use super::PipelineActor;
use crate::api::view;

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Watched {
    /// The task is like this now.
    Now(Box<TaskView>),
    /// The shard does not have the task in memory (any more): look in the store. If it is parked, more is said when it comes back.
    LookElsewhere,
}

/// Those who are gone are looked for when there are so many more than at the last time.
const SWEEP_AT_LEAST: usize = 256;

/// Who watches what. A watcher that does not keep up is dropped, which ends its stream.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    one: BTreeMap<(Partition, Offset), Vec<mpsc::Sender<Watched>>>,
    all: Vec<mpsc::Sender<Watched>>,
    /// Whether the shards were told to say everything.
    told: bool,
    /// Those in `one` whose task has not arrived.
    awaited: BTreeSet<(Partition, Offset)>,
    /// How many there were in `one` after the last sweep.
    swept: usize,
}

impl Watchers {
    /// Says that a task has changed.
    pub(super) fn changed(&mut self, shard: ShardId, offset: Offset, found: Found) {
        let Some(view) = view::of_found(shard, found) else {
            return;
        };
        let key = (shard.partition, offset);
        if let Some(watchers) = self.one.get_mut(&key) {
            watchers.retain(|watcher| watcher.try_send(Watched::Now(Box::new(view.clone()))).is_ok());
            if watchers.is_empty() || view.state.is_final() {
                self.one.remove(&key);
            }
        }
        self.all
            .retain(|watcher| watcher.try_send(Watched::Now(Box::new(view.clone()))).is_ok());
    }

    /// Whether the last one who watched everything has just gone.
    pub(super) fn nobody_watches_all(&mut self) -> bool {
        self.all.is_empty() && std::mem::take(&mut self.told)
    }

    /// Ends the streams of a partition's tasks: its shard has left.
    pub(super) fn forget(&mut self, partition: Partition) {
        self.one.retain(|(of, _), _| *of != partition);
        self.awaited.retain(|(of, _)| *of != partition);
    }

    /// Forgets those who are gone, so often that it costs each of them as good as nothing.
    fn sweep(&mut self) {
        if self.one.len() < SWEEP_AT_LEAST.max(self.swept * 2) {
            return;
        }
        self.one.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
        self.awaited.retain(|key| self.one.contains_key(key));
        self.swept = self.one.len();
    }
}

impl PipelineActor {
    pub(super) fn watch(
        &mut self,
        now: Timestamp,
        what: Option<(Partition, Offset)>,
        watcher: mpsc::Sender<Watched>,
    ) {
        self.watchers.all.retain(|watcher| !watcher.is_closed());
        let Some(key) = what else {
            self.watchers.all.push(watcher);
            if !std::mem::replace(&mut self.watchers.told, true) {
                self.event(now, Event::WatchAll(true));
            }
            return;
        };
        self.watchers.sweep();
        let watchers = self.watchers.one.entry(key).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(watcher);
        self.watch_task(now, key);
    }

    /// Has the shard say what happens to a task that is watched, and says how it is.
    fn watch_task(&mut self, now: Timestamp, key: (Partition, Offset)) {
        let (partition, offset) = key;
        self.input(now, partition, Input::Watch(offset));
        match self.find(partition, offset) {
            Found::Ahead => {
                self.watchers.awaited.insert(key);
            }
            found @ (Found::Live(_) | Found::Finished(_) | Found::Dead(_)) => {
                self.watchers.changed(self.shard_id(partition), offset, found);
            }
            Found::Elsewhere => {
                // It has ended, and the watcher sees that in the store; or it is parked, and comes back.
                if let Some(watchers) = self.watchers.one.get_mut(&key) {
                    watchers.retain(|watcher| watcher.try_send(Watched::LookElsewhere).is_ok());
                }
            }
        }
    }

    /// Looks again at a task that has come from the store: if it is watched, its shard does not know.
    pub(super) fn watch_again(&mut self, now: Timestamp, key: (Partition, Offset)) {
        if self.watchers.one.contains_key(&key) {
            self.watchers.awaited.remove(&key);
            self.watch_task(now, key);
        }
    }

    /// Looks again at tasks that are watched and had not arrived.
    pub(super) fn watch_arrived(&mut self, now: Timestamp, partition: Partition) {
        if self.watchers.awaited.is_empty() {
            return;
        }
        let Some(tail) = self.host.pipeline().shard(partition).map(Shard::tail) else {
            return;
        };
        let arrived = (partition, Offset::ZERO)..(partition, tail);
        let keys: Vec<_> = self.watchers.awaited.range(arrived).copied().collect();
        for key in keys {
            self.watchers.awaited.remove(&key);
            self.watch_task(now, key);
        }
    }
}
