//! The ports in memory pass the suites.

use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::port::log::TaskLog;
use scheduler_testkit::contract::{ClusterStores, ClusterWorld, LogWorld, StoreWorld, Stores};
use scheduler_testkit::memory::{MemoryLog, MemoryStore};

#[derive(Default)]
struct Memory {
    log: MemoryLog,
    store: MemoryStore,
}

#[async_trait]
impl LogWorld for Memory {
    async fn open(&mut self) -> Arc<dyn TaskLog> {
        Arc::new(self.log.clone())
    }
}

#[async_trait]
impl StoreWorld for Memory {
    async fn open(&mut self) -> Stores {
        let store = Arc::new(self.store.clone());
        Stores {
            checkpoints: store.clone(),
            archive: store.clone(),
            catalog: store,
        }
    }
}

#[async_trait]
impl ClusterWorld for Memory {
    async fn open(&mut self) -> ClusterStores {
        let store = Arc::new(self.store.clone());
        ClusterStores {
            cluster: store.clone(),
            checkpoints: store.clone(),
            catalog: store,
        }
    }
}

scheduler_testkit::log_contract!(Memory::default());
scheduler_testkit::checkpoint_contract!(Memory::default());
scheduler_testkit::parked_contract!(Memory::default());
scheduler_testkit::archive_contract!(Memory::default());
scheduler_testkit::catalog_contract!(Memory::default());
scheduler_testkit::cluster_contract!(Memory::default());
