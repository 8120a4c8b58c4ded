//! Checkpoints: claimed, saved and released under fencing; and the tasks that they park.

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, Epoch, NodeId, Offset, PipelineId, ShardId, TaskId, Tenure};
use scheduler_core::key::{KeyHash, SeenKey};
use scheduler_core::outcome::ParkedTask;
use scheduler_core::port::store::{CheckpointStore, Claimed, Saved, StoreError};
use scheduler_core::time::Timestamp;

use super::EmbeddedStore;
use super::archive::{add_dead, add_to_dead_count, remove_dead};
use super::results;
use super::shard_row::ShardRow;
use super::staged::Staged;
use crate::codec::{Decoder, Encode, decode_parked, encode_dead, encode_parked};
use crate::engine::{Engine, Key, Space, Table};
use crate::error::{Corrupt, store_damaged, store_unavailable};

/// How many rows of a forgotten pipeline are removed in one commit.
const FORGET_AT_ONCE: usize = 1024;

pub(crate) fn parked_key(shard: ShardId, offset: Offset) -> Key {
    Key::of(Table::Parked).shard(shard).u64(offset.0)
}

fn parked_by_time_key(shard: ShardId, wake_at: Timestamp, offset: Offset) -> Key {
    Key::of(Table::ParkedByTime)
        .shard(shard)
        .u64(wake_at.as_millis())
        .u64(offset.0)
}

pub(crate) fn decode_parked_row(shard: ShardId, value: Bytes) -> Result<ParkedTask, StoreError> {
    let whole = value.len();
    let mut from = Decoder::new(value);
    let task = decode_parked(&mut from, whole).and_then(|task| from.end().map(|()| task));
    task.map_err(store_damaged(format!("a parked task of {shard}")))
}

/// When the parked task at `offset` is due, if there is one.
fn wake_at(staged: &Staged<'_>, shard: ShardId, offset: Offset) -> Result<Option<Timestamp>, StoreError> {
    let Some(row) = staged.get(Space::Rows, &parked_key(shard, offset))? else {
        return Ok(None);
    };
    Decoder::new(row)
        .timestamp()
        .map(Some)
        .map_err(store_damaged(format!("parked task {}", shard.task(offset))))
}

fn unpark(staged: &mut Staged<'_>, shard: ShardId, offset: Offset) -> Result<(), StoreError> {
    if let Some(wake_at) = wake_at(staged, shard, offset)? {
        staged.remove(Space::Rows, parked_key(shard, offset));
        staged.remove(Space::Rows, parked_by_time_key(shard, wake_at, offset));
    }
    Ok(())
}

/// The parked task at `offset`, if there is one.
pub(crate) fn load_parked(
    engine: &Engine,
    shard: ShardId,
    offset: Offset,
) -> Result<Option<ParkedTask>, StoreError> {
    let staged = Staged::new(engine);
    let Some(wake_at) = wake_at(&staged, shard, offset)? else {
        return Ok(None);
    };
    let row = engine
        .row(parked_by_time_key(shard, wake_at, offset).bytes())
        .map_err(store_unavailable)?;
    row.map(|row| decode_parked_row(shard, row)).transpose()
}

fn seen_key(shard: ShardId, hash: KeyHash) -> Key {
    Key::of(Table::IdempotencyKey)
        .shard(shard)
        .raw(&hash.0.to_be_bytes())
}

/// Keeps an idempotency key, in place of an older one of the same hash.
fn add_seen(staged: &mut Staged<'_>, shard: ShardId, seen: &SeenKey) -> Result<(), StoreError> {
    let key = seen_key(shard, seen.hash);
    if let Some(old) = staged.get(Space::Rows, &key)? {
        let old = decode_seen(seen.hash, old).map_err(store_damaged("an idempotency key"))?;
        staged.remove(
            Space::Rows,
            expiry_key(old.expires_at, Expiring::IdempotencyKey, key.bytes()),
        );
    }
    staged.put(
        Space::Rows,
        expiry_key(seen.expires_at, Expiring::IdempotencyKey, key.bytes()),
        Bytes::new(),
    );
    let mut row = Vec::with_capacity(16);
    row.timestamp(seen.expires_at);
    row.number(seen.offset.0);
    staged.put(Space::Rows, key, row);
    Ok(())
}

fn decode_seen(hash: KeyHash, row: Bytes) -> Result<SeenKey, Corrupt> {
    let mut from = Decoder::new(row);
    let seen = SeenKey {
        hash,
        expires_at: from.timestamp()?,
        offset: Offset(from.u64()?),
    };
    from.end().map(|()| seen)
}

/// A checkpoint as rows, made before any thread has to wait for a disk.
struct Prepared {
    tenure: Tenure,
    id: CheckpointId,
    resume: Offset,
    state: Bytes,
    results: Vec<(Key, Vec<u8>)>,
    expire_results: Timestamp,
    revived: Vec<Offset>,
    dead: Vec<(Offset, Vec<u8>)>,
    expire_dead: Timestamp,
    unparked: Vec<Offset>,
    parked: Vec<(Offset, Timestamp, Vec<u8>)>,
    keys: Vec<SeenKey>,
}

impl Prepared {
    fn new(checkpoint: &Checkpoint) -> Self {
        let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            encode(&mut out);
            out
        };
        Self {
            tenure: checkpoint.tenure,
            id: checkpoint.id,
            resume: checkpoint.resume,
            state: checkpoint.state.clone(),
            results: results::pack(checkpoint.tenure, checkpoint.id, &checkpoint.finished),
            expire_results: checkpoint.expire_results,
            revived: checkpoint.revived.clone(),
            dead: checkpoint
                .dead
                .iter()
                .map(|t| (t.offset, encoded(&|out| encode_dead(out, t))))
                .collect(),
            expire_dead: checkpoint.expire_dead,
            unparked: checkpoint.unparked.clone(),
            keys: checkpoint.keys.clone(),
            parked: checkpoint
                .parked
                .iter()
                .map(|task| {
                    (
                        task.offset,
                        task.wake_at,
                        encoded(&|out| encode_parked(out, task)),
                    )
                })
                .collect(),
        }
    }

    fn stage(self, staged: &mut Staged<'_>) -> Result<Saved, StoreError> {
        let shard = self.tenure.shard;
        let Some(mut row) = ShardRow::load(staged, shard)? else {
            return Ok(Saved::Fenced { stored: Epoch(0) });
        };
        if !row.is_held_under(self.tenure.epoch) {
            return Ok(Saved::Fenced { stored: row.epoch });
        }
        if self.id < row.checkpoint {
            // Said again after a newer one was saved: all of it is there, or was changed since.
            return Ok(Saved::Done);
        }
        row.checkpoint = self.id;
        row.resume = self.resume;
        row.state = self.state;
        row.save(staged, shard);

        for (key, packed) in self.results {
            if self.expire_results < Timestamp::MAX {
                staged.put(
                    Space::Rows,
                    expiry_key(self.expire_results, Expiring::Results, key.bytes()),
                    Bytes::new(),
                );
            }
            staged.put(Space::Results, key, results::seal(&packed));
        }
        let mut dead = 0;
        for offset in self.revived {
            dead -= i64::from(remove_dead(staged, shard.task(offset))?);
        }
        for (offset, task) in self.dead {
            dead += i64::from(add_dead(staged, shard.task(offset), &task, self.expire_dead)?);
        }
        add_to_dead_count(staged, shard.pipeline, dead)?;
        for key in self.keys {
            add_seen(staged, shard, &key)?;
        }
        for offset in self.unparked {
            unpark(staged, shard, offset)?;
        }
        for (offset, wake_at, task) in self.parked {
            unpark(staged, shard, offset)?;
            let mut due = Vec::new();
            due.timestamp(wake_at);
            staged.put(Space::Rows, parked_key(shard, offset), due);
            staged.put(Space::Rows, parked_by_time_key(shard, wake_at, offset), task);
        }
        Ok(Saved::Done)
    }
}

/// What expires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Expiring {
    Results = 0,
    Dead = 1,
    IdempotencyKey = 2,
}

/// The row that makes something expire.
pub(crate) fn expiry_key(at: Timestamp, what: Expiring, key: &[u8]) -> Key {
    Key::of(Table::Expiry).u64(at.as_millis()).u8(what as u8).raw(key)
}

#[async_trait]
impl CheckpointStore for EmbeddedStore {
    async fn claim(&self, shard: ShardId, node: NodeId) -> Result<Claimed, StoreError> {
        self.write(move |staged| {
            let (row, claimed) = ShardRow::claim(ShardRow::load(staged, shard)?, node);
            row.save(staged, shard);
            Ok(claimed)
        })
        .await
    }

    async fn save(&self, checkpoints: &[&Checkpoint]) -> Result<Vec<Saved>, StoreError> {
        let prepared: Vec<Prepared> = checkpoints
            .iter()
            .map(|&checkpoint| Prepared::new(checkpoint))
            .collect();
        self.write(move |staged| {
            prepared
                .into_iter()
                .map(|checkpoint| checkpoint.stage(staged))
                .collect()
        })
        .await
    }

    async fn release(&self, tenure: Tenure) -> Result<(), StoreError> {
        self.write(move |staged| {
            if let Some(mut row) = ShardRow::load(staged, tenure.shard)?
                && row.is_held_under(tenure.epoch)
            {
                row.released = true;
                row.save(staged, tenure.shard);
            }
            Ok(())
        })
        .await
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        self.read(move |engine| {
            let row = ShardRow::load(&Staged::new(engine), shard)?;
            Ok(row.map_or(Epoch(0), |row| row.epoch))
        })
        .await
    }

    async fn parked(
        &self,
        shard: ShardId,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        self.read(move |engine| {
            use std::ops::Bound::{Excluded, Included};
            let from = match after {
                Some((wake_at, offset)) => Excluded(parked_by_time_key(shard, wake_at, offset)),
                None => Included(parked_by_time_key(shard, Timestamp::ZERO, Offset::ZERO)),
            };
            let last = parked_by_time_key(shard, until, Offset(u64::MAX));
            if matches!(&from, Excluded(key) if key.bytes() >= last.bytes()) {
                return Ok(Vec::new());
            }
            let rows = engine.rows.range::<Key, _>((from, Included(last)));
            rows.take(limit)
                .map(|row| decode_parked_row(shard, row.value().map_err(store_unavailable)?.into()))
                .collect()
        })
        .await
    }

    async fn keys(&self, shard: ShardId, limit: usize) -> Result<Vec<SeenKey>, StoreError> {
        self.read(move |engine| {
            let rows = engine
                .rows
                .range(seen_key(shard, KeyHash(0))..=seen_key(shard, KeyHash(u128::MAX)));
            let decode = |row: fjall::Guard| {
                let (key, row) = row.into_inner().map_err(store_unavailable)?;
                let damaged = || store_damaged(format!("an idempotency key of {shard}"));
                let hash = key
                    .get(9..25)
                    .and_then(|hash| hash.try_into().ok())
                    .ok_or(Corrupt("its hash"));
                let hash = KeyHash(u128::from_be_bytes(hash.map_err(damaged())?));
                decode_seen(hash, row.into()).map_err(damaged())
            };
            rows.take(limit).map(decode).collect()
        })
        .await
    }

    async fn parked_task(&self, id: TaskId) -> Result<Option<ParkedTask>, StoreError> {
        self.read(move |engine| load_parked(engine, id.shard, id.offset))
            .await
    }

    async fn forget(&self, pipeline: PipelineId) -> Result<(), StoreError> {
        // The shards go first: from then on nothing is saved of the pipeline.
        let bare = Key::bare().pipeline(pipeline);
        self.forget_prefix(Space::Shards, bare.clone()).await?;
        self.forget_prefix(Space::Results, bare).await?;
        for table in [
            Table::Parked,
            Table::ParkedByTime,
            Table::Dead,
            Table::DeadCount,
            Table::IdempotencyKey,
        ] {
            self.forget_prefix(Space::Rows, Key::of(table).pipeline(pipeline))
                .await?;
        }
        Ok(())
    }
}

impl EmbeddedStore {
    async fn forget_prefix(&self, space: Space, prefix: Key) -> Result<(), StoreError> {
        loop {
            let prefix = prefix.clone();
            let removed: usize = self
                .write(move |staged| {
                    let engine = staged.engine();
                    let rows = engine.keyspace(space);
                    for row in rows.prefix(prefix).take(FORGET_AT_ONCE) {
                        let key = row.key().map_err(store_unavailable)?;
                        staged.remove(space, Key::bare().raw(&key));
                    }
                    Ok::<_, StoreError>(staged.len())
                })
                .await?;
            if removed < FORGET_AT_ONCE {
                return Ok(());
            }
        }
    }
}

/// The offset at the end of a key that is `len` bytes long.
pub(crate) fn last_offset(key: &[u8], len: usize) -> Result<Offset, Corrupt> {
    if key.len() != len {
        return Err(Corrupt("a key of another length"));
    }
    Key::number_at(key, len - 8)
        .map(Offset)
        .ok_or(Corrupt("an offset"))
}
