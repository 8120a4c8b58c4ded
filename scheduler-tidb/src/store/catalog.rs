//! The catalog as it is written. Each write raises the one version counter first, which makes writes wait for each other.

use async_trait::async_trait;
use scheduler_core::encoding;
use scheduler_core::id::PipelineId;
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, Catalog, CatalogError, CatalogSnapshot, Client, Pipeline,
};
use sqlx::{Connection, MySql, MySqlConnection, Transaction};

use super::TidbStore;
use super::snapshot::snapshot;
use crate::database::tries;
use crate::error::Fail;

type Done<T> = Result<T, Fail<CatalogError>>;

/// Version, client, application and name of a pipeline.
type VersionAndPath = (u64, Vec<u8>, Vec<u8>, Vec<u8>);

/// How many old removals are forgotten with a new one.
const PRUNE_AT_ONCE: u32 = 1000;

/// What a removed row was.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Key = 1,
    Application = 2,
    Pipeline = 3,
}

fn bytes(name: &Name) -> &[u8] {
    name.as_str().as_bytes()
}

/// The name under which the removal of an application is kept: no name has a slash.
fn application_name(client: &Name, name: &Name) -> Vec<u8> {
    format!("{client}/{name}").into_bytes()
}

fn not_found(kind: &'static str, name: &(impl ToString + ?Sized)) -> Fail<CatalogError> {
    Fail::Said(CatalogError::NotFound {
        kind,
        name: name.to_string(),
    })
}

fn exists(kind: &'static str, name: &(impl ToString + ?Sized)) -> Fail<CatalogError> {
    Fail::Said(CatalogError::Exists {
        kind,
        name: name.to_string(),
    })
}

/// A write to the catalog: alone, and with a version of its own.
#[derive(Debug)]
struct Write<'a> {
    tx: Transaction<'a, MySql>,
    version: u64,
}

impl<'a> Write<'a> {
    async fn begin(connection: &'a mut MySqlConnection) -> Done<Self> {
        let mut tx = connection.begin().await?;
        sqlx::query("UPDATE catalog_version SET version = version + 1 WHERE id = 1")
            .execute(&mut *tx)
            .await?;
        let version = sqlx::query_scalar("SELECT version FROM catalog_version WHERE id = 1 FOR UPDATE")
            .fetch_one(&mut *tx)
            .await?;
        Ok(Self { tx, version })
    }

    // Looks lock what they find: only so do they see what is newest.

    async fn has_client(&mut self, name: &Name) -> Done<bool> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM client WHERE name = ? FOR UPDATE")
            .bind(bytes(name))
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(found.is_some())
    }

    async fn has_application(&mut self, client: &Name, name: &Name) -> Done<bool> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM application WHERE client = ? AND name = ? FOR UPDATE")
                .bind(bytes(client))
                .bind(bytes(name))
                .fetch_optional(&mut *self.tx)
                .await?;
        Ok(found.is_some())
    }

    async fn has_key(&mut self, hash: ApiKeyHash) -> Done<bool> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM api_key WHERE hash = ? FOR UPDATE")
            .bind(&hash.0[..])
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(found.is_some())
    }

    /// Keeps for a day that something was removed.
    async fn removed(&mut self, kind: Kind, name: &[u8]) -> Done<()> {
        sqlx::query(
            "REPLACE INTO catalog_removed (kind, name, changed, removed_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
        )
        .bind(kind as u8)
        .bind(name)
        .bind(self.version)
        .execute(&mut *self.tx)
        .await?;
        let old: Vec<u64> = sqlx::query_scalar(
            "SELECT changed FROM catalog_removed WHERE removed_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY \
             ORDER BY changed LIMIT ? FOR UPDATE",
        )
        .bind(PRUNE_AT_ONCE)
        .fetch_all(&mut *self.tx)
        .await?;
        if let Some(last) = old.last() {
            sqlx::query("DELETE FROM catalog_removed WHERE changed <= ?")
                .bind(last)
                .execute(&mut *self.tx)
                .await?;
            sqlx::query("UPDATE catalog_version SET pruned = ? WHERE id = 1")
                .bind(last)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    async fn commit(self) -> Done<()> {
        Ok(self.tx.commit().await?)
    }
}

async fn add_client(connection: &mut MySqlConnection, client: &Client) -> Done<()> {
    let mut write = Write::begin(connection).await?;
    if write.has_client(&client.name).await? {
        return Err(exists("client", &client.name));
    }
    sqlx::query("INSERT INTO client (name, created_at, changed) VALUES (?, ?, ?)")
        .bind(bytes(&client.name))
        .bind(client.created_at.as_millis())
        .bind(write.version)
        .execute(&mut *write.tx)
        .await?;
    write.commit().await
}

async fn add_key(connection: &mut MySqlConnection, key: &ApiKey) -> Done<()> {
    let mut write = Write::begin(connection).await?;
    if !write.has_client(&key.client).await? {
        return Err(not_found("client", &key.client));
    }
    if write.has_key(key.hash).await? {
        return Err(exists("key", &key.label));
    }
    sqlx::query("DELETE FROM catalog_removed WHERE kind = ? AND name = ?")
        .bind(Kind::Key as u8)
        .bind(&key.hash.0[..])
        .execute(&mut *write.tx)
        .await?;
    sqlx::query("INSERT INTO api_key (hash, client, label, created_at, changed) VALUES (?, ?, ?, ?, ?)")
        .bind(&key.hash.0[..])
        .bind(bytes(&key.client))
        .bind(key.label.as_bytes())
        .bind(key.created_at.as_millis())
        .bind(write.version)
        .execute(&mut *write.tx)
        .await?;
    write.commit().await
}

async fn remove_key(connection: &mut MySqlConnection, hash: ApiKeyHash) -> Done<()> {
    let mut write = Write::begin(connection).await?;
    if !write.has_key(hash).await? {
        return Err(not_found("key", "of this hash"));
    }
    sqlx::query("DELETE FROM api_key WHERE hash = ?")
        .bind(&hash.0[..])
        .execute(&mut *write.tx)
        .await?;
    write.removed(Kind::Key, &hash.0).await?;
    write.commit().await
}

async fn add_application(connection: &mut MySqlConnection, application: &Application) -> Done<()> {
    let Application {
        client,
        name,
        created_at,
    } = application;
    let mut write = Write::begin(connection).await?;
    if !write.has_client(client).await? {
        return Err(not_found("client", client));
    }
    if write.has_application(client, name).await? {
        return Err(exists("application", name));
    }
    sqlx::query("DELETE FROM catalog_removed WHERE kind = ? AND name = ?")
        .bind(Kind::Application as u8)
        .bind(application_name(client, name))
        .execute(&mut *write.tx)
        .await?;
    sqlx::query("INSERT INTO application (client, name, created_at, changed) VALUES (?, ?, ?, ?)")
        .bind(bytes(client))
        .bind(bytes(name))
        .bind(created_at.as_millis())
        .bind(write.version)
        .execute(&mut *write.tx)
        .await?;
    write.commit().await
}

async fn remove_application(connection: &mut MySqlConnection, client: &Name, name: &Name) -> Done<()> {
    let mut write = Write::begin(connection).await?;
    if !write.has_application(client, name).await? {
        return Err(not_found("application", name));
    }
    let pipeline: Option<u32> =
        sqlx::query_scalar("SELECT id FROM pipeline WHERE client = ? AND application = ? LIMIT 1 FOR UPDATE")
            .bind(bytes(client))
            .bind(bytes(name))
            .fetch_optional(&mut *write.tx)
            .await?;
    if pipeline.is_some() {
        return Err(Fail::Said(CatalogError::NotEmpty(name.clone())));
    }
    sqlx::query("DELETE FROM application WHERE client = ? AND name = ?")
        .bind(bytes(client))
        .bind(bytes(name))
        .execute(&mut *write.tx)
        .await?;
    write
        .removed(Kind::Application, &application_name(client, name))
        .await?;
    write.commit().await
}

async fn put_pipeline(write: &mut Write<'_>, pipeline: &Pipeline) -> Done<()> {
    let mut policy = Vec::new();
    encoding::put_policy(&mut policy, &pipeline.policy);
    let mut topic = Vec::new();
    encoding::put_topic_settings(&mut topic, &pipeline.topic);
    let deployment = pipeline.deployment.as_ref();
    sqlx::query(
        "REPLACE INTO pipeline (id, client, application, name, version, created_at, partitions, key_partitions, topic, paused, deleting, \
         policy, definition, chart, chart_values, min_replicas, max_replicas, changed) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(pipeline.id.0)
    .bind(bytes(&pipeline.path.client))
    .bind(bytes(&pipeline.path.application))
    .bind(bytes(&pipeline.path.pipeline))
    .bind(pipeline.version)
    .bind(pipeline.created_at.as_millis())
    .bind(pipeline.partitions)
    .bind(pipeline.key_partitions)
    .bind(topic)
    .bind(pipeline.paused)
    .bind(pipeline.deleting)
    .bind(policy)
    .bind(&pipeline.definition[..])
    .bind(deployment.map(|it| it.chart.as_bytes()))
    .bind(deployment.map(|it| &it.values[..]))
    .bind(deployment.map(|it| it.replicas.min))
    .bind(deployment.map(|it| it.replicas.max))
    .bind(write.version)
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

async fn add_pipeline(connection: &mut MySqlConnection, mut pipeline: Pipeline) -> Done<Pipeline> {
    let mut write = Write::begin(connection).await?;
    let path = &pipeline.path;
    if !write.has_application(&path.client, &path.application).await? {
        return Err(not_found("application", &path.application));
    }
    let taken: Option<u32> = sqlx::query_scalar(
        "SELECT id FROM pipeline WHERE client = ? AND application = ? AND name = ? FOR UPDATE",
    )
    .bind(bytes(&path.client))
    .bind(bytes(&path.application))
    .bind(bytes(&path.pipeline))
    .fetch_optional(&mut *write.tx)
    .await?;
    if taken.is_some() {
        return Err(exists("pipeline", path));
    }
    sqlx::query("UPDATE catalog_version SET last_pipeline = last_pipeline + 1 WHERE id = 1")
        .execute(&mut *write.tx)
        .await?;
    let number: u32 = sqlx::query_scalar("SELECT last_pipeline FROM catalog_version WHERE id = 1 FOR UPDATE")
        .fetch_one(&mut *write.tx)
        .await?;
    pipeline.id = PipelineId(number);
    pipeline.version = 1;
    put_pipeline(&mut write, &pipeline).await?;
    write.commit().await?;
    Ok(pipeline)
}

async fn update_pipeline(connection: &mut MySqlConnection, mut pipeline: Pipeline) -> Done<Pipeline> {
    let mut write = Write::begin(connection).await?;
    let stored: Option<VersionAndPath> =
        sqlx::query_as("SELECT version, client, application, name FROM pipeline WHERE id = ? FOR UPDATE")
            .bind(pipeline.id.0)
            .fetch_optional(&mut *write.tx)
            .await?;
    let path = &pipeline.path;
    let is_it = |(_, client, application, name): &VersionAndPath| {
        client == bytes(&path.client)
            && application == bytes(&path.application)
            && name == bytes(&path.pipeline)
    };
    let Some((version, ..)) = stored.filter(is_it) else {
        return Err(not_found("pipeline", path));
    };
    if version != pipeline.version {
        return Err(Fail::Said(CatalogError::Changed(pipeline.path)));
    }
    pipeline.version += 1;
    put_pipeline(&mut write, &pipeline).await?;
    write.commit().await?;
    Ok(pipeline)
}

async fn remove_pipeline(connection: &mut MySqlConnection, id: PipelineId) -> Done<()> {
    let mut write = Write::begin(connection).await?;
    let removed = sqlx::query("DELETE FROM pipeline WHERE id = ?")
        .bind(id.0)
        .execute(&mut *write.tx)
        .await?;
    if removed.rows_affected() == 0 {
        return Err(not_found("pipeline", &id.0));
    }
    write.removed(Kind::Pipeline, &id.0.to_be_bytes()).await?;
    write.commit().await
}

#[async_trait]
impl Catalog for TidbStore {
    async fn snapshot(&self) -> Result<CatalogSnapshot, CatalogError> {
        tries!(self.database, |connection| snapshot(connection))
    }

    async fn add_client(&self, client: Client) -> Result<(), CatalogError> {
        tries!(self.database, |connection| add_client(connection, &client))
    }

    async fn add_key(&self, key: ApiKey) -> Result<(), CatalogError> {
        tries!(self.database, |connection| add_key(connection, &key))
    }

    async fn remove_key(&self, hash: ApiKeyHash) -> Result<(), CatalogError> {
        tries!(self.database, |connection| remove_key(connection, hash))
    }

    async fn add_application(&self, application: Application) -> Result<(), CatalogError> {
        tries!(self.database, |connection| add_application(
            connection,
            &application
        ))
    }

    async fn remove_application(&self, client: &Name, application: &Name) -> Result<(), CatalogError> {
        tries!(self.database, |connection| remove_application(
            connection,
            client,
            application
        ))
    }

    async fn add_pipeline(&self, pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        tries!(self.database, |connection| add_pipeline(
            connection,
            pipeline.clone()
        ))
    }

    async fn update_pipeline(&self, pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        tries!(self.database, |connection| update_pipeline(
            connection,
            pipeline.clone()
        ))
    }

    async fn remove_pipeline(&self, id: PipelineId) -> Result<(), CatalogError> {
        tries!(self.database, |connection| remove_pipeline(connection, id))
    }
}
