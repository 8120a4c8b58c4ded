//! What has ended: results and dead letters, found by id, listed, and forgotten in time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use scheduler_core::codec::Reader;
use scheduler_core::encoding;
use scheduler_core::id::{Offset, PipelineId, ShardId, TaskId};
use scheduler_core::outcome::{DeadTask, FinishedTask, ParkedTask};
use scheduler_core::port::store::{Archive, StoreError};
use scheduler_core::time::Timestamp;
use sqlx::AssertSqlSafe;

use super::TidbStore;
use super::checkpoint::parked_task;
use super::row::{self, limit};
use crate::database::tries;
use crate::error::{Fail, damaged};
use crate::packed;

/// How many rows of results a list reads at once.
const SEGMENTS_AT_ONCE: usize = 16;
/// Tables with rows that expire, and how many one call of [`Archive::expire`] removes of each.
const EXPIRING: [(&str, u32); 3] = [
    ("result_segment", 128),
    ("dead_task", 256),
    ("idempotency_key", 2048),
];

/// First offset, epoch and checkpoint: the key of a row of results.
type SegmentKey = (u64, u32, u64);

fn results(shard: ShardId, body: Vec<u8>) -> Result<Vec<FinishedTask>, StoreError> {
    packed::unpack(body.into()).map_err(damaged(format!("results of {shard}")))
}

fn dead_task(shard: ShardId, body: Vec<u8>) -> Result<DeadTask, StoreError> {
    let open = || encoding::dead_task(&mut Reader::new(packed::open(body.into())?));
    open().map_err(damaged(format!("a dead task of {shard}")))
}

impl TidbStore {
    /// Rows of results with keys below `below`, the highest first.
    async fn segments(
        &self,
        shard: ShardId,
        (first, epoch, checkpoint): SegmentKey,
    ) -> Result<Vec<(u64, u32, u64, Vec<u8>)>, StoreError> {
        tries!(self.database, |connection| async {
            let query = sqlx::query_as(
                "SELECT first_offset, epoch, checkpoint, body FROM result_segment \
                 WHERE pipeline = ? AND partition_no = ? AND first_offset <= ? \
                 AND (first_offset < ? OR epoch < ? OR (epoch = ? AND checkpoint < ?)) AND expire_at > ? \
                 ORDER BY first_offset DESC, epoch DESC, checkpoint DESC LIMIT ?",
            )
            .bind(shard.pipeline.0)
            .bind(shard.partition.0)
            .bind(first)
            .bind(first)
            .bind(epoch)
            .bind(epoch)
            .bind(checkpoint)
            .bind(self.horizon())
            .bind(limit(SEGMENTS_AT_ONCE));
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })
    }
}

#[async_trait]
impl Archive for TidbStore {
    async fn result(&self, id: TaskId) -> Result<Option<FinishedTask>, StoreError> {
        // The newest first: should two epochs both have ended the task, the later word counts.
        let bodies: Vec<Vec<u8>> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar(
                "SELECT body FROM result_segment WHERE pipeline = ? AND partition_no = ? \
                 AND first_offset >= ? AND first_offset <= ? AND last_offset >= ? AND expire_at > ? \
                 ORDER BY epoch DESC, checkpoint DESC",
            )
            .bind(id.shard.pipeline.0)
            .bind(id.shard.partition.0)
            .bind(id.offset.0.saturating_sub(packed::SPAN - 1))
            .bind(id.offset.0)
            .bind(id.offset.0)
            .bind(self.horizon());
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })?;
        for body in bodies {
            let tasks = results(id.shard, body)?;
            if let Ok(at) = tasks.binary_search_by_key(&id.offset, |task| task.offset) {
                return Ok(tasks.into_iter().nth(at));
            }
        }
        Ok(None)
    }

    async fn results(
        &self,
        shard: ShardId,
        before: Offset,
        at_most: usize,
    ) -> Result<Vec<FinishedTask>, StoreError> {
        let mut highest: BTreeMap<Offset, ((u32, u64), FinishedTask)> = BTreeMap::new();
        let Some(last) = before.0.checked_sub(1).filter(|_| at_most > 0) else {
            return Ok(Vec::new());
        };
        let mut below = (last, u32::MAX, u64::MAX);
        loop {
            let rows = self.segments(shard, below).await?;
            let is_last = rows.len() < SEGMENTS_AT_ONCE;
            for (first, epoch, checkpoint, body) in rows {
                below = (first, epoch, checkpoint);
                let lowest = highest.first_key_value().map(|(offset, _)| offset.0);
                let reaches = first.saturating_add(packed::SPAN - 1);
                if highest.len() >= at_most && lowest.is_some_and(|lowest| reaches < lowest) {
                    return Ok(highest.into_values().rev().map(|(_, task)| task).collect());
                }
                for task in results(shard, body)?
                    .into_iter()
                    .filter(|task| task.offset < before)
                {
                    let said = (epoch, checkpoint);
                    if highest.get(&task.offset).is_none_or(|(other, _)| *other < said) {
                        highest.insert(task.offset, (said, task));
                    }
                }
                while highest.len() > at_most {
                    highest.pop_first();
                }
            }
            if is_last {
                return Ok(highest.into_values().rev().map(|(_, task)| task).collect());
            }
        }
    }

    async fn dead_task(&self, id: TaskId) -> Result<Option<DeadTask>, StoreError> {
        let body: Option<Vec<u8>> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar(
                "SELECT body FROM dead_task WHERE pipeline = ? AND partition_no = ? AND task_offset = ? AND expire_at > ?",
            )
            .bind(id.shard.pipeline.0)
            .bind(id.shard.partition.0)
            .bind(id.offset.0)
            .bind(self.horizon());
            Ok::<_, Fail<StoreError>>(query.fetch_optional(connection).await?)
        })?;
        body.map(|body| dead_task(id.shard, body)).transpose()
    }

    async fn dead_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        at_most: usize,
    ) -> Result<Vec<DeadTask>, StoreError> {
        let bodies: Vec<Vec<u8>> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar(
                "SELECT body FROM dead_task WHERE pipeline = ? AND partition_no = ? AND task_offset < ? AND expire_at > ? \
                 ORDER BY task_offset DESC LIMIT ?",
            )
            .bind(shard.pipeline.0)
            .bind(shard.partition.0)
            .bind(before.0)
            .bind(self.horizon())
            .bind(limit(at_most));
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })?;
        bodies.into_iter().map(|body| dead_task(shard, body)).collect()
    }

    async fn dead_count(&self, pipeline: PipelineId) -> Result<u64, StoreError> {
        let count: i64 = tries!(self.database, |connection| async {
            let query =
                sqlx::query_scalar("SELECT COUNT(*) FROM dead_task WHERE pipeline = ? AND expire_at > ?")
                    .bind(pipeline.0)
                    .bind(self.horizon());
            Ok::<_, Fail<StoreError>>(query.fetch_one(connection).await?)
        })?;
        Ok(count.unsigned_abs())
    }

    async fn parked_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        at_most: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        let bodies: Vec<Vec<u8>> = tries!(self.database, |connection| async {
            let query = sqlx::query_scalar(
                "SELECT body FROM parked_task WHERE pipeline = ? AND partition_no = ? AND task_offset < ? \
                 ORDER BY task_offset DESC LIMIT ?",
            )
            .bind(shard.pipeline.0)
            .bind(shard.partition.0)
            .bind(before.0)
            .bind(limit(at_most));
            Ok::<_, Fail<StoreError>>(query.fetch_all(connection).await?)
        })?;
        bodies.into_iter().map(|body| parked_task(shard, body)).collect()
    }

    async fn purge(&self, ids: &[TaskId]) -> Result<u64, StoreError> {
        tries!(self.database, |connection| async {
            Ok(row::delete(connection, "dead_task", ids).await?)
        })
    }

    async fn expire(&self, now: Timestamp) -> Result<bool, StoreError> {
        let now = self.raise_horizon(now);
        let mut more = false;
        for (table, at_once) in EXPIRING {
            let sql = format!("DELETE FROM {table} WHERE expire_at <= ? LIMIT ?");
            let removed: u64 = tries!(self.database, |connection| async {
                let query = sqlx::query(AssertSqlSafe(sql.as_str())).bind(now).bind(at_once);
                Ok::<_, Fail<StoreError>>(query.execute(connection).await?.rows_affected())
            })?;
            more |= removed >= at_once.into();
        }
        Ok(more)
    }
}
