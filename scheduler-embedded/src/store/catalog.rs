//! The catalog's rows.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, Catalog, CatalogError, CatalogSnapshot, Client, Pipeline,
};
use scheduler_core::port::store::StoreError;

use super::EmbeddedStore;
use super::pipeline_row::{decode_name, decode_pipeline, encode_pipeline};
use super::staged::Staged;
use crate::codec::{Decoder, Encode};
use crate::engine::{Engine, Key, Space, Table};
use crate::error::{Corrupt, store_damaged, store_unavailable};

fn client_key(client: &Name) -> Key {
    Key::of(Table::Client).text(client.as_str())
}

fn api_key_key(hash: ApiKeyHash) -> Key {
    Key::of(Table::ApiKey).raw(&hash.0)
}

fn application_key(client: &Name, application: &Name) -> Key {
    Key::of(Table::Application)
        .text(client.as_str())
        .text(application.as_str())
}

fn pipeline_key(id: PipelineId) -> Key {
    Key::of(Table::Pipeline).pipeline(id)
}

fn path_prefix(client: &Name, application: &Name) -> Key {
    Key::of(Table::PipelinePath)
        .text(client.as_str())
        .text(application.as_str())
}

fn path_key(path: &PipelinePath) -> Key {
    path_prefix(&path.client, &path.application).text(path.pipeline.as_str())
}

fn pipeline_sequence_key() -> Key {
    Key::of(Table::Sequence).text("pipeline")
}

fn not_found(kind: &'static str, name: &(impl ToString + ?Sized)) -> CatalogError {
    CatalogError::NotFound {
        kind,
        name: name.to_string(),
    }
}

fn require(
    staged: &Staged<'_>,
    key: &Key,
    missing: impl FnOnce() -> CatalogError,
) -> Result<Bytes, CatalogError> {
    staged.get(Space::Rows, key)?.ok_or_else(missing)
}

fn require_free(
    staged: &Staged<'_>,
    key: &Key,
    kind: &'static str,
    name: &(impl ToString + ?Sized),
) -> Result<(), CatalogError> {
    match staged.get(Space::Rows, key)? {
        Some(_) => Err(CatalogError::Exists {
            kind,
            name: name.to_string(),
        }),
        None => Ok(()),
    }
}

fn load_pipeline(staged: &Staged<'_>, id: PipelineId) -> Result<Pipeline, CatalogError> {
    let row = require(staged, &pipeline_key(id), || not_found("pipeline", &id.0))?;
    Ok(decode_pipeline(row).map_err(store_damaged(format!("pipeline {}", id.0)))?)
}

/// Reads every row of a table.
fn load_all<T>(
    engine: &Engine,
    table: Table,
    read: impl Fn(Decoder, Bytes) -> Result<T, Corrupt>,
) -> Result<Vec<T>, StoreError> {
    engine
        .rows
        .prefix(Key::of(table))
        .map(|row| {
            let (_, value) = row.into_inner().map_err(store_unavailable)?;
            let value = Bytes::from(value);
            read(Decoder::new(value.clone()), value)
                .map_err(store_damaged(format!("the catalog ({table:?})")))
        })
        .collect()
}

#[async_trait]
impl Catalog for EmbeddedStore {
    async fn snapshot(&self) -> Result<CatalogSnapshot, CatalogError> {
        self.read(|engine| {
            Ok(CatalogSnapshot {
                clients: load_all(engine, Table::Client, |mut row, _| {
                    Ok(Client {
                        name: decode_name(&mut row)?,
                        created_at: row.timestamp()?,
                    })
                })?,
                keys: load_all(engine, Table::ApiKey, |mut row, _| {
                    let hash = ApiKeyHash(*row.bytes()?.first_chunk().ok_or(Corrupt("a key's hash"))?);
                    let (client, label) = (decode_name(&mut row)?, row.text()?);
                    Ok(ApiKey {
                        hash,
                        client,
                        label,
                        created_at: row.timestamp()?,
                    })
                })?,
                applications: load_all(engine, Table::Application, |mut row, _| {
                    let (client, name) = (decode_name(&mut row)?, decode_name(&mut row)?);
                    Ok(Application {
                        client,
                        name,
                        created_at: row.timestamp()?,
                    })
                })?,
                pipelines: load_all(engine, Table::Pipeline, |_, row| {
                    decode_pipeline(row).map(Arc::new)
                })?,
            })
        })
        .await
    }

    async fn add_client(&self, client: Client) -> Result<(), CatalogError> {
        self.write(move |staged| {
            let key = client_key(&client.name);
            require_free(staged, &key, "client", &client.name)?;
            let mut row = Vec::new();
            row.bytes(client.name.as_str().as_bytes());
            row.timestamp(client.created_at);
            staged.put(Space::Rows, key, row);
            Ok(())
        })
        .await
    }

    async fn add_key(&self, api_key: ApiKey) -> Result<(), CatalogError> {
        self.write(move |staged| {
            require(staged, &client_key(&api_key.client), || {
                not_found("client", &api_key.client)
            })?;
            let key = api_key_key(api_key.hash);
            require_free(staged, &key, "key", &api_key.label)?;
            let mut row = Vec::new();
            row.bytes(&api_key.hash.0);
            row.bytes(api_key.client.as_str().as_bytes());
            row.bytes(api_key.label.as_bytes());
            row.timestamp(api_key.created_at);
            staged.put(Space::Rows, key, row);
            Ok(())
        })
        .await
    }

    async fn remove_key(&self, hash: ApiKeyHash) -> Result<(), CatalogError> {
        self.write(move |staged| {
            let key = api_key_key(hash);
            require(staged, &key, || not_found("key", "of this hash"))?;
            staged.remove(Space::Rows, key);
            Ok(())
        })
        .await
    }

    async fn add_application(&self, application: Application) -> Result<(), CatalogError> {
        self.write(move |staged| {
            let Application {
                client,
                name,
                created_at,
            } = application;
            require(staged, &client_key(&client), || not_found("client", &client))?;
            let key = application_key(&client, &name);
            require_free(staged, &key, "application", &name)?;
            let mut row = Vec::new();
            row.bytes(client.as_str().as_bytes());
            row.bytes(name.as_str().as_bytes());
            row.timestamp(created_at);
            staged.put(Space::Rows, key, row);
            Ok(())
        })
        .await
    }

    async fn remove_application(&self, client: &Name, application: &Name) -> Result<(), CatalogError> {
        let (client, application) = (client.clone(), application.clone());
        self.write(move |staged| {
            let key = application_key(&client, &application);
            require(staged, &key, || not_found("application", &application))?;
            let mut pipelines = staged.engine().rows.prefix(path_prefix(&client, &application));
            if pipelines.next().is_some() {
                return Err(CatalogError::NotEmpty(application));
            }
            staged.remove(Space::Rows, key);
            Ok(())
        })
        .await
    }

    async fn add_pipeline(&self, mut pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        self.write(move |staged| {
            let path = &pipeline.path;
            let application = application_key(&path.client, &path.application);
            require(staged, &application, || {
                not_found("application", &path.application)
            })?;
            require_free(staged, &path_key(path), "pipeline", path)?;

            let sequence = staged.get(Space::Rows, &pipeline_sequence_key())?;
            let last = sequence.map_or(Ok(0), |row| Decoder::new(row).u32());
            let last = last.map_err(store_damaged("the sequence of pipelines"))?;
            let exhausted = || StoreError::Unavailable("all pipeline numbers are used up".into());
            pipeline.id = PipelineId(last.checked_add(1).ok_or_else(exhausted)?);
            pipeline.version = 1;

            let number = |id: PipelineId| {
                let mut row = Vec::new();
                row.number(id.0.into());
                row
            };
            staged.put(Space::Rows, pipeline_sequence_key(), number(pipeline.id));
            staged.put(Space::Rows, path_key(&pipeline.path), number(pipeline.id));
            staged.put(Space::Rows, pipeline_key(pipeline.id), encode_pipeline(&pipeline));
            Ok(pipeline)
        })
        .await
    }

    async fn update_pipeline(&self, mut pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        self.write(move |staged| {
            let stored = load_pipeline(staged, pipeline.id)?;
            if stored.path != pipeline.path {
                return Err(not_found("pipeline", &pipeline.path));
            }
            if stored.version != pipeline.version {
                return Err(CatalogError::Changed(pipeline.path));
            }
            pipeline.version += 1;
            staged.put(Space::Rows, pipeline_key(pipeline.id), encode_pipeline(&pipeline));
            Ok(pipeline)
        })
        .await
    }

    async fn remove_pipeline(&self, id: PipelineId) -> Result<(), CatalogError> {
        self.write(move |staged| {
            let stored = load_pipeline(staged, id)?;
            staged.remove(Space::Rows, path_key(&stored.path));
            staged.remove(Space::Rows, pipeline_key(id));
            Ok(())
        })
        .await
    }
}
