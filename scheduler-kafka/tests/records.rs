//! Records of other producers, and a Kafka that is away.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

mod common;

use std::time::Duration;

use common::Cluster;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use scheduler_core::id::Offset;
use scheduler_core::port::log::{LogError, ReadLimit, TaskLog};
use scheduler_core::task::{Priority, Record, RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_kafka::{KafkaConfig, KafkaLog, OpenError, headers};
use scheduler_testkit::contract::{shard, topic};

async fn read(log: &KafkaLog, count: usize) -> Vec<Record> {
    let mut reader = log.read(shard(1, 0), Offset::ZERO).await.unwrap();
    let mut records = Vec::new();
    while records.len() < count {
        let limit = ReadLimit {
            records: count - records.len(),
            bytes: 1 << 20,
        };
        reader.next(limit, &mut records).await.unwrap();
    }
    records
}

fn said(all: &[(&str, &str)]) -> OwnedHeaders {
    let add = |headers: OwnedHeaders, (key, value): &(&str, &str)| {
        let value = Some(*value);
        headers.insert(Header { key, value })
    };
    all.iter().fold(OwnedHeaders::new(), add)
}

#[tokio::test]
async fn plain_records_are_tasks_and_wrong_ones_are_kept_as_they_are() {
    let cluster = Cluster::new();
    let log = KafkaLog::open(cluster.config()).await.unwrap();
    log.ensure(&topic(1, 1)).await.unwrap();
    let name = format!("{}.default.test.p1.1", cluster.name);
    let producer: BaseProducer = cluster.client().create().unwrap();
    let send = |payload: Option<&str>, headers: Option<OwnedHeaders>| {
        let mut record = BaseRecord::<str, str>::to(&name)
            .key("a key of theirs")
            .partition(0);
        record.payload = payload;
        record.headers = headers;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    send(Some("{\"plain\":1}"), None);
    send(
        Some("{}"),
        Some(said(&[
            ("content-type", "application/json"),
            (headers::PRIORITY, "9"),
            (headers::DEADLINE, "1700000000000"),
            (headers::IDEMPOTENCY_KEY, "once"),
        ])),
    );
    send(Some("{\"bad\":1}"), Some(said(&[(headers::PRIORITY, "urgent")])));
    send(None, None);
    send(Some(""), None);
    producer.flush(Duration::from_secs(10)).unwrap();

    let records = read(&log, 5).await;
    assert!(records.iter().all(|record| record.appended_at > Timestamp::ZERO));
    let task = |at: usize| match &records[at].body {
        RecordBody::Task(task) => task.clone(),
        RecordBody::Undecodable { problem, .. } => panic!("{problem}"),
    };
    assert_eq!(task(0), TaskSpec::new("{\"plain\":1}"));
    let expected = TaskSpec {
        priority: Priority::MAX,
        options: Some(Box::new(TaskOptions {
            deadline: Some(Timestamp::from_millis(1_700_000_000_000)),
            idempotency_key: Some("once".into()),
            ..TaskOptions::default()
        })),
        ..TaskSpec::new("{}")
    };
    assert_eq!(task(1), expected);
    let undecodable = |at: usize| match &records[at].body {
        RecordBody::Undecodable { raw, problem } => (raw.clone(), problem.clone()),
        RecordBody::Task(task) => panic!("{task:?} is a task"),
    };
    let (raw, problem) = undecodable(2);
    assert_eq!(raw, "{\"bad\":1}");
    assert!(problem.contains(headers::PRIORITY), "{problem}");
    let (raw, problem) = undecodable(3);
    assert!(raw.is_empty() && problem.contains("null"), "{problem}");
    assert_eq!(task(4), TaskSpec::new(""));
}

#[tokio::test]
async fn a_topic_that_another_node_made_grew_or_deleted_is_seen() {
    let cluster = Cluster::new();
    let one = KafkaLog::open(cluster.config()).await.unwrap();
    let other = KafkaLog::open(cluster.config()).await.unwrap();
    one.ensure(&topic(1, 1)).await.unwrap();
    other
        .append(shard(1, 0), vec![TaskSpec::new("{}")])
        .await
        .unwrap();
    one.ensure(&topic(1, 3)).await.unwrap();
    other
        .append(shard(1, 2), vec![TaskSpec::new("{}")])
        .await
        .unwrap();
    let mut reader = other.read(shard(1, 0), Offset(1)).await.unwrap();
    one.delete(shard(1, 0).pipeline).await.unwrap();
    let limit = ReadLimit { records: 1, bytes: 1 };
    let ended = reader.next(limit, &mut Vec::new()).await;
    assert!(matches!(ended, Err(LogError::NotFound(_))), "{ended:?}");
}

#[tokio::test]
async fn what_was_truncated_under_a_reader_is_counted() {
    let cluster = Cluster::new();
    let log = KafkaLog::open(cluster.config()).await.unwrap();
    log.ensure(&topic(1, 1)).await.unwrap();
    log.append(shard(1, 0), vec![TaskSpec::new("{}"); 30])
        .await
        .unwrap();
    log.truncate(shard(1, 0), Offset(20)).await.unwrap();
    let problem = log.read(shard(1, 0), Offset(5)).await.unwrap_err();
    let LogError::Truncated { asked, start, .. } = problem else {
        panic!("{problem:?}")
    };
    assert_eq!((asked, start), (Offset(5), Offset(20)));
    let problem = log.read(shard(1, 0), Offset(31)).await.unwrap_err();
    assert!(matches!(problem, LogError::Damaged { .. }), "{problem:?}");
}

#[tokio::test]
async fn a_kafka_that_is_away_is_an_error_in_bounded_time() {
    // Bound and never served: nobody else listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut config = KafkaConfig::new(address.to_string(), "away");
    config.request_timeout = Duration::from_secs(1);
    let problem = KafkaLog::open(config).await.unwrap_err();
    assert!(matches!(problem, OpenError::Unavailable { .. }), "{problem:?}");
}

/// Both ways between the consumers for a backlog and for partitions that stand still.
#[tokio::test]
async fn a_partition_whose_backlog_comes_and_goes_is_read_once_and_in_order() {
    let cluster = Cluster::new();
    let log = KafkaLog::open(cluster.config()).await.unwrap();
    log.ensure(&topic(1, 1)).await.unwrap();
    let mut reader = log.read(shard(1, 0), Offset::ZERO).await.unwrap();
    let limit = ReadLimit {
        records: 100,
        bytes: 1 << 20,
    };
    let (mut records, mut sent) = (Vec::new(), 0);
    for round in 0..3 {
        let batch = (0..2_000)
            .map(|n| TaskSpec::new(format!("{{\"n\":{}}}", sent + n)))
            .collect();
        log.append(shard(1, 0), batch).await.unwrap();
        sent += 2_000;
        while records.len() < sent {
            reader.next(limit, &mut records).await.unwrap();
        }
        // Time that nobody needs passes at once: the backlog is long gone when the next records come.
        tokio::time::pause();
        let waiting = tokio::time::timeout(Duration::from_mins(1), reader.next(limit, &mut records));
        assert!(waiting.await.is_err(), "round {round}: there is nothing to read");
        tokio::time::resume();
    }
    let params = records.iter().map(|record| match &record.body {
        RecordBody::Task(task) => task.params.clone(),
        RecordBody::Undecodable { problem, .. } => panic!("{problem}"),
    });
    assert!(params.eq((0..sent).map(|n| format!("{{\"n\":{n}}}"))));
}
