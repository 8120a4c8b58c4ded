//! A database for one test.

#![allow(dead_code, reason = "not every test needs everything")]

use std::sync::atomic::{AtomicU32, Ordering};

use scheduler_tidb::{TidbConfig, TidbStore};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

/// What a variable leads to.
pub(crate) fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("set {variable} (docs/services.md), or run `cargo xtask test`, which starts what it leads to")
    })
}

/// A database of the server that `SCHEDULER_TEST_TIDB` names; it is dropped with this.
pub(crate) struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    pub(crate) async fn new() -> Self {
        Self::on(named("SCHEDULER_TEST_TIDB")).await
    }

    /// On a server of `mysql://user@host:port`.
    pub(crate) async fn on(server: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("scheduler_test_{}_{count}", std::process::id());
        let scratch = Self { server, name };
        scratch.run(format!("CREATE DATABASE {}", scratch.name)).await;
        scratch
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.server.trim_end_matches('/'), self.name)
    }

    /// Expires nothing by itself: what a suite stores has expired long ago.
    pub(crate) fn config() -> TidbConfig {
        let mut config = TidbConfig::default();
        config.ttl = false;
        config
    }

    pub(crate) async fn connect(&self) -> TidbStore {
        TidbStore::connect(&self.url(), Self::config())
            .await
            .expect("TiDB can be connected to")
    }

    async fn run(&self, sql: String) {
        let mut connection = MySqlConnection::connect(&self.server)
            .await
            .expect("the variable names a server that runs");
        connection
            .execute(AssertSqlSafe(sql))
            .await
            .expect("the user may make and drop databases");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The test's own runtime is busy with this very test.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let drop_it = async {
                let mut connection = MySqlConnection::connect(&server).await?;
                connection
                    .execute(AssertSqlSafe(format!("DROP DATABASE {name}")))
                    .await
            };
            // A database that stays is untidy, and no reason to fail.
            let _ = runtime.map(|runtime| runtime.block_on(drop_it));
        });
        let _ = cleaner.join();
    }
}
