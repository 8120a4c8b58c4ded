//! The contract of [`TaskLog`].

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use scheduler_core::id::{Offset, PipelineId, ShardId};
use scheduler_core::port::log::{LogError, LogReader, ReadLimit, TaskLog};
use scheduler_core::task::{Priority, Record, RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

use super::{LogWorld, shard, topic};

/// Makes a test of each sentence of the contract; takes an expression that makes a fresh [`LogWorld`].
///
/// `log_contract!(world, numbers_never_return)` leaves out `offsets_go_on_after_a_deletion`, for a log that keeps nothing of a deleted
/// topic (Kafka): it relies on the catalog, which never gives a pipeline's number again.
#[macro_export]
macro_rules! log_contract {
    ($world:expr) => {
        $crate::log_contract!($world, numbers_never_return);
        #[::tokio::test]
        async fn offsets_go_on_after_a_deletion() {
            $crate::contract::log::offsets_go_on_after_a_deletion(&mut $world).await;
        }
    };
    ($world:expr, numbers_never_return) => {
        $crate::contract_tests!(
            log,
            $world,
            offsets_rise_in_the_order_of_the_tasks,
            what_was_appended_reads_back_whole,
            every_append_of_many_at_once_arrives_once,
            partitions_are_apart,
            a_reader_waits_for_what_comes,
            a_read_that_was_dropped_has_taken_nothing,
            limits_bound_a_read,
            a_large_record_passes_the_limit,
            readers_are_independent,
            what_was_truncated_is_missed_by_name,
            what_was_not_truncated_stays,
            a_partition_can_be_truncated_to_its_end,
            what_does_not_exist_is_not_found,
            a_topic_grows_and_never_shrinks,
            a_deleted_topic_is_gone,
            a_waiting_reader_of_a_deleted_topic_ends,
            a_restart_keeps_everything,
            offsets_go_on_after_truncation_and_restart,
            a_task_that_is_too_large_is_refused,
        );
    };
}

const MANY: ReadLimit = ReadLimit {
    records: 100_000,
    bytes: 100 << 20,
};

fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<TaskSpec> {
    numbers
        .into_iter()
        .map(|n| TaskSpec::new(format!("{{\"n\":{n}}}")))
        .collect()
}

fn spec(record: &Record) -> &TaskSpec {
    match &record.body {
        RecordBody::Task(task) => task,
        RecordBody::Undecodable { problem, .. } => panic!("record {:?} is no task: {problem}", record.offset),
    }
}

async fn open(world: &mut dyn LogWorld) -> Arc<dyn TaskLog> {
    let log = world.open().await;
    log.ensure(&topic(1, 2)).await.expect("a topic can be made");
    log
}

async fn append(log: &Arc<dyn TaskLog>, shard: ShardId, tasks: Vec<TaskSpec>) -> Vec<Offset> {
    log.append(shard, tasks).await.expect("an append succeeds")
}

async fn reader(log: &Arc<dyn TaskLog>, shard: ShardId, from: Offset) -> Box<dyn LogReader> {
    log.read(shard, from).await.expect("what is there can be read")
}

/// Reads exactly `count` records.
async fn take(reader: &mut dyn LogReader, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        let limit = ReadLimit {
            records: count - records.len(),
            ..MANY
        };
        reader
            .next(limit, &mut records)
            .await
            .expect("what is there can be read");
    }
    records
}

/// Reads exactly `count` records from `from` on.
async fn read(log: &Arc<dyn TaskLog>, shard: ShardId, from: Offset, count: usize) -> Vec<Record> {
    take(&mut *reader(log, shard, from).await, count).await
}

/// Polls a read once and drops it.
fn poll_and_drop(reader: &mut dyn LogReader, into: &mut Vec<Record>) -> bool {
    let mut read = reader.next(MANY, into);
    matches!(
        read.as_mut().poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(_)
    )
}

/// Offsets rise, in the order of an append's tasks.
pub async fn offsets_rise_in_the_order_of_the_tasks(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let mut offsets = append(&log, shard(1, 0), numbered(0..10)).await;
    offsets.extend(append(&log, shard(1, 0), numbered(10..15)).await);
    assert_eq!(offsets.len(), 15);
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");

    let records = read(&log, shard(1, 0), offsets[0], 15).await;
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), offsets);
    assert_eq!(
        records.iter().map(|r| spec(r).clone()).collect::<Vec<_>>(),
        numbered(0..15)
    );
}

/// Params, priority and options of a task come back as they were given. Options of which none is set may come back as no options: a
/// plain record of Kafka has no place to say that nothing was said.
pub async fn what_was_appended_reads_back_whole(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let options = TaskOptions {
        not_before: Some(Timestamp::from_millis(1)),
        deadline: Some(Timestamp::MAX),
        idempotency_key: Some("once".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    let tasks = vec![
        TaskSpec::new(""),
        TaskSpec::new("{}"),
        TaskSpec {
            priority: Priority::MAX,
            ..TaskSpec::new(vec![0u8, 255, 10, 13])
        },
        TaskSpec {
            options: Some(Box::new(options)),
            ..TaskSpec::new("{\"a\":1}")
        },
        TaskSpec {
            options: Some(Box::default()),
            ..TaskSpec::new("x".repeat(300_000))
        },
    ];
    let offsets = append(&log, shard(1, 0), tasks.clone()).await;
    let records = read(&log, shard(1, 0), offsets[0], tasks.len()).await;
    let said = |task: &TaskSpec| TaskSpec {
        options: task
            .options
            .clone()
            .filter(|options| **options != TaskOptions::default()),
        ..task.clone()
    };
    assert_eq!(
        records.iter().map(|r| said(spec(r))).collect::<Vec<_>>(),
        tasks.iter().map(said).collect::<Vec<_>>()
    );
}

/// Appends that run at the same time all arrive, each once and in one piece.
pub async fn every_append_of_many_at_once_arrives_once(world: &mut dyn LogWorld) {
    const WRITERS: u64 = 40;
    const EACH: u64 = 25;
    let log = open(world).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let log = log.clone();
        writers.spawn(async move {
            let numbers = writer * EACH..(writer + 1) * EACH;
            (
                numbers.clone(),
                append(&log, shard(1, 0), numbered(numbers)).await,
            )
        });
    }
    let mut expected = std::collections::BTreeMap::new();
    for (numbers, offsets) in writers.join_all().await {
        assert!(offsets.is_sorted_by(|a, b| a < b));
        expected.extend(offsets.into_iter().zip(numbered(numbers)));
    }
    assert_eq!(expected.len() as u64, WRITERS * EACH, "no offset is given twice");
    let start = log.bounds(shard(1, 0)).await.expect("the partition exists").start;
    let records = read(&log, shard(1, 0), start, expected.len()).await;
    let found: Vec<_> = records.iter().map(|r| (r.offset, spec(r).clone())).collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

/// A record of one partition is not seen in another.
pub async fn partitions_are_apart(world: &mut dyn LogWorld) {
    let log = open(world).await;
    log.ensure(&topic(2, 1)).await.expect("a topic can be made");
    for (n, place) in [shard(1, 0), shard(1, 1), shard(2, 0)].into_iter().enumerate() {
        append(&log, place, numbered([n as u64])).await;
    }
    for (n, place) in [shard(1, 0), shard(1, 1), shard(2, 0)].into_iter().enumerate() {
        let bounds = log.bounds(place).await.expect("the partition exists");
        let records = read(&log, place, bounds.start, 1).await;
        assert_eq!(spec(&records[0]), &numbered([n as u64])[0]);
        assert_eq!(records[0].offset.next(), bounds.end);
    }
}

/// A reader at the end waits, and gets what is appended then.
pub async fn a_reader_waits_for_what_comes(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let end = log.bounds(shard(1, 0)).await.expect("the partition exists").end;
    let mut reader = reader(&log, shard(1, 0), end).await;
    for n in 0..20 {
        let (records, _) =
            tokio::join!(biased; take(&mut *reader, 1), append(&log, shard(1, 0), numbered([n])));
        assert_eq!(spec(&records[0]), &numbered([n])[0]);
    }
}

/// A read that is dropped while it waits has taken nothing.
pub async fn a_read_that_was_dropped_has_taken_nothing(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let first = append(&log, shard(1, 0), numbered(0..1)).await[0];
    let mut reader = reader(&log, shard(1, 0), first).await;
    let mut found = Vec::new();
    for n in 1..50 {
        // Whether it is ready at once or not, nothing may be lost or come twice.
        poll_and_drop(&mut *reader, &mut found);
        append(&log, shard(1, 0), numbered([n])).await;
        poll_and_drop(&mut *reader, &mut found);
    }
    let rest = 50 - found.len();
    found.extend(take(&mut *reader, rest).await);
    assert_eq!(
        found.iter().map(|r| spec(r).clone()).collect::<Vec<_>>(),
        numbered(0..50)
    );
}

/// A read takes no more records and bytes than it may.
pub async fn limits_bound_a_read(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let first = append(&log, shard(1, 0), vec![TaskSpec::new("x".repeat(100)); 50]).await[0];
    let mut reader = reader(&log, shard(1, 0), first).await;
    let mut left = 50;
    while left > 0 {
        for limit in [
            ReadLimit {
                records: 3,
                bytes: 1 << 20,
            },
            ReadLimit {
                records: 100,
                bytes: 250,
            },
        ] {
            let mut records = Vec::new();
            if left > 0 {
                reader
                    .next(limit, &mut records)
                    .await
                    .expect("what is there can be read");
                assert!(
                    (1..=3).contains(&records.len()),
                    "{limit:?} gave {}",
                    records.len()
                );
                assert!(records.len() * 100 <= limit.bytes);
                left -= records.len();
            }
        }
    }
}

/// A record larger than a reader's limit is read all the same, alone.
pub async fn a_large_record_passes_the_limit(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let tasks = vec![TaskSpec::new("a".repeat(5_000)), TaskSpec::new("b".repeat(5_000))];
    let first = append(&log, shard(1, 0), tasks.clone()).await[0];
    let mut reader = reader(&log, shard(1, 0), first).await;
    for task in tasks {
        let mut records = Vec::new();
        reader
            .next(
                ReadLimit {
                    records: 10,
                    bytes: 1,
                },
                &mut records,
            )
            .await
            .expect("what is there can be read");
        assert_eq!(
            records.iter().map(|r| spec(r).clone()).collect::<Vec<_>>(),
            [task]
        );
    }
}

/// What one reader takes, another still gets.
pub async fn readers_are_independent(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let offsets = append(&log, shard(1, 0), numbered(0..30)).await;
    let mut one = reader(&log, shard(1, 0), offsets[0]).await;
    let mut other = reader(&log, shard(1, 0), offsets[10]).await;
    take(&mut *one, 25).await;
    assert_eq!(spec(&take(&mut *other, 20).await[0]), &numbered([10])[0]);
    assert_eq!(take(&mut *one, 5).await.len(), 5);
}

/// A reader that asks for what was truncated is told where the log begins.
pub async fn what_was_truncated_is_missed_by_name(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let offsets = append(&log, shard(1, 0), numbered(0..30)).await;
    log.truncate(shard(1, 0), offsets[20])
        .await
        .expect("a truncation succeeds");
    let bounds = log.bounds(shard(1, 0)).await.expect("the partition exists");
    assert!(bounds.start <= offsets[20]);
    // The records may stay for a while; then they are whole.
    match log.read(shard(1, 0), offsets[0]).await {
        Err(LogError::Truncated {
            shard: of,
            asked,
            start,
        }) => {
            assert_eq!((of, asked), (shard(1, 0), offsets[0]));
            assert!(start <= offsets[20]);
        }
        Err(other) => panic!("expected the records or what is missing: {other}"),
        Ok(mut reader) => assert_eq!(take(&mut *reader, 30).await[0].offset, offsets[0]),
    }
}

/// What lies at and after the point of truncation stays.
pub async fn what_was_not_truncated_stays(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let offsets = append(&log, shard(1, 0), numbered(0..30)).await;
    append(&log, shard(1, 1), numbered(0..30)).await;
    log.truncate(shard(1, 0), offsets[20])
        .await
        .expect("a truncation succeeds");
    log.truncate(shard(1, 0), offsets[10])
        .await
        .expect("an older truncation is no error");
    let rest = read(&log, shard(1, 0), offsets[20], 10).await;
    assert_eq!(
        rest.iter().map(|r| spec(r).clone()).collect::<Vec<_>>(),
        numbered(20..30)
    );
    let other = log.bounds(shard(1, 1)).await.expect("the partition exists");
    assert_eq!(read(&log, shard(1, 1), other.start, 30).await.len(), 30);
}

/// When everything is given up, the next offset is still a new one.
pub async fn a_partition_can_be_truncated_to_its_end(world: &mut dyn LogWorld) {
    let log = open(world).await;
    append(&log, shard(1, 0), numbered(0..30)).await;
    let end = log.bounds(shard(1, 0)).await.expect("the partition exists").end;
    log.truncate(shard(1, 0), end)
        .await
        .expect("a truncation succeeds");
    let mut reader = reader(&log, shard(1, 0), end).await;
    let next = append(&log, shard(1, 0), numbered([30])).await[0];
    assert!(next >= end);
    assert_eq!(take(&mut *reader, 1).await[0].offset, next);
}

/// A topic or partition that was never made is not found.
pub async fn what_does_not_exist_is_not_found(world: &mut dyn LogWorld) {
    let log = open(world).await;
    for missing in [shard(1, 2), shard(9, 0)] {
        let not_found =
            |error: Option<LogError>| matches!(error, Some(LogError::NotFound(id)) if id == missing);
        assert!(not_found(log.append(missing, numbered(0..1)).await.err()));
        assert!(not_found(log.bounds(missing).await.err()));
        assert!(not_found(log.read(missing, Offset::ZERO).await.err()));
    }
    log.delete(PipelineId(9))
        .await
        .expect("deleting what does not exist succeeds");
}

/// A topic gets more partitions when asked for more, and keeps them when asked for fewer.
pub async fn a_topic_grows_and_never_shrinks(world: &mut dyn LogWorld) {
    let log = open(world).await;
    append(&log, shard(1, 1), numbered(0..3)).await;
    log.ensure(&topic(1, 4)).await.expect("a topic can grow");
    log.ensure(&topic(1, 1))
        .await
        .expect("asking for less is no error");
    append(&log, shard(1, 3), numbered(0..1)).await;
    let bounds = log.bounds(shard(1, 1)).await.expect("the partition exists");
    assert_eq!(read(&log, shard(1, 1), bounds.start, 3).await.len(), 3);
}

/// Nothing of a deleted topic is left.
pub async fn a_deleted_topic_is_gone(world: &mut dyn LogWorld) {
    let log = open(world).await;
    log.ensure(&topic(2, 1)).await.expect("a topic can be made");
    append(&log, shard(1, 0), numbered(0..3)).await;
    append(&log, shard(2, 0), numbered(0..3)).await;
    log.delete(PipelineId(1)).await.expect("a deletion succeeds");
    log.delete(PipelineId(1))
        .await
        .expect("a second deletion is no error");
    assert!(matches!(
        log.bounds(shard(1, 0)).await,
        Err(LogError::NotFound(_))
    ));
    assert!(matches!(
        log.append(shard(1, 0), numbered(0..1)).await,
        Err(LogError::NotFound(_))
    ));
    let other = log.bounds(shard(2, 0)).await.expect("the other topic stays");
    assert_eq!(read(&log, shard(2, 0), other.start, 3).await.len(), 3);
}

/// No offset of a deleted topic is given again, and none of its records come back.
pub async fn offsets_go_on_after_a_deletion(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let old = append(&log, shard(1, 0), numbered(0..10)).await;
    log.delete(PipelineId(1)).await.expect("a deletion succeeds");
    drop(log);
    let log = open(world).await;
    let new = append(&log, shard(1, 0), numbered(10..12)).await;
    assert!(new[0] > old[9], "{new:?} after {old:?}");
    drop(log);
    let log = open(world).await;
    let bounds = log.bounds(shard(1, 0)).await.expect("the partition exists");
    let records = read(&log, shard(1, 0), bounds.start, 2).await;
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), new);
}

/// Whoever waits for records of a topic is told that it is deleted.
pub async fn a_waiting_reader_of_a_deleted_topic_ends(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let end = log.bounds(shard(1, 0)).await.expect("the partition exists").end;
    let mut reader = reader(&log, shard(1, 0), end).await;
    let mut records = Vec::new();
    let (read, deleted) = tokio::join!(biased; reader.next(MANY, &mut records), log.delete(PipelineId(1)));
    deleted.expect("a deletion succeeds");
    assert!(matches!(read, Err(LogError::NotFound(id)) if id == shard(1, 0)));
}

/// Topics, records and what was truncated are as they were.
pub async fn a_restart_keeps_everything(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let offsets = append(&log, shard(1, 0), numbered(0..100)).await;
    append(&log, shard(1, 1), numbered(100..103)).await;
    log.truncate(shard(1, 0), offsets[40])
        .await
        .expect("a truncation succeeds");
    drop(log);

    let log = world.open().await;
    let records = read(&log, shard(1, 0), offsets[40], 60).await;
    assert_eq!(
        records.iter().map(|r| r.offset).collect::<Vec<_>>(),
        offsets[40..]
    );
    assert_eq!(
        records.iter().map(|r| spec(r).clone()).collect::<Vec<_>>(),
        numbered(40..100)
    );
    let next = append(&log, shard(1, 0), numbered([100])).await;
    assert!(next[0] > offsets[99]);
    assert_eq!(read(&log, shard(1, 0), offsets[99], 2).await[1].offset, next[0]);
}

/// Also when nothing is left of a partition, its offsets go on.
pub async fn offsets_go_on_after_truncation_and_restart(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let old = append(&log, shard(1, 0), numbered(0..10)).await;
    log.truncate(shard(1, 0), old[9].next())
        .await
        .expect("a truncation succeeds");
    drop(log);
    let log = world.open().await;
    assert!(append(&log, shard(1, 0), numbered([10])).await[0] > old[9]);
}

/// A task beyond the log's limit is refused with its size and the limit, and nothing of its append is taken.
pub async fn a_task_that_is_too_large_is_refused(world: &mut dyn LogWorld) {
    let log = open(world).await;
    let before = log.bounds(shard(1, 0)).await.expect("the partition exists");
    let tasks = vec![TaskSpec::new("{}"), TaskSpec::new(vec![b'x'; 64 << 20])];
    match log.append(shard(1, 0), tasks).await {
        Err(LogError::TooLarge { bytes, limit }) => assert!(bytes >= 64 << 20 && limit < bytes),
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(
        log.bounds(shard(1, 0)).await.expect("the partition exists"),
        before
    );
}
