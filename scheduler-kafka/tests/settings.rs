//! What is asked of a pipeline's topic: had if the brokers can give it, refused by name if not.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod common;

use std::time::Duration;

use common::Cluster;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use scheduler_core::port::log::{LogError, TaskLog, Topic, TopicSettings};
use scheduler_kafka::KafkaLog;
use scheduler_testkit::contract::topic;

const PATIENCE: Duration = Duration::from_secs(10);

fn asked(replication: Option<u16>, settings: &[(&str, &str)]) -> Topic {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Topic {
        settings: TopicSettings {
            replication,
            settings: settings.iter().map(pair).collect(),
        },
        ..topic(1, 2)
    }
}

fn brokers(admin: &AdminClient<DefaultClientContext>) -> u16 {
    let metadata = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
    u16::try_from(metadata.brokers().len()).unwrap()
}

#[tokio::test]
async fn a_topic_has_the_copies_and_settings_that_its_pipeline_asks_for() {
    let cluster = Cluster::new();
    let mut config = cluster.config();
    config.topic_settings = vec![
        ("segment.ms".to_owned(), "7200000".to_owned()),
        ("flush.ms".to_owned(), "9000".to_owned()),
    ];
    let log = KafkaLog::open(config).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = cluster.client().create().unwrap();
    let copies = brokers(&admin);
    let wanted = asked(
        Some(copies),
        &[("min.insync.replicas", "1"), ("segment.ms", "3600000")],
    );
    log.check(&wanted).await.unwrap();
    let name = format!("{}.default.test.p1.1", cluster.name);
    let found = admin.inner().fetch_metadata(Some(&name), PATIENCE).unwrap();
    assert!(found.topics()[0].partitions().is_empty(), "a check makes nothing");

    log.ensure(&wanted).await.unwrap();
    let found = admin.inner().fetch_metadata(Some(&name), PATIENCE).unwrap();
    let partitions = found.topics()[0].partitions();
    assert_eq!(partitions.len(), 2);
    for partition in partitions {
        assert_eq!(partition.replicas().len(), usize::from(copies));
    }
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(&name)], &AdminOptions::new())
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    for (setting, value) in [
        ("min.insync.replicas", "1"),
        // Over the server's.
        ("segment.ms", "3600000"),
        ("flush.ms", "9000"),
        // As every topic of ours.
        ("retention.ms", "-1"),
    ] {
        let found = described.get(setting).unwrap().value.as_deref();
        assert_eq!(found, Some(value), "{setting}");
    }
}

#[tokio::test]
async fn what_the_brokers_cannot_give_is_refused_by_name() {
    let cluster = Cluster::new();
    let log = KafkaLog::open(cluster.config()).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = cluster.client().create().unwrap();
    let copies = brokers(&admin);
    let refusal = async |wanted: Topic| match log.check(&wanted).await.unwrap_err() {
        LogError::Refused { field, problem } => format!("{field} {problem}"),
        other => panic!("{other}"),
    };
    let too_many = refusal(asked(Some(copies + 1), &[])).await;
    assert_eq!(
        too_many,
        format!(
            "replication is {}; Kafka has brokers for at most {copies}",
            copies + 1
        )
    );
    let wrong = refusal(asked(None, &[("segment.bytes", "many")])).await;
    assert!(
        wrong.starts_with("topic_settings have a value that Kafka does not take: segment.bytes=many"),
        "{wrong}"
    );
    let ours = refusal(asked(None, &[("retention.ms", "1000")])).await;
    assert!(
        ours.starts_with("topic_settings.retention.ms cannot be asked for"),
        "{ours}"
    );
}
