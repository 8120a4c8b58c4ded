//! What the nodes of a cluster know of each other, in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{NodeId, PipelineId};
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{ApiKeyHash, CatalogError};
use scheduler_core::port::cluster::{CatalogChanges, CatalogVersion, ClusterStore, Member, Owner, Removed};
use scheduler_core::port::store::StoreError;
use tokio::time::Instant;

use super::{MemoryStore, lock};

/// The nodes, and until when each is one.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<NodeId, (Instant, Member)>);

/// What a catalog's changes are about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Thing {
    Client(Name),
    Key(ApiKeyHash),
    Application(Name, Name),
    Pipeline(PipelineId),
}

/// Which version of the catalog last changed what.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    version: u64,
    last: BTreeMap<Thing, u64>,
}

impl Stamps {
    /// Says that a thing was added, replaced or removed.
    pub(super) fn changed(&mut self, thing: Thing) {
        self.version += 1;
        self.last.insert(thing, self.version);
    }
}

#[async_trait]
impl ClusterStore for MemoryStore {
    async fn beat(&self, member: &Member, ttl: Duration) -> Result<Vec<Member>, StoreError> {
        let now = Instant::now();
        let mut members = lock(&self.members);
        members.0.insert(member.id, (now + ttl, member.clone()));
        // The one that beats lives, however short its time.
        members
            .0
            .retain(|id, (until, _)| *until > now || *id == member.id);
        Ok(members.0.values().map(|(_, member)| member.clone()).collect())
    }

    async fn leave(&self, node: NodeId) -> Result<(), StoreError> {
        lock(&self.members).0.remove(&node);
        Ok(())
    }

    async fn owners(&self, pipeline: PipelineId) -> Result<Vec<Owner>, StoreError> {
        Ok(self.owned(pipeline))
    }

    async fn changes(&self, since: CatalogVersion) -> Result<CatalogChanges, CatalogError> {
        let state = lock(&self.catalog);
        let version = state.stamps.version;
        let whole = since.0 == 0 || since.0 > version;
        let mut changes = CatalogChanges {
            version: CatalogVersion(version),
            whole,
            ..CatalogChanges::default()
        };
        let after = if whole { 0 } else { since.0 };
        for (thing, _) in state.stamps.last.iter().filter(|(_, stamp)| **stamp > after) {
            let removed = match thing {
                Thing::Client(name) => {
                    changes.clients.extend(state.clients.get(name).cloned());
                    None
                }
                Thing::Key(hash) => match state.keys.get(hash) {
                    Some(key) => {
                        changes.keys.push(key.clone());
                        None
                    }
                    None => Some(Removed::Key(*hash)),
                },
                Thing::Application(client, name) => {
                    match state.applications.get(&(client.clone(), name.clone())) {
                        Some(application) => {
                            changes.applications.push(application.clone());
                            None
                        }
                        None => Some(Removed::Application(client.clone(), name.clone())),
                    }
                }
                Thing::Pipeline(id) => match state.pipelines.get(id) {
                    Some(pipeline) => {
                        changes.pipelines.push(pipeline.clone());
                        None
                    }
                    None => Some(Removed::Pipeline(*id)),
                },
            };
            changes.removed.extend(removed.filter(|_| !whole));
        }
        Ok(changes)
    }
}
