//! Checkpoints of many shards in one transaction.

use std::collections::HashMap;

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::encoding;
use scheduler_core::id::{CheckpointId, Epoch, Offset, ShardId, TaskId};
use scheduler_core::port::store::{Saved, StoreError};
use scheduler_core::time::Timestamp;
use sqlx::{Connection, MySql, MySqlConnection, QueryBuilder};

use super::TidbStore;
use super::row;
use crate::database::tries;
use crate::error::Fail;
use crate::packed::{self, Segment};

/// A state is cut into pieces of this size, each a row: larger ones are slow, and TiDB takes no row beyond 6 MiB.
const PIECE: usize = 512 << 10;
/// About how many bytes of rows a transaction may write: TiDB keeps all of them in memory until it commits.
const TRANSACTION: usize = 64 << 20;
/// Most shards that one statement locks.
const LOCK_AT_ONCE: usize = 1024;

/// Offset, when it wakes, and body.
type ParkedRow = (Offset, Timestamp, Vec<u8>);

/// A checkpoint as rows.
#[derive(Debug)]
struct Rows<'a> {
    of: &'a Checkpoint,
    state: Vec<Bytes>,
    segments: Vec<Segment>,
    /// Offset and body.
    dead: Vec<(Offset, Vec<u8>)>,
    parked: Vec<ParkedRow>,
}

impl<'a> Rows<'a> {
    fn new(of: &'a Checkpoint) -> Self {
        let sealed = |put: &dyn Fn(&mut Vec<u8>)| {
            let mut plain = Vec::new();
            put(&mut plain);
            packed::seal(&plain)
        };
        let state = Bytes::from(packed::seal(&of.state));
        let pieces = (0..state.len())
            .step_by(PIECE)
            .map(|at| state.slice(at..state.len().min(at + PIECE)));
        let dead = of.dead.iter();
        let parked = of.parked.iter();
        Self {
            of,
            state: pieces.collect(),
            segments: packed::pack(&of.finished),
            dead: dead
                .map(|task| (task.offset, sealed(&|out| encoding::put_dead_task(out, task))))
                .collect(),
            parked: parked
                .map(|task| {
                    let body = sealed(&|out| encoding::put_parked_task(out, task));
                    (task.offset, task.wake_at, body)
                })
                .collect(),
        }
    }

    fn shard(&self) -> ShardId {
        self.of.tenure.shard
    }

    fn weight(&self) -> usize {
        let state = self.state.iter().map(Bytes::len);
        let segments = self.segments.iter().map(|segment| segment.body.len());
        let dead = self.dead.iter().map(|(_, body)| body.len());
        let parked = self.parked.iter().map(|(_, _, body)| body.len());
        let small = self.of.keys.len() + self.of.unparked.len() + self.of.revived.len() + 1;
        state.chain(segments).chain(dead).chain(parked).sum::<usize>() + small * 64
    }
}

/// What is stored of a shard.
#[derive(Clone, Copy, Debug)]
struct Stored {
    epoch: Epoch,
    released: bool,
    checkpoint: CheckpointId,
    state_pieces: u32,
}

/// Locks the rows of shards, in the order of their ids, so that two savers wait for each other rather than embrace.
async fn lock(
    connection: &mut MySqlConnection,
    shards: &[ShardId],
) -> Result<HashMap<ShardId, Stored>, sqlx::Error> {
    let mut sorted = shards.to_vec();
    sorted.sort_unstable();
    let mut stored = HashMap::with_capacity(sorted.len());
    for chunk in sorted.chunks(LOCK_AT_ONCE) {
        let mut query = QueryBuilder::<MySql>::new(
            "SELECT pipeline, partition_no, epoch, released, checkpoint, state_pieces FROM shard \
             WHERE (pipeline, partition_no) IN ",
        );
        query.push_tuples(chunk, |mut values, shard| row::shard(&mut values, *shard));
        query.push(" FOR UPDATE");
        let query = query.build_query_as().persistent(chunk.len().is_power_of_two());
        let rows: Vec<(u32, u32, u32, bool, u64, u32)> = query.fetch_all(&mut *connection).await?;
        for (pipeline, partition, epoch, released, checkpoint, state_pieces) in rows {
            let shard = ShardId::new(
                scheduler_core::id::PipelineId(pipeline),
                scheduler_core::id::Partition(partition),
            );
            let row = Stored {
                epoch: Epoch(epoch),
                released,
                checkpoint: CheckpointId(checkpoint),
                state_pieces,
            };
            stored.insert(shard, row);
        }
    }
    Ok(stored)
}

async fn save(
    connection: &mut MySqlConnection,
    checkpoints: &[Rows<'_>],
) -> Result<Vec<Saved>, Fail<StoreError>> {
    let mut tx = connection.begin().await?;
    let shards: Vec<ShardId> = checkpoints.iter().map(Rows::shard).collect();
    let stored = lock(&mut tx, &shards).await?;
    let mut answers = Vec::with_capacity(checkpoints.len());
    let mut apply: Vec<(&Rows<'_>, Stored)> = Vec::with_capacity(checkpoints.len());
    for rows in checkpoints {
        answers.push(match stored.get(&rows.shard()) {
            None => Saved::Fenced { stored: Epoch(0) },
            Some(row) if row.epoch != rows.of.tenure.epoch || row.released => {
                Saved::Fenced { stored: row.epoch }
            }
            Some(row) => {
                // One that came late, after its successor, has nothing to say any more.
                if rows.of.id >= row.checkpoint {
                    apply.push((rows, *row));
                }
                Saved::Done
            }
        });
    }
    write_shards(&mut tx, &apply).await?;
    write_ended(&mut tx, &apply).await?;
    write_waiting(&mut tx, &apply).await?;
    tx.commit().await?;
    Ok(answers)
}

/// The shards' rows and states.
async fn write_shards(
    connection: &mut MySqlConnection,
    apply: &[(&Rows<'_>, Stored)],
) -> Result<(), sqlx::Error> {
    row::write(
        connection,
        "INSERT INTO shard (pipeline, partition_no, epoch, node, released, checkpoint, barren_epochs, resume_offset, state_pieces)",
        // The rows are there, and locked: only what is named here changes.
        "ON DUPLICATE KEY UPDATE checkpoint = VALUES(checkpoint), resume_offset = VALUES(resume_offset), \
         state_pieces = VALUES(state_pieces)",
        apply,
        |_| 64,
        |values, (rows, stored)| {
            row::shard(values, rows.shard());
            values.push_bind(stored.epoch.0);
            values.push("'', FALSE");
            values.push_bind(rows.of.id.0);
            values.push("0");
            values.push_bind(rows.of.resume.0);
            values.push_bind(u32::try_from(rows.state.len()).unwrap_or(u32::MAX));
        },
    )
    .await?;
    let pieces: Vec<(ShardId, u32, &Bytes)> = apply
        .iter()
        .flat_map(|(rows, _)| {
            (0..)
                .zip(&rows.state)
                .map(|(at, piece)| (rows.shard(), at, piece))
        })
        .collect();
    row::write(
        connection,
        "INSERT INTO shard_state (pipeline, partition_no, piece, body)",
        "ON DUPLICATE KEY UPDATE body = VALUES(body)",
        &pieces,
        |(_, _, piece)| piece.len(),
        |values, (shard, at, piece)| {
            row::shard(values, *shard);
            values.push_bind(*at).push_bind(&piece[..]);
        },
    )
    .await?;
    for (rows, stored) in apply {
        let pieces = u32::try_from(rows.state.len()).unwrap_or(u32::MAX);
        if pieces < stored.state_pieces {
            sqlx::query("DELETE FROM shard_state WHERE pipeline = ? AND partition_no = ? AND piece >= ?")
                .bind(rows.shard().pipeline.0)
                .bind(rows.shard().partition.0)
                .bind(pieces)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// Results and dead letters.
async fn write_ended(
    connection: &mut MySqlConnection,
    apply: &[(&Rows<'_>, Stored)],
) -> Result<(), sqlx::Error> {
    let segments: Vec<(&Checkpoint, &Segment)> = apply
        .iter()
        .flat_map(|(rows, _)| rows.segments.iter().map(|segment| (rows.of, segment)))
        .collect();
    row::write(
        connection,
        "INSERT INTO result_segment (pipeline, partition_no, first_offset, epoch, checkpoint, last_offset, expire_at, expire_on, body)",
        "ON DUPLICATE KEY UPDATE last_offset = VALUES(last_offset), expire_at = VALUES(expire_at), \
         expire_on = VALUES(expire_on), body = VALUES(body)",
        &segments,
        |(_, segment)| segment.body.len(),
        |values, (of, segment)| {
            row::task(values, of.tenure.shard, segment.first);
            values.push_bind(of.tenure.epoch.0).push_bind(of.id.0);
            values.push_bind(segment.last.0);
            row::expiry(values, of.expire_results);
            values.push_bind(&segment.body[..]);
        },
    )
    .await?;
    let revived = ids(apply, |of| &of.revived);
    row::delete(connection, "dead_task", &revived).await?;
    let dead: Vec<(&Checkpoint, &(Offset, Vec<u8>))> = apply
        .iter()
        .flat_map(|(rows, _)| rows.dead.iter().map(|task| (rows.of, task)))
        .collect();
    row::write(
        connection,
        "INSERT INTO dead_task (pipeline, partition_no, task_offset, expire_at, expire_on, body)",
        "ON DUPLICATE KEY UPDATE expire_at = VALUES(expire_at), expire_on = VALUES(expire_on), body = VALUES(body)",
        &dead,
        |(_, (_, body))| body.len(),
        |values, (of, (offset, body))| {
            row::task(values, of.tenure.shard, *offset);
            row::expiry(values, of.expire_dead);
            values.push_bind(&body[..]);
        },
    )
    .await
}

/// Parked tasks and idempotency keys.
async fn write_waiting(
    connection: &mut MySqlConnection,
    apply: &[(&Rows<'_>, Stored)],
) -> Result<(), sqlx::Error> {
    let unparked = ids(apply, |of| &of.unparked);
    row::delete(connection, "parked_task", &unparked).await?;
    let parked: Vec<(ShardId, &ParkedRow)> = apply
        .iter()
        .flat_map(|(rows, _)| rows.parked.iter().map(|task| (rows.shard(), task)))
        .collect();
    row::write(
        connection,
        "INSERT INTO parked_task (pipeline, partition_no, task_offset, wake_at, body)",
        "ON DUPLICATE KEY UPDATE wake_at = VALUES(wake_at), body = VALUES(body)",
        &parked,
        |(_, (_, _, body))| body.len(),
        |values, (shard, (offset, wake_at, body))| {
            row::task(values, *shard, *offset);
            values.push_bind(wake_at.as_millis()).push_bind(&body[..]);
        },
    )
    .await?;
    let keys: Vec<_> = apply
        .iter()
        .flat_map(|(rows, _)| rows.of.keys.iter().map(|key| (rows.shard(), key)))
        .collect();
    row::write(
        connection,
        "INSERT INTO idempotency_key (pipeline, partition_no, hash, task_offset, expire_at, expire_on)",
        "ON DUPLICATE KEY UPDATE task_offset = VALUES(task_offset), expire_at = VALUES(expire_at), expire_on = VALUES(expire_on)",
        &keys,
        |_| 64,
        |values, (shard, key)| {
            row::shard(values, *shard);
            values.push_bind(&key.hash.0.to_be_bytes()[..]);
            values.push_bind(key.offset.0);
            row::expiry(values, key.expires_at);
        },
    )
    .await
}

fn ids(apply: &[(&Rows<'_>, Stored)], of: impl Fn(&Checkpoint) -> &Vec<Offset>) -> Vec<TaskId> {
    let tasks = |rows: &Rows<'_>| {
        let shard = rows.shard();
        let offsets = of(rows.of).iter();
        offsets.map(|offset| shard.task(*offset)).collect::<Vec<_>>()
    };
    apply.iter().flat_map(|(rows, _)| tasks(rows)).collect()
}

impl TidbStore {
    pub(super) async fn save_all(&self, checkpoints: &[&Checkpoint]) -> Result<Vec<Saved>, StoreError> {
        let mut answers = Vec::with_capacity(checkpoints.len());
        let mut rest = checkpoints;
        while !rest.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some((next, later)) = rest.split_first() {
                let rows = Rows::new(next);
                bytes += rows.weight();
                batch.push(rows);
                rest = later;
                if bytes >= TRANSACTION {
                    break;
                }
            }
            let saved: Result<Vec<Saved>, StoreError> =
                tries!(self.database, |connection| save(connection, &batch));
            answers.extend(saved?);
        }
        Ok(answers)
    }
}
