//! The store passes the suites on a real TiDB, each test in a database of its own.

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use scheduler_testkit::contract::{ClusterStores, ClusterWorld, StoreWorld, Stores};

use self::common::Scratch;

#[async_trait]
impl StoreWorld for Scratch {
    async fn open(&mut self) -> Stores {
        let store = Arc::new(self.connect().await);
        Stores {
            checkpoints: store.clone(),
            archive: store.clone(),
            catalog: store,
        }
    }
}

#[async_trait]
impl ClusterWorld for Scratch {
    async fn open(&mut self) -> ClusterStores {
        let store = Arc::new(self.connect().await);
        ClusterStores {
            cluster: store.clone(),
            checkpoints: store.clone(),
            catalog: store,
        }
    }
}

scheduler_testkit::checkpoint_contract!(Scratch::new().await);
scheduler_testkit::parked_contract!(Scratch::new().await);
scheduler_testkit::archive_contract!(Scratch::new().await);
scheduler_testkit::catalog_contract!(Scratch::new().await);
scheduler_testkit::cluster_contract!(Scratch::new().await);
