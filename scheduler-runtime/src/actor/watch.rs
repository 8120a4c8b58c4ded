//! Those who want to know what happens to tasks.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::ShardId;
use tokio::sync::mpsc;

use super::{Answer, Event, Found, Input, Offset, Partition, PipelineActor, TaskView, Timestamp};
use crate::api::view;

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Watched {
    /// The task is like this now.
    Now(Box<TaskView>),
    /// The shard does not have the task in memory (any more): look in the store.
    LookElsewhere,
}

/// Who watches what. A watcher that does not keep up is dropped, which ends its stream.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    one: BTreeMap<(Partition, Offset), Vec<mpsc::Sender<Watched>>>,
    all: Vec<mpsc::Sender<Watched>>,
    /// Whether the shards were told to say everything.
    told: bool,
    /// Those in `one` whose task has not arrived.
    awaited: BTreeSet<(Partition, Offset)>,
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
}

impl Watchers {
    /// Whether the last one who watched everything has just gone.
    pub(super) fn nobody_watches_all(&mut self) -> bool {
        self.all.is_empty() && std::mem::take(&mut self.told)
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
            self.watchers.told = true;
            self.event(now, Event::WatchAll(true));
            return;
        };
        let watchers = self.watchers.one.entry(key).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(watcher);
        self.watch_task(now, key);
    }

    fn watch_task(&mut self, now: Timestamp, key: (Partition, Offset)) {
        let (partition, offset) = key;
        let input = Input::Watch(offset);
        let answer = self
            .machine
            .handle(now, Event::Shard(partition, input), &mut self.effects);
        match self.find(partition, offset) {
            Found::Ahead => {
                self.watchers.awaited.insert(key);
            }
            found @ (Found::Live(_) | Found::Finished(_) | Found::Dead(_)) => {
                debug_assert!(answer != Answer::Elsewhere, "what is found is not elsewhere");
                self.watchers.changed(self.shard_id(partition), offset, found);
            }
            Found::Elsewhere => {
                for watcher in self.watchers.one.remove(&key).unwrap_or_default() {
                    let _ = watcher.try_send(Watched::LookElsewhere);
                }
            }
        }
    }

    /// Looks again at tasks that are watched and had not arrived.
    pub(super) fn watch_arrived(&mut self, now: Timestamp, partition: Partition) {
        if self.watchers.awaited.is_empty() {
            return;
        }
        let Some(tail) = self
            .machine
            .shard(partition)
            .map(scheduler_core::shard::Shard::tail)
        else {
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
