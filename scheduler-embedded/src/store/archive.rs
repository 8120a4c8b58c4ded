//! What has ended: results and dead letters, found by id, listed, and forgotten in time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::id::{Offset, PipelineId, ShardId, TaskId};
use scheduler_core::outcome::{DeadTask, FinishedTask, ParkedTask};
use scheduler_core::port::store::{Archive, StoreError};
use scheduler_core::time::Timestamp;

use super::EmbeddedStore;
use super::checkpoint::{Expiring, expiry_key, last_offset, load_parked, parked_key};
use super::results;
use super::staged::Staged;
use crate::codec::{Decoder, Encode, decode_dead};
use crate::engine::{Key, Space, Table};
use crate::error::{Corrupt, store_damaged, store_unavailable};

/// How many rows one call of [`Archive::expire`] forgets.
const EXPIRE_AT_ONCE: usize = 1024;

fn dead_key(id: TaskId) -> Key {
    Key::of(Table::Dead).shard(id.shard).u64(id.offset.0)
}

fn dead_count_key(pipeline: PipelineId) -> Key {
    Key::of(Table::DeadCount).pipeline(pipeline)
}

/// Keeps a dead letter; answers whether it is a new one.
pub(crate) fn add_dead(
    staged: &mut Staged<'_>,
    id: TaskId,
    task: &[u8],
    expire_at: Timestamp,
) -> Result<bool, StoreError> {
    let new = !remove_dead(staged, id)?;
    let key = dead_key(id);
    if expire_at < Timestamp::MAX {
        staged.put(
            Space::Rows,
            expiry_key(expire_at, Expiring::Dead, key.bytes()),
            Bytes::new(),
        );
    }
    let mut row = Vec::with_capacity(task.len() + 10);
    row.timestamp(expire_at);
    row.raw(task);
    staged.put(Space::Rows, key, row);
    Ok(new)
}

/// Forgets a dead letter; answers whether there was one.
pub(crate) fn remove_dead(staged: &mut Staged<'_>, id: TaskId) -> Result<bool, StoreError> {
    let key = dead_key(id);
    let Some(row) = staged.get(Space::Rows, &key)? else {
        return Ok(false);
    };
    let expire_at = Decoder::new(row)
        .timestamp()
        .map_err(store_damaged(format!("dead task {id}")))?;
    staged.remove(Space::Rows, expiry_key(expire_at, Expiring::Dead, key.bytes()));
    staged.remove(Space::Rows, key);
    Ok(true)
}

fn dead_count(row: Option<Bytes>, pipeline: PipelineId) -> Result<u64, StoreError> {
    let count = row.map_or(Ok(0), |row| Decoder::new(row).u64());
    count.map_err(store_damaged(format!(
        "the count of dead tasks of pipeline {}",
        pipeline.0
    )))
}

pub(crate) fn add_to_dead_count(
    staged: &mut Staged<'_>,
    pipeline: PipelineId,
    change: i64,
) -> Result<(), StoreError> {
    if change == 0 {
        return Ok(());
    }
    let key = dead_count_key(pipeline);
    let count = dead_count(staged.get(Space::Rows, &key)?, pipeline)?;
    let mut row = Vec::new();
    row.number(count.saturating_add_signed(change));
    staged.put(Space::Rows, key, row);
    Ok(())
}

fn decode_dead_row(shard: ShardId, row: Bytes) -> Result<DeadTask, StoreError> {
    let whole = row.len();
    let mut from = Decoder::new(row);
    let task = from.timestamp().and_then(|_| decode_dead(&mut from, whole));
    task.and_then(|task| from.end().map(|()| task))
        .map_err(store_damaged(format!("a dead task of {shard}")))
}

#[async_trait]
impl Archive for EmbeddedStore {
    async fn result(&self, id: TaskId) -> Result<Option<FinishedTask>, StoreError> {
        self.read(move |engine| {
            // The newest first: should two epochs both have ended the task, the later word counts.
            for row in engine
                .results
                .prefix(results::stretch_prefix(id.shard, id.offset))
                .rev()
            {
                let row = row.value().map_err(store_unavailable)?;
                let tasks =
                    results::open(row.into()).map_err(store_damaged(format!("results of {}", id.shard)))?;
                if let Ok(at) = tasks.binary_search_by_key(&id.offset, |task| task.offset) {
                    return Ok(tasks.into_iter().nth(at));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn results(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<FinishedTask>, StoreError> {
        self.read(move |engine| {
            let mut highest: BTreeMap<Offset, FinishedTask> = BTreeMap::new();
            let mut stretch = None;
            for row in engine.results.range(results::range_below(shard, before)).rev() {
                let (key, row) = row.into_inner().map_err(store_unavailable)?;
                let of = results::stretch_of(&key);
                if of != stretch && highest.len() >= limit {
                    break;
                }
                stretch = of;
                let tasks =
                    results::open(row.into()).map_err(store_damaged(format!("results of {shard}")))?;
                for task in tasks.into_iter().filter(|task| task.offset < before) {
                    highest.entry(task.offset).or_insert(task);
                }
                while highest.len() > limit {
                    highest.pop_first();
                }
            }
            Ok(highest.into_values().rev().collect())
        })
        .await
    }

    async fn dead_task(&self, id: TaskId) -> Result<Option<DeadTask>, StoreError> {
        self.read(move |engine| {
            let row = engine.row(dead_key(id).bytes()).map_err(store_unavailable)?;
            row.map(|row| decode_dead_row(id.shard, row)).transpose()
        })
        .await
    }

    async fn dead_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<DeadTask>, StoreError> {
        self.read(move |engine| {
            let range = dead_key(shard.task(Offset::ZERO))..dead_key(shard.task(before));
            let rows = engine.rows.range(range).rev().take(limit);
            rows.map(|row| decode_dead_row(shard, row.value().map_err(store_unavailable)?.into()))
                .collect()
        })
        .await
    }

    async fn dead_count(&self, pipeline: PipelineId) -> Result<u64, StoreError> {
        self.read(move |engine| {
            dead_count(
                engine
                    .row(dead_count_key(pipeline).bytes())
                    .map_err(store_unavailable)?,
                pipeline,
            )
        })
        .await
    }

    async fn parked_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        self.read(move |engine| {
            let range = parked_key(shard, Offset::ZERO)..parked_key(shard, before);
            let mut tasks = Vec::new();
            for row in engine.rows.range(range).rev() {
                if tasks.len() == limit {
                    break;
                }
                let key = row.key().map_err(store_unavailable)?;
                let offset =
                    last_offset(&key, 17).map_err(store_damaged(format!("a parked task of {shard}")))?;
                // One that was woken between the two looks is no longer parked.
                tasks.extend(load_parked(engine, shard, offset)?);
            }
            Ok(tasks)
        })
        .await
    }

    async fn purge(&self, ids: &[TaskId]) -> Result<u64, StoreError> {
        let ids = ids.to_vec();
        self.write(move |staged| {
            let mut purged = 0;
            for id in ids {
                if remove_dead(staged, id)? {
                    purged += 1;
                    add_to_dead_count(staged, id.shard.pipeline, -1)?;
                }
            }
            Ok(purged)
        })
        .await
    }

    async fn expire(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.write(move |staged| {
            let due = Key::of(Table::Expiry)..Key::of(Table::Expiry).u64(now.as_millis().saturating_add(1));
            let mut looked_at = 0;
            for row in staged.engine().rows.range(due).take(EXPIRE_AT_ONCE) {
                let key = row.key().map_err(store_unavailable)?;
                expire_one(staged, &key)?;
                looked_at += 1;
            }
            Ok(looked_at == EXPIRE_AT_ONCE)
        })
        .await
    }
}

/// Forgets what the expiry row `key` is about, and the row.
fn expire_one(staged: &mut Staged<'_>, key: &[u8]) -> Result<(), StoreError> {
    let damaged = || store_damaged("an expiry row")(Corrupt("an expiry row's key"));
    let what = key.get(9).ok_or_else(damaged)?;
    let about = &key[10..];
    if *what == Expiring::Results as u8 {
        staged.remove(Space::Results, Key::bare().raw(about));
    } else if *what == Expiring::IdempotencyKey as u8 {
        // Its expiry row goes with an older key of the hash, so this one is about the key that is there.
        staged.remove(Space::Rows, Key::bare().raw(about));
    } else {
        let number = |at: usize| Key::number_at(about, at).ok_or_else(damaged);
        let (shard, offset) = (number(1)?, number(9)?);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
        let (pipeline, partition) = ((shard >> 32) as u32, shard as u32);
        let shard = ShardId::new(PipelineId(pipeline), scheduler_core::id::Partition(partition));
        // A dead letter's expiry row goes with it, so this one is about the letter that is there.
        if remove_dead(staged, shard.task(Offset(offset)))? {
            add_to_dead_count(staged, shard.pipeline, -1)?;
        }
    }
    staged.remove(Space::Rows, Key::bare().raw(key));
    Ok(())
}
