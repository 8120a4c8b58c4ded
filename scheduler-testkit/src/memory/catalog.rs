//! The catalog in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::id::PipelineId;
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, Catalog, CatalogError, CatalogSnapshot, Client, Pipeline,
};

use super::cluster::{Stamps, Thing};
use super::{MemoryStore, lock};

#[derive(Debug, Default)]
pub(super) struct CatalogState {
    pub(super) clients: BTreeMap<Name, Client>,
    pub(super) keys: BTreeMap<ApiKeyHash, ApiKey>,
    pub(super) applications: BTreeMap<(Name, Name), Application>,
    pub(super) pipelines: BTreeMap<PipelineId, Arc<Pipeline>>,
    last_pipeline: u32,
    pub(super) stamps: Stamps,
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
        state.stamps.changed(Thing::Client(client.name.clone()));
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
        state.stamps.changed(Thing::Key(key.hash));
        state.keys.insert(key.hash, key);
        Ok(())
    }

    async fn remove_key(&self, hash: ApiKeyHash) -> Result<(), CatalogError> {
        let mut state = lock(&self.catalog);
        if state.keys.remove(&hash).is_none() {
            return Err(not_found("key", "of this hash"));
        }
        state.stamps.changed(Thing::Key(hash));
        Ok(())
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
        state
            .stamps
            .changed(Thing::Application(key.0.clone(), key.1.clone()));
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
        state.stamps.changed(Thing::Application(key.0, key.1));
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
        state.stamps.changed(Thing::Pipeline(pipeline.id));
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
        state.stamps.changed(Thing::Pipeline(pipeline.id));
        state.pipelines.insert(pipeline.id, Arc::new(pipeline.clone()));
        Ok(pipeline)
    }

    async fn remove_pipeline(&self, id: PipelineId) -> Result<(), CatalogError> {
        let mut state = lock(&self.catalog);
        if state.pipelines.remove(&id).is_none() {
            return Err(not_found("pipeline", &id.0));
        }
        state.stamps.changed(Thing::Pipeline(id));
        Ok(())
    }
}
