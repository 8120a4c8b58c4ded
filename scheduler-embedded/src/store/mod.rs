//! The store: checkpoints, what has ended, and the catalog, as rows of the engine.

mod archive;
mod catalog;
mod checkpoint;
pub(crate) mod pipeline_row;
pub(crate) mod results;
pub(crate) mod shard_row;
mod staged;

use std::fmt;
use std::sync::{Arc, Mutex};

use scheduler_core::port::store::StoreError;

use self::staged::Staged;
use crate::directory::Directory;
use crate::engine::Engine;
use crate::error::{blocking, store_unavailable};
use crate::log::lock;

/// The embedded store. See the crate's front page.
#[derive(Clone)]
pub struct EmbeddedStore {
    engine: Engine,
    /// Taken by who reads rows to write others.
    writing: Arc<Mutex<()>>,
    _directory: Arc<Directory>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    pub(crate) fn new(directory: Arc<Directory>, engine: Engine) -> Self {
        Self {
            engine,
            writing: Arc::default(),
            _directory: directory,
        }
    }

    /// Runs `work` where it may block.
    async fn read<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let engine = self.engine.clone();
        match blocking(move || work(&engine)).await {
            Ok(result) => result,
            Err(error) => Err(store_unavailable(error).into()),
        }
    }

    /// Runs `work` where it may block, alone among the writers, and makes what it staged durable in one step if it succeeds.
    async fn write<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&mut Staged<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let writing = self.writing.clone();
        self.read(move |engine| {
            let _alone = lock(&writing);
            let mut staged = Staged::new(engine);
            let answer = work(&mut staged)?;
            staged.commit()?;
            Ok(answer)
        })
        .await
    }
}
