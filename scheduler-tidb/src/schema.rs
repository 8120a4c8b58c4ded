//! The tables, and how they come to their newest version.
//!
//! A step is never changed once it was released; later ones are added. DDL is not transactional, so each statement may be run again.

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use crate::config::TidbConfig;
use crate::database::Target;
use crate::error::{ConnectError, DENIED, NO_TABLE, number};
use scheduler_core::key::KeyHash;

/// How long a node waits for another one that is at it, in seconds.
const LOCK_SECONDS: u32 = 120;

const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version (
    version INT UNSIGNED NOT NULL,
    applied_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    PRIMARY KEY (version) CLUSTERED)";

/// The statements of each version, from 1. `{ttl}` is ON or OFF.
const STEPS: [&[&str]; 3] = [
    &[
        "CREATE TABLE IF NOT EXISTS catalog_version (
        id TINYINT UNSIGNED NOT NULL,
        version BIGINT UNSIGNED NOT NULL,
        pruned BIGINT UNSIGNED NOT NULL,
        last_pipeline INT UNSIGNED NOT NULL,
        PRIMARY KEY (id) CLUSTERED)",
        "INSERT IGNORE INTO catalog_version (id, version, pruned, last_pipeline) VALUES (1, 0, 0, 0)",
        "CREATE TABLE IF NOT EXISTS catalog_removed (
        kind TINYINT UNSIGNED NOT NULL,
        name VARBINARY(200) NOT NULL,
        changed BIGINT UNSIGNED NOT NULL,
        removed_at DATETIME(6) NOT NULL,
        PRIMARY KEY (kind, name) CLUSTERED,
        KEY by_change (changed))",
        "CREATE TABLE IF NOT EXISTS client (
        name VARBINARY(63) NOT NULL,
        created_at BIGINT UNSIGNED NOT NULL,
        changed BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (name) CLUSTERED,
        KEY by_change (changed))",
        "CREATE TABLE IF NOT EXISTS api_key (
        hash BINARY(32) NOT NULL,
        client VARBINARY(63) NOT NULL,
        label BLOB NOT NULL,
        created_at BIGINT UNSIGNED NOT NULL,
        changed BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (hash) CLUSTERED,
        KEY by_change (changed))",
        "CREATE TABLE IF NOT EXISTS application (
        client VARBINARY(63) NOT NULL,
        name VARBINARY(63) NOT NULL,
        created_at BIGINT UNSIGNED NOT NULL,
        changed BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (client, name) CLUSTERED,
        KEY by_change (changed))",
        "CREATE TABLE IF NOT EXISTS pipeline (
        id INT UNSIGNED NOT NULL,
        client VARBINARY(63) NOT NULL,
        application VARBINARY(63) NOT NULL,
        name VARBINARY(63) NOT NULL,
        version BIGINT UNSIGNED NOT NULL,
        created_at BIGINT UNSIGNED NOT NULL,
        partitions INT UNSIGNED NOT NULL,
        paused BOOL NOT NULL,
        deleting BOOL NOT NULL,
        policy BLOB NOT NULL,
        definition LONGBLOB NOT NULL,
        chart BLOB NULL,
        chart_values LONGBLOB NULL,
        min_replicas INT UNSIGNED NULL,
        max_replicas INT UNSIGNED NULL,
        changed BIGINT UNSIGNED NOT NULL,
        PRIMARY KEY (id) CLUSTERED,
        UNIQUE KEY by_path (client, application, name),
        KEY by_change (changed))",
        "CREATE TABLE IF NOT EXISTS node (
        id BINARY(16) NOT NULL,
        name BLOB NOT NULL,
        address BLOB NOT NULL,
        expire_at DATETIME(6) NOT NULL,
        PRIMARY KEY (id) CLUSTERED)",
        "CREATE TABLE IF NOT EXISTS shard (
        pipeline INT UNSIGNED NOT NULL,
        partition_no INT UNSIGNED NOT NULL,
        epoch INT UNSIGNED NOT NULL,
        node BINARY(16) NOT NULL,
        released BOOL NOT NULL,
        checkpoint BIGINT UNSIGNED NOT NULL,
        barren_epochs INT UNSIGNED NOT NULL,
        resume_offset BIGINT UNSIGNED NOT NULL,
        state_pieces INT UNSIGNED NOT NULL,
        PRIMARY KEY (pipeline, partition_no) CLUSTERED)",
        "CREATE TABLE IF NOT EXISTS shard_state (
        pipeline INT UNSIGNED NOT NULL,
        partition_no INT UNSIGNED NOT NULL,
        piece INT UNSIGNED NOT NULL,
        body MEDIUMBLOB NOT NULL,
        PRIMARY KEY (pipeline, partition_no, piece) CLUSTERED)",
        "CREATE TABLE IF NOT EXISTS result_segment (
        pipeline INT UNSIGNED NOT NULL,
        partition_no INT UNSIGNED NOT NULL,
        first_offset BIGINT UNSIGNED NOT NULL,
        epoch INT UNSIGNED NOT NULL,
        checkpoint BIGINT UNSIGNED NOT NULL,
        last_offset BIGINT UNSIGNED NOT NULL,
        expire_at BIGINT UNSIGNED NOT NULL,
        expire_on DATETIME NULL,
        body LONGBLOB NOT NULL,
        PRIMARY KEY (pipeline, partition_no, first_offset, epoch, checkpoint) CLUSTERED,
        KEY by_expiry (expire_at))
        TTL = expire_on + INTERVAL 1 DAY TTL_ENABLE = '{ttl}' TTL_JOB_INTERVAL = '24h'",
        "CREATE TABLE IF NOT EXISTS dead_task (
        pipeline INT UNSIGNED NOT NULL,
        partition_no INT UNSIGNED NOT NULL,
        task_offset BIGINT UNSIGNED NOT NULL,
        expire_at BIGINT UNSIGNED NOT NULL,
        expire_on DATETIME NULL,
        body LONGBLOB NOT NULL,
        PRIMARY KEY (pipeline, partition_no, task_offset) CLUSTERED,
        KEY by_expiry (expire_at),
        KEY by_pipeline (pipeline, expire_at))
        TTL = expire_on + INTERVAL 1 DAY TTL_ENABLE = '{ttl}' TTL_JOB_INTERVAL = '24h'",
        "CREATE TABLE IF NOT EXISTS parked_task (
        pipeline INT UNSIGNED NOT NULL,
        partition_no INT UNSIGNED NOT NULL,
        task_offset BIGINT UNSIGNED NOT NULL,
        wake_at BIGINT UNSIGNED NOT NULL,
        body LONGBLOB NOT NULL,
        PRIMARY KEY (pipeline, partition_no, task_offset) CLUSTERED,
        KEY by_time (pipeline, partition_no, wake_at))",
        "CREATE TABLE IF NOT EXISTS idempotency_key (
        pipeline INT UNSIGNED NOT NULL,
        partition_no INT UNSIGNED NOT NULL,
        hash BINARY(16) NOT NULL,
        task_offset BIGINT UNSIGNED NOT NULL,
        expire_at BIGINT UNSIGNED NOT NULL,
        expire_on DATETIME NULL,
        PRIMARY KEY (pipeline, partition_no, hash) CLUSTERED,
        KEY by_expiry (expire_at))
        TTL = expire_on + INTERVAL 1 DAY TTL_ENABLE = '{ttl}' TTL_JOB_INTERVAL = '24h'",
    ],
    &["ALTER TABLE pipeline ADD COLUMN IF NOT EXISTS key_partitions INT UNSIGNED NULL AFTER partitions"],
    &["ALTER TABLE pipeline ADD COLUMN IF NOT EXISTS topic BLOB NULL AFTER key_partitions"],
];

/// Brings the tables to the newest version; of nodes that start together one does it, and the others wait.
pub(crate) async fn migrate(
    mut connection: MySqlConnection,
    target: &Target,
    config: &TidbConfig,
) -> Result<(), ConnectError> {
    let failed = |version: usize| {
        move |error: sqlx::Error| ConnectError::Migration {
            place: target.place.clone(),
            version: u32::try_from(version).unwrap_or(u32::MAX),
            hint: match number(&error) {
                Some(code) if DENIED.contains(&code) => {
                    "GRANT the user CREATE, ALTER, INDEX, SELECT, INSERT, UPDATE and DELETE on the database"
                }
                _ => "start it again; steps that are done already are not in the way",
            },
            source: error.into(),
        }
    };
    let here = &mut connection;
    if check(version(here).await.map_err(failed(0))?, target)? < STEPS.len() {
        // Held by the connection: it goes with it, however this ends.
        let lock = format!("scheduler-{:032x}", KeyHash::of(target.database.as_bytes()).0);
        let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, ?)")
            .bind(&lock)
            .bind(LOCK_SECONDS)
            .fetch_one(&mut *here)
            .await
            .map_err(failed(0))?;
        if locked != Some(1) {
            return Err(failed(0)(sqlx::Error::Protocol(
                "another node has been changing the tables for too long".into(),
            )));
        }
        here.execute(VERSION_TABLE).await.map_err(failed(0))?;
        let from = check(version(here).await.map_err(failed(0))?, target)?;
        for (done, step) in STEPS.iter().enumerate().skip(from) {
            let ttl = if config.ttl { "ON" } else { "OFF" };
            for statement in *step {
                here.execute(AssertSqlSafe(statement.replace("{ttl}", ttl)))
                    .await
                    .map_err(failed(done + 1))?;
            }
            sqlx::query("INSERT IGNORE INTO schema_version (version) VALUES (?)")
                .bind(u32::try_from(done + 1).unwrap_or(u32::MAX))
                .execute(&mut *here)
                .await
                .map_err(failed(done + 1))?;
        }
        sqlx::query("DO RELEASE_LOCK(?)")
            .bind(&lock)
            .execute(&mut *here)
            .await
            .map_err(failed(STEPS.len()))?;
    }
    connection.close().await.map_err(failed(STEPS.len()))
}

/// The tables' version; 0 if there are none.
async fn version(connection: &mut MySqlConnection) -> Result<u32, sqlx::Error> {
    let version = sqlx::query_scalar::<_, Option<u32>>("SELECT MAX(version) FROM schema_version")
        .fetch_one(connection)
        .await;
    match version {
        Ok(version) => Ok(version.unwrap_or(0)),
        Err(error) if number(&error) == Some(NO_TABLE) => Ok(0),
        Err(error) => Err(error),
    }
}

fn check(found: u32, target: &Target) -> Result<usize, ConnectError> {
    match usize::try_from(found) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => Err(ConnectError::Newer {
            place: target.place.clone(),
            found,
            known: u32::try_from(STEPS.len()).unwrap_or(u32::MAX),
        }),
    }
}
