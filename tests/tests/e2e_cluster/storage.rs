//! Where the nodes of a test keep things: topics and a consumer group of a name of the test's own, and a database of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

/// How long the servers may take to forget a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster's name on the Kafka that `SCHEDULER_TEST_KAFKA` names, and a database of that name on the TiDB of `SCHEDULER_TEST_TIDB`.
/// Topics and database are deleted with it.
pub(crate) struct Storage {
    pub(crate) kafka: String,
    tidb: String,
    pub(crate) name: String,
}

impl Storage {
    /// Enough for one to own what another is asked about.
    pub(crate) const NODES: usize = 2;

    pub(crate) async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let storage = Self {
            kafka: named("SCHEDULER_TEST_KAFKA"),
            tidb: named("SCHEDULER_TEST_TIDB").trim_end_matches('/').to_owned(),
            name: format!("e2e-{}-{count}", std::process::id()),
        };
        storage
            .run(format!("CREATE DATABASE `{}`", storage.name))
            .await
            .expect("SCHEDULER_TEST_TIDB names a server that runs, and its user may make databases");
        storage
    }

    /// What a server has to be told beside its directory.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let tidb = format!("{}/{}", self.tidb, self.name);
        [
            ("--kafka", self.kafka.as_str()),
            ("--tidb", &tidb),
            ("--cluster", &self.name),
            ("--cluster-secret", "known to both nodes"),
        ]
        .iter()
        .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
        .collect()
    }

    async fn run(&self, sql: String) -> Result<(), sqlx::Error> {
        let mut connection = MySqlConnection::connect(&self.tidb).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        connection.close().await
    }

    async fn delete_topics(&self) -> Result<(), rdkafka::error::KafkaError> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka)
            .create()?;
        let metadata = admin.inner().fetch_metadata(None, PATIENCE)?;
        let prefix = format!("{}.", self.name);
        let topics: Vec<&str> = metadata
            .topics()
            .iter()
            .map(rdkafka::metadata::MetadataTopic::name)
            .filter(|name| name.starts_with(&prefix))
            .collect();
        if !topics.is_empty() {
            let options = AdminOptions::new().request_timeout(Some(PATIENCE));
            admin.delete_topics(&topics, &options).await?;
        }
        Ok(())
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // The test's own runtime is busy with this very test.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                // What stays is untidy, and no reason to fail.
                let _ = runtime.map(|runtime| {
                    runtime.block_on(async {
                        let _ = self.delete_topics().await;
                        let _ = self.run(format!("DROP DATABASE `{}`", self.name)).await;
                    });
                });
            });
        });
    }
}

fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run `cargo xtask test`, which starts Kafka and TiDB, or `cargo xtask services up` and export what it prints"
        )
    })
}
