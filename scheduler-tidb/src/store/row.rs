//! Rows in bulk: inserted, deleted and locked in statements of bounded size.

use scheduler_core::id::{Offset, ShardId, TaskId};
use scheduler_core::time::Timestamp;
use sqlx::query_builder::Separated;
use sqlx::{MySql, MySqlConnection, QueryBuilder};

/// Most rows of one statement.
const ROWS: usize = 256;
/// About how many bytes a statement grows to.
const BYTES: usize = 4 << 20;
/// The last second that a `DATETIME` can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// The values of a row, one by one.
pub(super) type Values<'a> = Separated<'a, MySql, &'static str>;

/// Writes rows, in statements of bounded size: `head` up to `VALUES`, `tail` after the last row.
pub(super) async fn write<T>(
    connection: &mut MySqlConnection,
    head: &str,
    tail: &str,
    rows: &[T],
    weight: impl Fn(&T) -> usize,
    mut put: impl FnMut(&mut Values<'_>, &T),
) -> Result<(), sqlx::Error> {
    let mut rest = rows;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(ROWS).take_while(|row| {
            let fits = bytes < BYTES;
            bytes += weight(row);
            fits
        });
        let (now, later) = rest.split_at(fits.count());
        rest = later;
        let mut query = QueryBuilder::<MySql>::new(head);
        query.push(" ");
        query.push_values(now, |mut values, row| put(&mut values, row));
        query.push(" ");
        query.push(tail);
        // Statements of all sizes would fill the cache of prepared ones.
        let query = query.build().persistent(now.len().is_power_of_two());
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes tasks; answers how many there were.
pub(super) async fn delete(
    connection: &mut MySqlConnection,
    table: &'static str,
    ids: &[TaskId],
) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    for ids in ids.chunks(ROWS) {
        let mut query = QueryBuilder::<MySql>::new("DELETE FROM ");
        query.push(table);
        query.push(" WHERE (pipeline, partition_no, task_offset) IN ");
        query.push_tuples(ids, |mut values, id| task(&mut values, id.shard, id.offset));
        let query = query.build().persistent(ids.len().is_power_of_two());
        deleted += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(deleted)
}

/// The columns `pipeline, partition_no`.
pub(super) fn shard(values: &mut Values<'_>, shard: ShardId) {
    values.push_bind(shard.pipeline.0).push_bind(shard.partition.0);
}

/// The columns `pipeline, partition_no, task_offset`.
pub(super) fn task(values: &mut Values<'_>, of: ShardId, offset: Offset) {
    shard(values, of);
    values.push_bind(offset.0);
}

/// The columns `expire_at, expire_on`.
pub(super) fn expiry(values: &mut Values<'_>, at: Timestamp) {
    let second = Some(at.as_millis() / 1000).filter(|&second| second <= LAST_SECOND);
    values.push_bind(at.as_millis());
    values
        .push("TIMESTAMPADD(SECOND, ")
        .push_bind_unseparated(second)
        .push_unseparated(", '1970-01-01 00:00:00')");
}

/// A number of rows for `LIMIT`.
pub(super) fn limit(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
