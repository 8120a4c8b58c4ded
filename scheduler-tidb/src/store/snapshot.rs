//! The catalog as it is read: whole, or what of it changed.

use std::sync::Arc;

use scheduler_core::encoding;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, CatalogError, CatalogSnapshot, Client, Deployment, Pipeline, Replicas,
};
use scheduler_core::port::store::StoreError;
use scheduler_core::time::Timestamp;
use sqlx::mysql::MySqlRow;
use sqlx::{Connection, MySqlConnection, Row};

use crate::error::{Fail, damaged};

type Done<T> = Result<T, Fail<CatalogError>>;

/// Hash, client, label and time of a key.
type KeyRow = (Vec<u8>, Vec<u8>, Vec<u8>, u64);

/// A name in a row.
pub(super) fn name(bytes: Vec<u8>) -> Result<Name, StoreError> {
    let text = String::from_utf8(bytes).ok();
    let name = text.and_then(|text| text.parse().ok());
    name.ok_or_else(|| StoreError::Damaged {
        place: "the catalog".to_owned(),
        source: "a name is not one".into(),
    })
}

fn text(bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|error| StoreError::Damaged {
        place: "the catalog".to_owned(),
        source: error.into(),
    })
}

fn pipeline(row: &MySqlRow) -> Done<Pipeline> {
    let id: u32 = row.try_get("id")?;
    let policy: Vec<u8> = row.try_get("policy")?;
    let chart: Option<Vec<u8>> = row.try_get("chart")?;
    let values: Option<Vec<u8>> = row.try_get("chart_values")?;
    let (min, max): (Option<u32>, Option<u32>) = (row.try_get("min_replicas")?, row.try_get("max_replicas")?);
    let definition: Vec<u8> = row.try_get("definition")?;
    let partitions: u32 = row.try_get("partitions")?;
    // Who wrote it may not have known of them yet.
    let key_partitions: Option<u32> = row.try_get("key_partitions")?;
    let topic: Option<Vec<u8>> = row.try_get("topic")?;
    Ok(Pipeline {
        id: PipelineId(id),
        path: PipelinePath {
            client: name(row.try_get("client")?)?,
            application: name(row.try_get("application")?)?,
            pipeline: name(row.try_get("name")?)?,
        },
        version: row.try_get("version")?,
        created_at: Timestamp::from_millis(row.try_get("created_at")?),
        partitions,
        key_partitions: key_partitions.unwrap_or(partitions),
        topic: encoding::topic_settings(topic.unwrap_or_default().into())
            .map_err(damaged(format!("what was asked of the topic of pipeline {id}")))?,
        policy: encoding::policy(policy.into()).map_err(damaged(format!("the policy of pipeline {id}")))?,
        paused: row.try_get("paused")?,
        definition: definition.into(),
        deployment: match chart {
            Some(chart) => Some(Deployment {
                chart: text(chart)?,
                values: values.unwrap_or_default().into(),
                replicas: Replicas {
                    min: min.unwrap_or_default(),
                    max: max.unwrap_or_default(),
                },
            }),
            None => None,
        },
        deleting: row.try_get("deleting")?,
    })
}

/// What of the catalog changed after a version, in one view: the caller's transaction.
pub(super) async fn changed_after(tx: &mut MySqlConnection, after: u64) -> Done<CatalogSnapshot> {
    let mut found = CatalogSnapshot::default();
    let clients: Vec<(Vec<u8>, u64)> =
        sqlx::query_as("SELECT name, created_at FROM client WHERE changed > ? ORDER BY name")
            .bind(after)
            .fetch_all(&mut *tx)
            .await?;
    for (client, created_at) in clients {
        found.clients.push(Client {
            name: name(client)?,
            created_at: Timestamp::from_millis(created_at),
        });
    }
    let keys: Vec<KeyRow> =
        sqlx::query_as("SELECT hash, client, label, created_at FROM api_key WHERE changed > ? ORDER BY hash")
            .bind(after)
            .fetch_all(&mut *tx)
            .await?;
    for (hash, client, label, created_at) in keys {
        found.keys.push(ApiKey {
            hash: key_hash(hash)?,
            client: name(client)?,
            label: text(label)?,
            created_at: Timestamp::from_millis(created_at),
        });
    }
    let applications: Vec<(Vec<u8>, Vec<u8>, u64)> = sqlx::query_as(
        "SELECT client, name, created_at FROM application WHERE changed > ? ORDER BY client, name",
    )
    .bind(after)
    .fetch_all(&mut *tx)
    .await?;
    for (client, application, created_at) in applications {
        found.applications.push(Application {
            client: name(client)?,
            name: name(application)?,
            created_at: Timestamp::from_millis(created_at),
        });
    }
    let pipelines = sqlx::query("SELECT * FROM pipeline WHERE changed > ? ORDER BY id")
        .bind(after)
        .fetch_all(&mut *tx)
        .await?;
    for row in &pipelines {
        found.pipelines.push(Arc::new(pipeline(row)?));
    }
    Ok(found)
}

pub(super) fn key_hash(bytes: Vec<u8>) -> Result<ApiKeyHash, StoreError> {
    let hash = <[u8; 32]>::try_from(bytes).map_err(|_| StoreError::Damaged {
        place: "the catalog".to_owned(),
        source: "the hash of a key has not 32 bytes".into(),
    })?;
    Ok(ApiKeyHash(hash))
}

pub(super) async fn snapshot(connection: &mut MySqlConnection) -> Done<CatalogSnapshot> {
    let mut tx = connection.begin().await?;
    let found = changed_after(&mut tx, 0).await?;
    tx.commit().await?;
    Ok(found)
}
