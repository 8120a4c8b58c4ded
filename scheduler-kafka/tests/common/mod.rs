//! A cluster of schedulers of its own for each test, on the Kafka that `SCHEDULER_TEST_KAFKA` names.

#![allow(dead_code, reason = "not every test needs everything")]

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use scheduler_kafka::KafkaConfig;

/// What a variable leads to.
pub(crate) fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("set {variable} (docs/services.md), or run `cargo xtask test`, which starts what it leads to")
    })
}

/// The name of a cluster that no other test has; its topics are deleted at the end.
pub(crate) struct Cluster {
    pub(crate) bootstrap: String,
    pub(crate) name: String,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let bootstrap = named("SCHEDULER_TEST_KAFKA");
        let name = format!("test-{:016x}", fastrand::u64(..));
        Self { bootstrap, name }
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        let mut config = KafkaConfig::new(&self.bootstrap, &self.name);
        config.replication = 1;
        config
    }

    /// A client as anybody has it.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let (config, group) = (self.client(), self.name.clone());
        let prefix = format!("{group}.");
        // The test's own runtime may be ending.
        let cleaned = std::thread::spawn(move || {
            let admin: AdminClient<DefaultClientContext> = config.create().ok()?;
            let patience = std::time::Duration::from_secs(10);
            let metadata = admin.inner().fetch_metadata(None, patience).ok()?;
            let ours: Vec<&str> = metadata
                .topics()
                .iter()
                .map(rdkafka::metadata::MetadataTopic::name)
                .filter(|name| name.starts_with(&prefix))
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            let _ = runtime.block_on(admin.delete_topics(&ours, &AdminOptions::new()));
            let _ = runtime.block_on(admin.delete_groups(&[&group], &AdminOptions::new()));
            Some(())
        });
        let _ = cleaned.join();
    }
}
