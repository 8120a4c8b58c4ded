//! The catalog in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::id::PipelineId;
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, Catalog, CatalogError, CatalogSnapshot, Client, Pipeline,
};

use super::{MemoryStore, lock};

#[derive(Debug, Default)]
pub(super) struct CatalogState {
    clients: BTreeMap<Name, Client>,
    keys: BTreeMap<ApiKeyHash, ApiKey>,
    applications: BTreeMap<(Name, Name), Application>,
    pipelines: BTreeMap<PipelineId, Arc<Pipeline>>,
    last_pipeline: u32,
}

fn not_found(kind: &'static str, name: &(impl ToString + ?Sized)) -> CatalogError {
    CatalogError::NotFound {
        kind,
        name: name.to_string(),
    }
}

fn exists(kind: &'static str, name: &(impl ToString + ?Sized)) -> CatalogError {
    CatalogError::Exists {
        kind,
        name: name.to_string(),
    }
}

#[async_trait]
impl Catalog for MemoryStore {
    async fn snapshot(&self) -> Result<CatalogSnapshot, CatalogError> {
        let state = lock(&self.catalog);
        Ok(CatalogSnapshot {
            clients: state.clients.values().cloned().collect(),
            keys: state.keys.values().cloned().collect(),
            applications: state.applications.values().cloned().collect(),
            pipelines: state.pipelines.values().cloned().collect(),
        })
    }

    async fn add_client(&self, client: Client) -> Result<(), CatalogError> {
        let mut state = lock(&self.catalog);
        if state.clients.contains_key(&client.name) {
            return Err(exists("client", &client.name));
        }
        state.clients.insert(client.name.clone(), client);
        Ok(())
    }

    async fn add_key(&self, key: ApiKey) -> Result<(), CatalogError> {
        let mut state = lock(&self.catalog);
        if !state.clients.contains_key(&key.client) {
            return Err(not_found("client", &key.client));
        }
        if state.keys.contains_key(&key.hash) {
            return Err(exists("key", &key.label));
        }
        state.keys.insert(key.hash, key);
        Ok(())
    }

    async fn remove_key(&self, hash: ApiKeyHash) -> Result<(), CatalogError> {
        let removed = lock(&self.catalog).keys.remove(&hash);
        removed
            .map(|_| ())
            .ok_or_else(|| not_found("key", "of this hash"))
    }

    async fn add_application(&self, application: Application) -> Result<(), CatalogError> {
        let mut state = lock(&self.catalog);
        if !state.clients.contains_key(&application.client) {
            return Err(not_found("client", &application.client));
        }
        let key = (application.client.clone(), application.name.clone());
        if state.applications.contains_key(&key) {
            return Err(exists("application", &application.name));
        }
        state.applications.insert(key, application);
        Ok(())
    }

    async fn remove_application(&self, client: &Name, application: &Name) -> Result<(), CatalogError> {
        let mut state = lock(&self.catalog);
        let key = (client.clone(), application.clone());
        if !state.applications.contains_key(&key) {
            return Err(not_found("application", application));
        }
        if state
            .pipelines
            .values()
            .any(|p| p.path.client == *client && p.path.application == *application)
        {
            return Err(CatalogError::NotEmpty(application.clone()));
        }
        state.applications.remove(&key);
        Ok(())
    }

    async fn add_pipeline(&self, mut pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        let mut state = lock(&self.catalog);
        let path = &pipeline.path;
        if !state
            .applications
            .contains_key(&(path.client.clone(), path.application.clone()))
        {
            return Err(not_found("application", &path.application));
        }
        if state.pipelines.values().any(|other| other.path == *path) {
            return Err(exists("pipeline", path));
        }
        state.last_pipeline += 1;
        pipeline.id = PipelineId(state.last_pipeline);
        pipeline.version = 1;
        state.pipelines.insert(pipeline.id, Arc::new(pipeline.clone()));
        Ok(pipeline)
    }

    async fn update_pipeline(&self, mut pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        let mut state = lock(&self.catalog);
        let stored = state
            .pipelines
            .get(&pipeline.id)
            .filter(|stored| stored.path == pipeline.path);
        let stored = stored.ok_or_else(|| not_found("pipeline", &pipeline.path))?;
        if stored.version != pipeline.version {
            return Err(CatalogError::Changed(pipeline.path));
        }
        pipeline.version += 1;
        state.pipelines.insert(pipeline.id, Arc::new(pipeline.clone()));
        Ok(pipeline)
    }

    async fn remove_pipeline(&self, id: PipelineId) -> Result<(), CatalogError> {
        let removed = lock(&self.catalog).pipelines.remove(&id);
        removed.map(|_| ()).ok_or_else(|| not_found("pipeline", &id.0))
    }
}
