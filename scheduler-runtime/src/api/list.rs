//! Lists of tasks: what shards, store and log know, merged into one order.

use std::time::Duration;

use scheduler_core::id::{Offset, Partition, ShardId, TaskId};
use scheduler_core::outcome::DeadTask;
use scheduler_core::port::gateway::{ApiError, Page, PageCursor, TaskFilter, TaskState, TaskView};
use scheduler_core::port::log::{LogError, ReadLimit};

use super::LocalNode;
use super::{error, view};
use crate::actor::Message;
use crate::directory::Served;

/// Looks at shards for one page of a list; a filter that lets little through gets short pages.
const MOST_LOOKS: usize = 64;
/// Longest look at the log.
const LONGEST_READ: Duration = Duration::from_secs(5);
/// Bytes of params read from the log at once.
const READ_BYTES: usize = 4 << 20;

impl LocalNode {
    /// A page of tasks of these partitions: one by one, in each the newest first.
    pub(crate) async fn list(
        &self,
        served: &Served,
        partitions: Vec<Partition>,
        filter: &TaskFilter,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<TaskView>, ApiError> {
        let first = after.map_or(0, |cursor| cursor.partition.0);
        let mut before = after.map_or(Offset(u64::MAX), |cursor| cursor.offset);
        let mut items: Vec<TaskView> = Vec::new();
        let mut looks = 0;
        for partition in partitions.into_iter().filter(|partition| partition.0 >= first) {
            let shard = ShardId::new(served.pipeline.id, partition);
            if partition.0 != first {
                before = Offset(u64::MAX);
            }
            loop {
                if looks == MOST_LOOKS {
                    // The filter lets too little through: go on in the next page.
                    let next = PageCursor {
                        partition,
                        offset: before,
                    };
                    return Ok(Page {
                        items,
                        next: Some(next),
                    });
                }
                looks += 1;
                let look = self
                    .look(served, shard, filter, before, limit - items.len())
                    .await?;
                items.extend(look.found);
                if let Some(last) = items.last().filter(|_| items.len() >= limit) {
                    let next = PageCursor {
                        partition,
                        offset: last.id.offset,
                    };
                    return Ok(Page {
                        items,
                        next: Some(next),
                    });
                }
                match look.rest {
                    Some(rest) => before = rest,
                    None => break,
                }
            }
            before = Offset(u64::MAX);
        }
        Ok(Page { items, next: None })
    }

    /// One look at all sources for tasks of a shard below `before`.
    async fn look(
        &self,
        served: &Served,
        shard: ShardId,
        filter: &TaskFilter,
        before: Offset,
        limit: usize,
    ) -> Result<Look, ApiError> {
        let is_wanted = |state: TaskState| filter.states.is_empty() || filter.states.contains(&state);
        let states = filter.states.clone();
        let list = |reply| Message::List(shard.partition, before, limit, states, reply);
        let (live, tail) = served.mailbox.ask(list).await.unwrap_or_default();
        let mut found: Vec<TaskView> = live
            .into_iter()
            .filter_map(|found| view::of_found(shard, found))
            .collect();
        // Below the lowest offset of a full source nothing is known of the others: the look ends there.
        let mut floor = if found.len() >= limit {
            found.last().map(|view| view.id.offset)
        } else {
            None
        };
        let mut add = |views: Vec<TaskView>, found: &mut Vec<TaskView>| {
            if views.len() >= limit {
                floor = floor.max(views.last().map(|view| view.id.offset));
            }
            found.extend(views);
        };
        let store = &self.inner.store;
        if [TaskState::Succeeded, TaskState::Cancelled, TaskState::Expired]
            .into_iter()
            .any(is_wanted)
        {
            let results = store
                .results(shard, before, limit)
                .await
                .map_err(error::of_store)?;
            add(
                results
                    .into_iter()
                    .map(|task| view::of_finished(shard, task))
                    .collect(),
                &mut found,
            );
        }
        if is_wanted(TaskState::Dead) {
            let dead = store
                .dead_tasks(shard, before, limit)
                .await
                .map_err(error::of_store)?;
            add(
                dead.into_iter().map(|task| view::of_dead(shard, task)).collect(),
                &mut found,
            );
        }
        if is_wanted(TaskState::Delayed) || is_wanted(TaskState::Queued) {
            let parked = store
                .parked_tasks(shard, before, limit)
                .await
                .map_err(error::of_store)?;
            add(
                parked
                    .into_iter()
                    .map(|task| view::of_parked(shard, task))
                    .collect(),
                &mut found,
            );
        }
        if is_wanted(TaskState::Queued) {
            let from = tail.unwrap_or_default();
            let (queued, rest) = self.backlog(shard, from, before, limit).await?;
            found.extend(queued);
            floor = floor.max(rest);
        }
        // Of a task in two places the shard knows best, and was asked first; after it the store.
        found.sort_by_key(|view| std::cmp::Reverse(view.id.offset));
        found.dedup_by_key(|view| view.id.offset);
        if let Some(floor) = floor {
            found.retain(|view| view.id.offset >= floor);
        }
        self.correct(served, shard, &mut found).await;
        found.retain(|view| is_wanted(view.state));
        found.truncate(limit);
        Ok(Look { found, rest: floor })
    }

    /// Shows each task as its shard has it now: a row of the store may be of a task that is in memory, in a state that was not asked for.
    async fn correct(&self, served: &Served, shard: ShardId, found: &mut [TaskView]) {
        let offsets = found.iter().map(|view| view.id.offset).collect();
        let find = |reply| Message::Find(shard.partition, offsets, reply);
        let known = served.mailbox.ask(find).await.unwrap_or_default();
        for (view, known) in found.iter_mut().zip(known) {
            if let Some(known) = view::of_found(shard, known) {
                *view = known;
            }
        }
    }

    /// Tasks in the log that their shard has not loaded, the newest first; and below which offset there may be more.
    async fn backlog(
        &self,
        shard: ShardId,
        tail: Offset,
        before: Offset,
        limit: usize,
    ) -> Result<(Vec<TaskView>, Option<Offset>), ApiError> {
        let bounds = self.inner.log.bounds(shard).await.map_err(error::of_log)?;
        let end = before.min(bounds.end);
        let begin = tail.max(bounds.start);
        if begin >= end {
            return Ok((Vec::new(), None));
        }
        let from = Offset(end.0.saturating_sub(limit as u64).max(begin.0));
        let mut views = Vec::new();
        let read = async {
            let mut reader = self.inner.log.read(shard, from).await?;
            let mut records = Vec::new();
            let mut next = from;
            while next < end {
                let limit = ReadLimit {
                    records: usize::try_from(end.0 - next.0).unwrap_or(usize::MAX),
                    bytes: READ_BYTES,
                };
                reader.next(limit, &mut records).await?;
                next = records.last().map_or(end, |last| last.offset.next());
                let wanted = records.drain(..).filter(|record| record.offset < end);
                views.extend(wanted.map(|record| view::of_record(shard, record)));
            }
            Ok::<_, LogError>(())
        };
        // A reader waits for ever if the last of the records is truncated just now.
        match tokio::time::timeout(LONGEST_READ, read).await {
            Ok(Ok(()) | Err(LogError::Truncated { .. })) => (),
            Ok(Err(problem)) => return Err(error::of_log(problem)),
            Err(_) => return Err(error::unavailable("the task log does not answer")),
        }
        views.reverse();
        Ok((views, (from > begin).then_some(from)))
    }

    /// A page of dead letters of these partitions, in the same order.
    pub(crate) async fn list_dead(
        &self,
        served: &Served,
        partitions: Vec<Partition>,
        after: Option<PageCursor>,
        limit: usize,
    ) -> Result<Page<(TaskId, DeadTask)>, ApiError> {
        let first = after.map_or(0, |cursor| cursor.partition.0);
        let mut before = after.map_or(Offset(u64::MAX), |cursor| cursor.offset);
        let mut items = Vec::new();
        for partition in partitions.into_iter().filter(|partition| partition.0 >= first) {
            let shard = ShardId::new(served.pipeline.id, partition);
            if partition.0 != first {
                before = Offset(u64::MAX);
            }
            let rest = limit - items.len();
            let dead = self
                .inner
                .store
                .dead_tasks(shard, before, rest)
                .await
                .map_err(error::of_store)?;
            let is_full = dead.len() >= rest;
            items.extend(dead.into_iter().map(|task| (shard.task(task.offset), task)));
            if let Some((id, _)) = items.last().filter(|_| is_full) {
                let next = PageCursor {
                    partition,
                    offset: id.offset,
                };
                return Ok(Page {
                    items,
                    next: Some(next),
                });
            }
            before = Offset(u64::MAX);
        }
        Ok(Page { items, next: None })
    }
}

/// What one look has found.
struct Look {
    found: Vec<TaskView>,
    /// Below it there may be more.
    rest: Option<Offset>,
}
