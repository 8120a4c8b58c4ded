//! Brokers that speak TLS, with and without a password; and what is said when a property is missing or wrong.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod common;

use std::error::Error;

use common::{Cluster, named};
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use scheduler_core::port::log::{ReadLimit, TaskLog};
use scheduler_core::task::TaskSpec;
use scheduler_kafka::{KafkaConfig, KafkaLog, OpenError};
use scheduler_testkit::contract::topic;

/// The certificate of an authority that nobody here has a certificate of.
const STRANGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/stranger.pem");

/// A cluster whose log is to be reached as `properties` say.
fn config(cluster: &Cluster, address: &str, properties: &[(&str, &str)]) -> KafkaConfig {
    let mut config = cluster.config();
    config.bootstrap = named(address);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config.properties = properties.iter().map(owned).collect();
    config
}

/// Everything that an error says, and what caused it.
fn chain(error: &OpenError) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn refusal(config: KafkaConfig) -> String {
    let error = KafkaLog::open(config).await.unwrap_err();
    assert!(matches!(error, OpenError::Unavailable { .. }), "{error:?}");
    chain(&error)
}

/// Admin, producer and reader.
async fn works(config: KafkaConfig) {
    let log = KafkaLog::open(config).await.unwrap();
    log.ensure(&topic(1, 1)).await.unwrap();
    let shard = ShardId::new(PipelineId(1), Partition(0));
    let offsets = log
        .append(shard, vec![TaskSpec::new("under seal")])
        .await
        .unwrap();
    assert_eq!(offsets, [Offset(0)]);
    let mut reader = log.read(shard, Offset(0)).await.unwrap();
    let limit = ReadLimit {
        records: 1,
        bytes: 1 << 20,
    };
    let mut records = Vec::new();
    reader.next(limit, &mut records).await.unwrap();
    assert_eq!(records.len(), 1);
}

#[tokio::test]
async fn the_log_is_kept_by_brokers_that_speak_tls() {
    let cluster = Cluster::new();
    let ca = named("SCHEDULER_TEST_KAFKA_CA");
    works(config(
        &cluster,
        "SCHEDULER_TEST_KAFKA_TLS",
        &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)],
    ))
    .await;
}

#[tokio::test]
async fn the_log_is_kept_by_brokers_that_ask_for_a_password_too() {
    let cluster = Cluster::new();
    let ca = named("SCHEDULER_TEST_KAFKA_CA");
    let with = |password| {
        config(
            &cluster,
            "SCHEDULER_TEST_KAFKA_SASL",
            &[
                ("security.protocol", "sasl_ssl"),
                ("ssl.ca.location", &ca),
                ("sasl.mechanisms", "PLAIN"),
                ("sasl.username", "anna"),
                ("sasl.password", password),
            ],
        )
    };
    works(with("anna-secret")).await;
    let said = refusal(with("another-secret")).await;
    assert!(
        said.contains("SASL") && said.contains("Authentication failed"),
        "{said}"
    );
    assert!(!said.contains("another-secret"), "{said}");
}

#[tokio::test]
async fn brokers_that_cannot_be_verified_are_refused_and_the_property_to_set_is_named() {
    let cluster = Cluster::new();
    let tls = "SCHEDULER_TEST_KAFKA_TLS";
    for properties in [
        &[("security.protocol", "ssl")][..],
        &[("security.protocol", "ssl"), ("ssl.ca.location", STRANGER)],
    ] {
        let said = refusal(config(&cluster, tls, properties)).await;
        assert!(said.contains("ssl.ca.location"), "{said}");
    }
}

#[tokio::test]
async fn who_speaks_no_tls_to_brokers_that_do_is_told_which_property_it_may_be() {
    let cluster = Cluster::new();
    let said = refusal(config(&cluster, "SCHEDULER_TEST_KAFKA_TLS", &[])).await;
    assert!(said.contains("security.protocol"), "{said}");
}
