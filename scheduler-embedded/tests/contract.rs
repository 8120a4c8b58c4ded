//! The embedded adapters pass the suites: with the defaults, and with everything so small that every path is taken.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::port::log::TaskLog;
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_testkit::contract::{LogWorld, StoreWorld, Stores};
use tempfile::TempDir;

struct World {
    dir: TempDir,
    config: EmbeddedConfig,
}

impl World {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            config: EmbeddedConfig::default(),
        }
    }

    /// Every few records fill a segment, and only one is kept out of the engine; nothing stays in memory.
    fn tiny() -> Self {
        let mut config = EmbeddedConfig::default();
        config.segment_bytes = 4096;
        config.log_bytes = 4096;
        config.hot_bytes = 0;
        config.write_buffer_bytes = 64 << 10;
        Self {
            config,
            ..Self::new()
        }
    }

    fn open(&self) -> Embedded {
        Embedded::open(self.dir.path(), self.config.clone()).unwrap()
    }
}

#[async_trait]
impl LogWorld for World {
    async fn open(&mut self) -> Arc<dyn TaskLog> {
        World::open(self).log
    }
}

#[async_trait]
impl StoreWorld for World {
    async fn open(&mut self) -> Stores {
        let store = World::open(self).store;
        Stores {
            checkpoints: store.clone(),
            archive: store.clone(),
            catalog: store,
        }
    }
}

scheduler_testkit::log_contract!(World::new());
scheduler_testkit::checkpoint_contract!(World::new());
scheduler_testkit::parked_contract!(World::new());
scheduler_testkit::archive_contract!(World::new());
scheduler_testkit::catalog_contract!(World::new());

mod tiny {
    use super::World;

    scheduler_testkit::log_contract!(World::tiny());
}
