//! Shards: claimed and released, and what their next owner loads.

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::codec::Reader;
use scheduler_core::encoding;
use scheduler_core::id::{Epoch, NodeId, Offset, PipelineId, ShardId, TaskId, Tenure};
use scheduler_core::key::{KeyHash, SeenKey};
use scheduler_core::outcome::ParkedTask;
use scheduler_core::port::store::{CheckpointStore, Claimed, PreviousOwner, Saved, StoreError};
use scheduler_core::time::Timestamp;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::TidbStore;
use super::row::limit;
use crate::database::tries;
use crate::error::{DUPLICATE, Fail, damaged, number};
use crate::packed;

/// How many rows of a forgotten pipeline are removed in one transaction.
const FORGET_AT_ONCE: u32 = 1000;
/// The same of rows that may be large.
const FORGET_LARGE_AT_ONCE: u32 = 100;

/// Tables with rows of pipelines. The shards go first: from then on nothing is saved.
const TABLES: [(&str, u32); 6] = [
    ("shard", FORGET_AT_ONCE),
    ("shard_state", FORGET_LARGE_AT_ONCE),
    ("result_segment", FORGET_LARGE_AT_ONCE),
    ("dead_task", FORGET_LARGE_AT_ONCE),
    ("parked_task", FORGET_LARGE_AT_ONCE),
    ("idempotency_key", FORGET_AT_ONCE),
];

async fn claim(
    connection: &mut MySqlConnection,
    shard: ShardId,
    node: NodeId,
) -> Result<Claimed, Fail<StoreError>> {
    type Row = (u32, Vec<u8>, bool, u64, u32, u64);
    let mut tx = connection.begin().await?;
    let row: Option<Row> = sqlx::query_as(
        "SELECT epoch, node, released, checkpoint, barren_epochs, resume_offset FROM shard \
         WHERE pipeline = ? AND partition_no = ? FOR UPDATE",
    )
    .bind(shard.pipeline.0)
    .bind(shard.partition.0)
    .fetch_optional(&mut *tx)
    .await?;
    let me = node.0.to_be_bytes();
    let Some((old, last, released, checkpoint, barren, resume)) = row else {
        let added = sqlx::query(
            "INSERT INTO shard (pipeline, partition_no, epoch, node, released, checkpoint, barren_epochs, resume_offset, \
             state_pieces) VALUES (?, ?, 1, ?, FALSE, 0, 0, 0, 0)",
        )
        .bind(shard.pipeline.0)
        .bind(shard.partition.0)
        .bind(&me[..])
        .execute(&mut *tx)
        .await;
        if let Err(error) = added {
            let raced = number(&error) == Some(DUPLICATE);
            return Err(if raced { Fail::Raced } else { error.into() });
        }
        tx.commit().await?;
        return Ok(Claimed {
            epoch: Epoch(1),
            previous: PreviousOwner::None,
            resume: Offset::ZERO,
            state: Bytes::new(),
            barren_epochs: 0,
        });
    };
    let barren_epochs = match (released, checkpoint) {
        (false, 0) if last == me => barren,
        (false, 0) => barren.saturating_add(1),
        _ => 0,
    };
    let epoch = old.saturating_add(1);
    let raised = sqlx::query(
        "UPDATE shard SET epoch = ?, node = ?, released = FALSE, checkpoint = 0, barren_epochs = ? \
         WHERE pipeline = ? AND partition_no = ? AND epoch = ?",
    )
    .bind(epoch)
    .bind(&me[..])
    .bind(barren_epochs)
    .bind(shard.pipeline.0)
    .bind(shard.partition.0)
    .bind(old)
    .execute(&mut *tx)
    .await?;
    if raised.rows_affected() != 1 {
        return Err(Fail::Raced);
    }
    // Locking reads what is newest; the transaction's own view is from before it had the shard.
    let pieces: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT body FROM shard_state WHERE pipeline = ? AND partition_no = ? ORDER BY piece FOR UPDATE",
    )
    .bind(shard.pipeline.0)
    .bind(shard.partition.0)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let state = if pieces.is_empty() {
        Bytes::new()
    } else {
        packed::open(pieces.concat().into()).map_err(damaged(format!("the state of shard {shard}")))?
    };
    Ok(Claimed {
        epoch: Epoch(epoch),
        previous: if released {
            PreviousOwner::Released
        } else {
            PreviousOwner::Vanished
        },
        resume: Offset(resume),
        state,
        barren_epochs,
    })
}

/// The parked task of a row.
pub(super) fn parked_task(shard: ShardId, body: Vec<u8>) -> Result<ParkedTask, StoreError> {
    let open = || encoding::parked_task(&mut Reader::new(packed::open(body.into())?));
    open().map_err(damaged(format!("a parked task of {shard}")))
}

fn parked_tasks(shard: ShardId, bodies: Vec<Vec<u8>>) -> Result<Vec<ParkedTask>, StoreError> {
    bodies.into_iter().map(|body| parked_task(shard, body)).collect()
}

#[async_trait]
impl CheckpointStore for TidbStore {
    async fn claim(&self, shard: ShardId, node: NodeId) -> Result<Claimed, StoreError> {
        tries!(self.database, |connection| claim(connection, shard, node))
    }

    async fn save(&self, checkpoints: &[&Checkpoint]) -> Result<Vec<Saved>, StoreError> {
        self.save_all(checkpoints).await
    }

    async fn release(&self, tenure: Tenure) -> Result<(), StoreError> {
        tries!(self.database, |connection| async {
            sqlx::query(
                "UPDATE shard SET released = TRUE WHERE pipeline = ? AND partition_no = ? AND epoch = ?",
            )
            .bind(tenure.shard.pipeline.0)
            .bind(tenure.shard.partition.0)
            .bind(tenure.epoch.0)
            .execute(connection)
            .await?;
            Ok(())
        })
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        let epoch: Option<u32> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar("SELECT epoch FROM shard WHERE pipeline = ? AND partition_no = ?")
                .bind(shard.pipeline.0)
                .bind(shard.partition.0);
            Ok::<_, Fail<StoreError>>(query.fetch_optional(connection).await?)
        })?;
        Ok(Epoch(epoch.unwrap_or_default()))
    }

    async fn parked(
        &self,
        shard: ShardId,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        at_most: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        let (from, offset, inclusive) = match after {
            Some((wake_at, offset)) => (wake_at, offset, false),
            None => (Timestamp::ZERO, Offset::ZERO, true),
        };
        let bodies: Vec<Vec<u8>> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar(
                "SELECT body FROM parked_task WHERE pipeline = ? AND partition_no = ? AND wake_at >= ? AND wake_at <= ? \
                 AND (? OR wake_at > ? OR task_offset > ?) ORDER BY wake_at, task_offset LIMIT ?",
            )
            .bind(shard.pipeline.0)
            .bind(shard.partition.0)
            .bind(from.as_millis())
            .bind(until.as_millis())
            .bind(inclusive)
            .bind(from.as_millis())
            .bind(offset.0)
            .bind(limit(at_most));
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })?;
        parked_tasks(shard, bodies)
    }

    async fn keys(&self, shard: ShardId, at_most: usize) -> Result<Vec<SeenKey>, StoreError> {
        let rows: Vec<(Vec<u8>, u64, u64)> = tries!(self.database, |connection| async {
            let query = sqlx::query_as(
                "SELECT hash, task_offset, expire_at FROM idempotency_key \
                 WHERE pipeline = ? AND partition_no = ? AND expire_at > ? LIMIT ?",
            )
            .bind(shard.pipeline.0)
            .bind(shard.partition.0)
            .bind(self.horizon())
            .bind(limit(at_most));
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })?;
        let key = |(hash, offset, expires_at): (Vec<u8>, u64, u64)| {
            let hash = <[u8; 16]>::try_from(hash).map_err(|_| StoreError::Damaged {
                place: format!("an idempotency key of {shard}"),
                source: "its hash has not 16 bytes".into(),
            })?;
            Ok(SeenKey {
                hash: KeyHash(u128::from_be_bytes(hash)),
                offset: Offset(offset),
                expires_at: Timestamp::from_millis(expires_at),
            })
        };
        rows.into_iter().map(key).collect()
    }

    async fn parked_task(&self, id: TaskId) -> Result<Option<ParkedTask>, StoreError> {
        let body: Option<Vec<u8>> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar(
                "SELECT body FROM parked_task WHERE pipeline = ? AND partition_no = ? AND task_offset = ?",
            )
            .bind(id.shard.pipeline.0)
            .bind(id.shard.partition.0)
            .bind(id.offset.0);
            Ok::<_, Fail<StoreError>>(query.fetch_optional(connection).await?)
        })?;
        body.map(|body| parked_task(id.shard, body)).transpose()
    }

    async fn forget(&self, pipeline: PipelineId) -> Result<(), StoreError> {
        for (table, at_once) in TABLES {
            let sql = format!("DELETE FROM {table} WHERE pipeline = ? LIMIT ?");
            loop {
                let removed: u64 = tries!(self.database, |connection| async {
                    let query = sqlx::query(AssertSqlSafe(sql.as_str()))
                        .bind(pipeline.0)
                        .bind(at_once);
                    Ok::<_, Fail<StoreError>>(query.execute(connection).await?.rows_affected())
                })?;
                if removed < at_once.into() {
                    break;
                }
            }
        }
        Ok(())
    }
}
