//! The embedded adapters of the workload scheduler: the task log and the store in one directory, with nothing else installed.
mod codec;
mod config;
mod directory;
mod engine;
mod error;
mod journal;
mod log;
mod store;

use std::path::Path;
use std::sync::Arc;

pub use self::config::EmbeddedConfig;
pub use self::error::{Corrupt, OpenError};
pub use self::log::EmbeddedLog;
pub use self::store::EmbeddedStore;
use crate::directory::Directory;
use crate::engine::Engine;

/// An open data directory.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The task log.
    pub log: Arc<EmbeddedLog>,
    /// Checkpoints, archive and catalog.
    pub store: Arc<EmbeddedStore>,
}

impl Embedded {
    /// Opens the data directory `dir`, making it if there is none, and reads what the log needs in memory. It blocks meanwhile.
    pub fn open(dir: impl AsRef<Path>, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let directory = Arc::new(Directory::open(dir.as_ref())?);
        let engine = Engine::open(&directory.part("engine"), &config)?;
        let store = Arc::new(EmbeddedStore::new(directory.clone(), engine.clone()));
        let log = Arc::new(EmbeddedLog::open(directory, engine, config)?);
        Ok(Self { log, store })
    }
}
