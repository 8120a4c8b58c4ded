//! What the catalog says, in memory, with the actors of the pipelines: every request begins here.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{ApiKey, ApiKeyHash, Application, CatalogSnapshot, Client, Pipeline};
use scheduler_core::port::cluster::{CatalogChanges, Removed};
use scheduler_core::port::gateway::PipelineLoad;
use scheduler_core::port::log::Topic;
use scheduler_pipeline::PipelineDefinition;

use crate::actor::Mailbox;

/// A pipeline that this node serves.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) pipeline: Arc<Pipeline>,
    /// What its workers run, if it says so.
    pub(crate) definition: Option<PipelineDefinition>,
    pub(crate) mailbox: Mailbox,
    /// Where the next submission without a key goes, modulo the partitions.
    pub(crate) turn: Arc<AtomicU32>,
    /// The turn of its actor in which there was nothing to do and nothing to come, and what there had been.
    pub(crate) idle: Mutex<Option<(u64, PipelineLoad)>>,
}

#[derive(Debug, Default)]
pub(crate) struct Directory {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    clients: BTreeMap<Name, Client>,
    keys: HashMap<ApiKeyHash, Name>,
    applications: BTreeMap<(Name, Name), Application>,
    pipelines: HashMap<PipelinePath, Arc<Served>>,
    /// The same, by their numbers.
    by_id: HashMap<PipelineId, Arc<Served>>,
}

impl Directory {
    pub(crate) fn load(&self, snapshot: CatalogSnapshot) {
        let mut tables = self.write();
        tables.clients = snapshot
            .clients
            .into_iter()
            .map(|client| (client.name.clone(), client))
            .collect();
        tables.keys = snapshot
            .keys
            .into_iter()
            .map(|key| (key.hash, key.client))
            .collect();
        tables.applications = snapshot
            .applications
            .into_iter()
            .map(|app| ((app.client.clone(), app.name.clone()), app))
            .collect();
    }

    /// Takes in what has changed but pipelines, which need actors. What a whole catalog does not have is gone.
    pub(crate) fn apply(&self, changes: &CatalogChanges) {
        let mut tables = self.write();
        if changes.whole {
            tables.clients.clear();
            tables.keys.clear();
            tables.applications.clear();
        }
        for removed in &changes.removed {
            match removed {
                Removed::Key(hash) => drop(tables.keys.remove(hash)),
                Removed::Application(client, name) => {
                    tables.applications.remove(&(client.clone(), name.clone()));
                }
                Removed::Pipeline(_) => (),
            }
        }
        let clients = changes.clients.iter().cloned();
        tables
            .clients
            .extend(clients.map(|client| (client.name.clone(), client)));
        let keys = changes.keys.iter().cloned();
        tables.keys.extend(keys.map(|key| (key.hash, key.client)));
        let applications = changes.applications.iter().cloned();
        tables
            .applications
            .extend(applications.map(|app| ((app.client.clone(), app.name.clone()), app)));
    }

    pub(crate) fn has_client(&self, name: &Name) -> bool {
        self.read().clients.contains_key(name)
    }

    pub(crate) fn add_client(&self, client: Client) {
        self.write().clients.insert(client.name.clone(), client);
    }

    pub(crate) fn add_key(&self, key: ApiKey) {
        self.write().keys.insert(key.hash, key.client);
    }

    pub(crate) fn remove_key(&self, hash: ApiKeyHash) {
        self.write().keys.remove(&hash);
    }

    pub(crate) fn client_of(&self, key: ApiKeyHash) -> Option<Name> {
        self.read().keys.get(&key).cloned()
    }

    pub(crate) fn application(&self, client: &Name, name: &Name) -> Option<Application> {
        self.read()
            .applications
            .get(&(client.clone(), name.clone()))
            .cloned()
    }

    pub(crate) fn applications(&self, client: &Name) -> Vec<Application> {
        self.read()
            .applications
            .values()
            .filter(|app| app.client == *client)
            .cloned()
            .collect()
    }

    pub(crate) fn add_application(&self, application: Application) {
        let key = (application.client.clone(), application.name.clone());
        self.write().applications.insert(key, application);
    }

    pub(crate) fn remove_application(&self, client: &Name, name: &Name) {
        self.write().applications.remove(&(client.clone(), name.clone()));
    }

    pub(crate) fn pipeline(&self, path: &PipelinePath) -> Option<Arc<Served>> {
        self.read().pipelines.get(path).cloned()
    }

    pub(crate) fn by_id(&self, id: PipelineId) -> Option<Arc<Served>> {
        self.read().by_id.get(&id).cloned()
    }

    pub(crate) fn pipelines(&self) -> Vec<Arc<Served>> {
        self.read().by_id.values().cloned().collect()
    }

    pub(crate) fn pipelines_of(&self, client: &Name, application: &Name) -> Vec<Arc<Served>> {
        let tables = self.read();
        let ours = |path: &PipelinePath| path.client == *client && path.application == *application;
        let mut found: Vec<_> = tables
            .pipelines
            .iter()
            .filter(|(path, _)| ours(path))
            .map(|(_, served)| served.clone())
            .collect();
        found.sort_by(|a, b| a.pipeline.path.cmp(&b.pipeline.path));
        found
    }

    pub(crate) fn serve(&self, served: Served) -> Arc<Served> {
        let served = Arc::new(served);
        let mut tables = self.write();
        tables.by_id.insert(served.pipeline.id, served.clone());
        // A successor of the same name may be there before the last of this one is gone.
        let named = tables.pipelines.entry(served.pipeline.path.clone());
        named
            .and_modify(|named| {
                if named.pipeline.id <= served.pipeline.id {
                    *named = served.clone();
                }
            })
            .or_insert_with(|| served.clone());
        served
    }

    /// Forgets a pipeline; another of the same name stays.
    pub(crate) fn unserve(&self, id: PipelineId) -> Option<Arc<Served>> {
        let mut tables = self.write();
        let served = tables.by_id.remove(&id)?;
        let path = &served.pipeline.path;
        if tables
            .pipelines
            .get(path)
            .is_some_and(|named| named.pipeline.id == id)
        {
            tables.pipelines.remove(path);
        }
        Some(served)
    }

    pub(crate) fn topics(&self) -> Vec<Topic> {
        let topic = |served: &Arc<Served>| topic_of(&served.pipeline);
        self.read()
            .by_id
            .values()
            .filter(|served| !served.pipeline.deleting)
            .map(topic)
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn topic_of(pipeline: &Pipeline) -> Topic {
    Topic {
        pipeline: pipeline.id,
        path: pipeline.path.clone(),
        partitions: pipeline.partitions,
        settings: pipeline.topic.clone(),
    }
}
