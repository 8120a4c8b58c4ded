//! Changes that become durable together, and are seen by who makes them at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use scheduler_core::port::store::StoreError;

use crate::engine::{Engine, Key, Space};
use crate::error::store_unavailable;

/// Changes in the making. At most one for each key, since the engine gives all changes of a batch the same rank.
pub(crate) struct Staged<'a> {
    engine: &'a Engine,
    changes: BTreeMap<(Space, Vec<u8>), Option<Bytes>>,
}

impl<'a> Staged<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            changes: BTreeMap::new(),
        }
    }

    pub(crate) fn engine(&self) -> &'a Engine {
        self.engine
    }

    /// A row as it will be.
    pub(crate) fn get(&self, space: Space, key: &Key) -> Result<Option<Bytes>, StoreError> {
        // A key is looked up once or twice; a copy of its few bytes is cheap.
        match self.changes.get(&(space, key.bytes().to_vec())) {
            Some(change) => Ok(change.clone()),
            None => Ok(self
                .engine
                .keyspace(space)
                .get(key)
                .map_err(store_unavailable)?
                .map(Into::into)),
        }
    }

    pub(crate) fn put(&mut self, space: Space, key: Key, value: impl Into<Bytes>) {
        self.changes.insert((space, key.into_bytes()), Some(value.into()));
    }

    pub(crate) fn remove(&mut self, space: Space, key: Key) {
        self.changes.insert((space, key.into_bytes()), None);
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Makes the changes durable.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let mut batch = self.engine.batch();
        let mut written = BTreeMap::<Space, usize>::new();
        for ((space, key), value) in self.changes {
            let keyspace = self.engine.keyspace(space);
            *written.entry(space).or_default() += key.len() + value.as_ref().map_or(0, Bytes::len);
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        let commit = || {
            batch.commit()?;
            written
                .into_iter()
                .try_for_each(|(space, bytes)| self.engine.wrote(space, bytes))
        };
        commit().map_err(store_unavailable)
    }
}
