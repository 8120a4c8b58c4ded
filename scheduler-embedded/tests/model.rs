//! Random histories: the log against lists, with segments so small that records keep moving into the engine and out of it; and the
//! store against the one in memory.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, NodeId, Offset, PipelineId, ShardId, Tenure};
use scheduler_core::port::log::{LogError, ReadLimit, TaskLog};
use scheduler_core::port::store::{Archive, CheckpointStore};
use scheduler_core::task::{RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_testkit::contract::{shard, topic};
use scheduler_testkit::memory::MemoryStore;
use scheduler_testkit::strategy;
use tempfile::TempDir;

fn open(dir: &Path) -> Embedded {
    let mut config = EmbeddedConfig::default();
    config.segment_bytes = 4096;
    config.log_bytes = 8192;
    config.hot_bytes = 2048;
    config.write_buffer_bytes = 64 << 10;
    Embedded::open(dir, config).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        place: ShardId,
        count: usize,
        size: usize,
    },
    Truncate {
        place: ShardId,
        share: f64,
    },
    Read {
        place: ShardId,
        share: f64,
    },
    Reopen,
}

fn place() -> impl Strategy<Value = ShardId> {
    (1u32..4, 0u32..2).prop_map(|(pipeline, partition)| shard(pipeline, partition))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (place(), 1usize..30, 1usize..400).prop_map(|(place, count, size)| Step::Append { place, count, size }),
        2 => (place(), 0.0..=1.0).prop_map(|(place, share)| Step::Truncate { place, share }),
        3 => (place(), 0.0..=1.0).prop_map(|(place, share)| Step::Read { place, share }),
        1 => Just(Step::Reopen),
    ]
}

/// A partition as a list.
#[derive(Default)]
struct Expected {
    start: usize,
    tasks: Vec<TaskSpec>,
}

impl Expected {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]
    fn at(&self, share: f64) -> usize {
        self.start + (share * (self.tasks.len() - self.start) as f64) as usize
    }
}

async fn read(log: &impl TaskLog, place: ShardId, from: usize, count: usize) -> Vec<TaskSpec> {
    let mut reader = log.read(place, Offset(from as u64)).await.unwrap();
    let mut records = Vec::new();
    while records.len() < count {
        reader
            .next(
                ReadLimit {
                    records: count - records.len(),
                    bytes: 5000,
                },
                &mut records,
            )
            .await
            .unwrap();
    }
    let tasks = records.into_iter().enumerate().map(|(at, record)| {
        assert_eq!(record.offset, Offset((from + at) as u64));
        match record.body {
            RecordBody::Task(task) => task,
            RecordBody::Undecodable { problem, .. } => panic!("{problem}"),
        }
    });
    tasks.collect()
}

async fn run(steps: Vec<Step>) {
    let dir = TempDir::new().unwrap();
    let mut embedded = open(dir.path());
    for pipeline in 1..4 {
        embedded.log.ensure(&topic(pipeline, 2)).await.unwrap();
    }
    let mut model: BTreeMap<ShardId, Expected> = BTreeMap::new();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { place, count, size } => {
                let tasks: Vec<_> = (0..count)
                    .map(|k| TaskSpec::new(format!("{n}-{k}-{}", "x".repeat(size))))
                    .collect();
                let expected = model.entry(place).or_default();
                let offsets = embedded.log.append(place, tasks.clone()).await.unwrap();
                assert_eq!(offsets[0], Offset(expected.tasks.len() as u64));
                expected.tasks.extend(tasks);
            }
            Step::Truncate { place, share } => {
                let expected = model.entry(place).or_default();
                expected.start = expected.at(share);
                embedded
                    .log
                    .truncate(place, Offset(expected.start as u64))
                    .await
                    .unwrap();
            }
            Step::Read { place, share } => {
                let expected = model.entry(place).or_default();
                let from = expected.at(share);
                let count = expected.tasks.len() - from;
                assert_eq!(
                    read(&*embedded.log, place, from, count).await,
                    expected.tasks[from..]
                );
            }
            Step::Reopen => {
                drop(embedded);
                embedded = open(dir.path());
            }
        }
    }
    for (&place, expected) in &model {
        let bounds = embedded.log.bounds(place).await.unwrap();
        assert_eq!(bounds.end, Offset(expected.tasks.len() as u64));
        // After a restart a truncation may have been forgotten, but nothing that was not truncated.
        assert!(bounds.start <= Offset(expected.start as u64));
        let count = expected.tasks.len() - expected.start;
        assert_eq!(
            read(&*embedded.log, place, expected.start, count).await,
            expected.tasks[expected.start..]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_list(steps in vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }

    #[test]
    fn the_store_is_as_the_one_in_memory(changes in vec(change(), 1..12)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(compare(changes));
    }
}

/// Offsets of tasks that end, die, live again, are parked and unparked; and when what has ended expires.
#[derive(Clone, Debug)]
struct Change {
    finished: Vec<u64>,
    dead: Vec<u64>,
    revived: Vec<u64>,
    parked: Vec<(u64, u64)>,
    unparked: Vec<u64>,
    expire_at: u64,
    now: u64,
}

fn change() -> impl Strategy<Value = Change> {
    let few = || vec(0u64..9000, 0..8);
    let near = || vec(0u64..12, 0..4);
    (
        few(),
        near(),
        near(),
        vec((0u64..12, 0u64..5), 0..4),
        near(),
        0u64..20,
        0u64..20,
    )
        .prop_map(|(finished, dead, revived, parked, unparked, expire_at, now)| {
            let parked: BTreeMap<u64, u64> = parked.into_iter().collect();
            let unparked = unparked
                .into_iter()
                .filter(|offset| !parked.contains_key(offset))
                .collect();
            Change {
                finished,
                dead,
                revived,
                parked: parked.into_iter().collect(),
                unparked,
                expire_at,
                now,
            }
        })
}

fn sample<T>(strategy: impl Strategy<Value = T>) -> T {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    strategy.new_tree(&mut runner).unwrap().current()
}

async fn compare(changes: Vec<Change>) {
    let dir = TempDir::new().unwrap();
    let mut embedded = open(dir.path()).store;
    let memory = MemoryStore::new();
    let place = shard(1, 0);
    let mut epoch = embedded.claim(place, NodeId(1)).await.unwrap().epoch;
    assert_eq!(memory.claim(place, NodeId(1)).await.unwrap().epoch, epoch);
    for (n, change) in changes.into_iter().enumerate() {
        let at = Timestamp::from_millis;
        let mut ended = change.finished;
        ended.sort_unstable();
        ended.dedup();
        let finished = ended.into_iter().map(|offset| {
            let mut task = sample(strategy::finished_task());
            task.offset = Offset(offset);
            task
        });
        let mut buried = change.dead;
        buried.sort_unstable();
        buried.dedup();
        let dead = buried.into_iter().map(|offset| {
            let mut task = sample(strategy::dead_task());
            task.offset = Offset(offset);
            task
        });
        let parked = change.parked.into_iter().map(|(offset, wake_at)| {
            let mut task = sample(strategy::parked_task());
            (task.offset, task.wake_at) = (Offset(offset), at(wake_at));
            task
        });
        let next = Checkpoint {
            finished: finished.collect(),
            dead: dead.collect(),
            parked: parked.collect(),
            revived: change.revived.into_iter().map(Offset).collect(),
            unparked: change.unparked.into_iter().map(Offset).collect(),
            expire_results: Timestamp::MAX,
            expire_dead: at(change.expire_at),
            ..Checkpoint::empty(
                Tenure { shard: place, epoch },
                CheckpointId(n as u64 + 1),
                at(0),
                Offset(n as u64),
            )
        };
        assert_eq!(
            embedded.save(&[&next]).await.unwrap(),
            memory.save(&[&next]).await.unwrap()
        );
        while embedded.expire(at(change.now)).await.unwrap() {}
        memory.expire(at(change.now)).await.unwrap();
        if n % 4 == 3 {
            drop(embedded);
            embedded = open(dir.path()).store;
            let claimed = embedded.claim(place, NodeId(1)).await.unwrap();
            assert_eq!(claimed, memory.claim(place, NodeId(1)).await.unwrap());
            epoch = claimed.epoch;
        }
        let end = Offset(u64::MAX);
        assert_eq!(
            embedded.results(place, end, 1000).await.unwrap(),
            memory.results(place, end, 1000).await.unwrap()
        );
        assert_eq!(
            embedded.results(place, Offset(5000), 3).await.unwrap(),
            memory.results(place, Offset(5000), 3).await.unwrap()
        );
        assert_eq!(
            embedded.dead_tasks(place, end, 100).await.unwrap(),
            memory.dead_tasks(place, end, 100).await.unwrap()
        );
        let count = embedded.dead_count(PipelineId(1)).await.unwrap();
        assert_eq!(count, memory.dead_count(PipelineId(1)).await.unwrap());
        assert_eq!(
            embedded.parked_tasks(place, end, 100).await.unwrap(),
            memory.parked_tasks(place, end, 100).await.unwrap()
        );
        let due = embedded.parked(place, at(3), None, 100).await.unwrap();
        assert_eq!(due, memory.parked(place, at(3), None, 100).await.unwrap());
    }
}

#[tokio::test]
async fn what_was_truncated_gives_its_files_back() {
    let dir = TempDir::new().unwrap();
    let embedded = open(dir.path());
    embedded.log.ensure(&topic(1, 2)).await.unwrap();
    for _ in 0..200 {
        for partition in 0..2 {
            embedded
                .log
                .append(shard(1, partition), vec![TaskSpec::new("x".repeat(500)); 10])
                .await
                .unwrap();
        }
    }
    for partition in 0..2 {
        let end = embedded.log.bounds(shard(1, partition)).await.unwrap().end;
        embedded.log.truncate(shard(1, partition), end).await.unwrap();
    }
    let all_gone = async {
        while std::fs::read_dir(dir.path().join("log")).unwrap().count() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), all_gone)
        .await
        .expect("only the segment that is written is left");
    let missing = embedded.log.read(shard(1, 0), Offset(5)).await.unwrap_err();
    assert!(
        matches!(
            missing,
            LogError::Truncated {
                asked: Offset(5),
                start: Offset(2000),
                ..
            }
        ),
        "{missing}"
    );
}
