//! Whatever a crash leaves of the newest files, everything acknowledged before the tear is there, in order, and nothing else.
//!
//! A running directory is copied, as a kill leaves it, and the copy's newest file is torn: cut at a byte, cut and filled with zeros (what
//! a file system may show after a power cut), or with a byte changed.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Attempt, CheckpointId, NodeId, Offset, PipelineId, ShardId, Tenure};
use scheduler_core::outcome::{DeadReason, DeadTask, Ending, FinishedTask, ParkedTask};
use scheduler_core::port::log::{ReadLimit, TaskLog};
use scheduler_core::port::store::{Archive, CheckpointStore};
use scheduler_core::task::{RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_embedded::{Embedded, EmbeddedConfig, OpenError};
use scheduler_testkit::contract::{shard, topic};
use tempfile::TempDir;

/// The file with the given ending that sorts last, and how much of it is written.
fn newest(dir: &Path, ending: &str) -> (PathBuf, u64) {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let file = files.pop().unwrap();
    let mut end = 0;
    copy_chunks(&file, |at, chunk| {
        end = at + chunk.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    });
    (file, end)
}

/// Reports the chunks of a file that are not all zeros; returns its length.
fn copy_chunks(file: &Path, mut found: impl FnMut(u64, &[u8])) -> u64 {
    let mut file = File::open(file).unwrap();
    let zeros = vec![0; 64 << 10];
    let mut chunk = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let len = file.read(&mut chunk).unwrap();
        if len == 0 {
            return at;
        }
        if chunk[..len] != zeros[..len] {
            found(at, &chunk[..len]);
        }
        at += len as u64;
    }
}

/// Copies a directory, with some of the unused room of its files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            let copy = File::create(&target).unwrap();
            let mut written = 0;
            let len = copy_chunks(&path, |at, chunk| {
                copy.write_all_at(chunk, at).unwrap();
                written = at + chunk.len() as u64;
            });
            // Some zeros behind what is written are as good as many, and faster.
            let len = len.min(written + (64 << 10));
            copy.set_len(len).unwrap();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Tear {
    Cut,
    Zeros,
    Flip,
}

/// A copy of `image` whose `file` is torn at `at`.
fn torn(image: &Path, file: &Path, tear: Tear, at: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    copy(image, dir.path());
    let file = dir.path().join(file.strip_prefix(image).unwrap());
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let len = file.metadata().unwrap().len();
    match tear {
        Tear::Cut => file.set_len(at).unwrap(),
        Tear::Zeros => file.set_len(at).and_then(|()| file.set_len(len)).unwrap(),
        Tear::Flip => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x21], at).unwrap();
        }
    }
    dir
}

/// About `count` positions up to `end`, close together towards it.
fn positions(begin: u64, end: u64, count: u64) -> Vec<u64> {
    let near = end.saturating_sub(count / 2).max(begin)..=end;
    let step = ((end - begin) / (count / 2)).max(1);
    let far = (begin..end).step_by(usize::try_from(step).unwrap());
    let mut all: Vec<u64> = far.chain(near).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// An append that was acknowledged, and what was written by then.
struct Ack {
    shard: ShardId,
    tasks: Vec<TaskSpec>,
    file: PathBuf,
    end: u64,
}

fn log_config() -> EmbeddedConfig {
    let mut config = EmbeddedConfig::default();
    config.segment_bytes = 16 << 10;
    config
}

/// Appends to three shards until the third segment is well begun.
async fn write_log(dir: &Path) -> (Embedded, Vec<Ack>) {
    let embedded = Embedded::open(dir, log_config()).unwrap();
    embedded.log.ensure(&topic(1, 3)).await.unwrap();
    let mut acks: Vec<Ack> = Vec::new();
    for n in 0u32.. {
        let place = shard(1, n % 3);
        let size = if n % 11 == 5 { 3000 } else { 40 + n as usize % 200 };
        let tasks: Vec<_> = (0..=n % 4)
            .map(|k| TaskSpec::new(format!("{n}-{k}-{}", "x".repeat(size))))
            .collect();
        embedded.log.append(place, tasks.clone()).await.unwrap();
        let (file, end) = newest(&dir.join("log"), ".segment");
        let done = file.to_str().unwrap().ends_with("03.segment") && end > 9_000;
        acks.push(Ack {
            shard: place,
            tasks,
            file,
            end,
        });
        if done {
            break;
        }
    }
    (embedded, acks)
}

/// What is there is a beginning of what was appended, and holds everything acknowledged before `at` of `file`.
async fn check_log(dir: &Path, acks: &[Ack], file: &Path, at: u64) {
    let embedded = Embedded::open(dir, log_config()).unwrap();
    for partition in 0..3 {
        let place = shard(1, partition);
        let bounds = embedded.log.bounds(place).await.unwrap();
        let mut records = Vec::new();
        let mut reader = embedded.log.read(place, Offset::ZERO).await.unwrap();
        while (records.len() as u64) < bounds.end.0 {
            reader
                .next(
                    ReadLimit {
                        records: 100,
                        bytes: 1 << 20,
                    },
                    &mut records,
                )
                .await
                .unwrap();
        }
        let found: Vec<_> = records
            .into_iter()
            .map(|record| match record.body {
                RecordBody::Task(task) => task,
                RecordBody::Undecodable { problem, .. } => panic!("{problem}"),
            })
            .collect();
        let mine = || acks.iter().filter(|ack| ack.shard == place);
        let appended: Vec<_> = mine().flat_map(|ack| ack.tasks.clone()).collect();
        let durable: usize = mine()
            .filter(|ack| ack.file != file || ack.end <= at)
            .map(|ack| ack.tasks.len())
            .sum();
        assert!(
            found.len() >= durable,
            "{place}: {} of {durable} acknowledged records, torn at {at}",
            found.len()
        );
        assert_eq!(found, appended[..found.len()], "{place}, torn at {at}");
    }
    // And it goes on.
    embedded
        .log
        .append(shard(1, 0), vec![TaskSpec::new("after")])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_torn_tail_of_the_log_costs_nothing_that_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let (_running, acks) = write_log(dir.path()).await;
    let (file, end) = newest(&dir.path().join("log"), ".segment");
    for tear in [Tear::Cut, Tear::Zeros] {
        for at in positions(0, end, 40) {
            let torn = torn(dir.path(), &file, tear, at);
            check_log(torn.path(), &acks, &file, at).await;
        }
    }
}

#[tokio::test]
async fn a_changed_byte_of_the_last_write_is_a_torn_tail_and_before_it_an_error() {
    let dir = TempDir::new().unwrap();
    let (_running, acks) = write_log(dir.path()).await;
    let (file, end) = newest(&dir.path().join("log"), ".segment");
    let last_begins = acks[acks.len() - 2].end;
    assert_eq!(acks[acks.len() - 2].file, file);
    for at in positions(0, end + 40, 50) {
        let torn = torn(dir.path(), &file, Tear::Flip, at);
        if at < last_begins {
            let opened = Embedded::open(torn.path(), log_config());
            assert!(
                matches!(opened, Err(OpenError::Damaged { .. })),
                "at {at}: {opened:?}"
            );
        } else {
            let known = if at < end { last_begins } else { end };
            check_log(torn.path(), &acks, &file, known).await;
        }
    }
}

#[tokio::test]
async fn damage_to_an_older_segment_is_an_error() {
    let dir = TempDir::new().unwrap();
    let (_running, _) = write_log(dir.path()).await;
    let older = dir.path().join("log/000000000002.segment");
    let len = fs::metadata(&older).unwrap().len();
    for (tear, at) in [
        (Tear::Flip, len - 1),
        (Tear::Flip, 100),
        (Tear::Cut, len - 1),
        (Tear::Cut, 0),
    ] {
        let torn = torn(dir.path(), &older, tear, at);
        let error = Embedded::open(torn.path(), log_config()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
    // A segment that is gone altogether is missed by the records after it.
    let torn = torn(dir.path(), &older, Tear::Flip, 0);
    fs::remove_file(torn.path().join("log/000000000002.segment")).unwrap();
    let error = Embedded::open(torn.path(), log_config()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// The `n`th checkpoint of a shard: it ends task n, buries every third, and parks task n instead of the one before.
fn nth_checkpoint(tenure: Tenure, n: u64) -> Checkpoint {
    let (at, attempts) = (Timestamp::from_millis(n), Attempt(1));
    let spec = TaskSpec::new("{}");
    let dead = DeadTask {
        offset: Offset(n),
        reason: DeadReason::Rejected,
        error: "no".into(),
        attempts,
        submitted_at: at,
        died_at: at,
        spec: spec.clone(),
    };
    Checkpoint {
        resume: Offset(n),
        state: format!("{n}: {}", "s".repeat(usize::try_from(n * 7 % 300).unwrap())).into(),
        finished: vec![FinishedTask {
            offset: Offset(n),
            ending: Ending::Succeeded,
            attempts,
            submitted_at: at,
            started_at: at,
            finished_at: at,
            output: "done".into(),
        }],
        dead: if n.is_multiple_of(3) {
            vec![dead]
        } else {
            Vec::new()
        },
        parked: vec![ParkedTask {
            offset: Offset(n),
            wake_at: at,
            attempts,
            forgiven: 0,
            submitted_at: at,
            spec,
        }],
        unparked: vec![Offset(n - 1)],
        ..Checkpoint::empty(tenure, CheckpointId(n), at, Offset(n))
    }
}

/// Saves checkpoints of two shards, and notes how much was written after each save of both.
async fn write_store(dir: &Path) -> (Embedded, BTreeMap<u64, u64>) {
    let embedded = Embedded::open(dir, EmbeddedConfig::default()).unwrap();
    let mut tenures = Vec::new();
    for place in [shard(1, 0), shard(2, 0)] {
        let claimed = embedded.store.claim(place, NodeId(1)).await.unwrap();
        tenures.push(Tenure {
            shard: place,
            epoch: claimed.epoch,
        });
    }
    let mut acks = BTreeMap::from([(newest(&dir.join("engine"), ".jnl").1, 0)]);
    for n in 1..=12 {
        let both = [nth_checkpoint(tenures[0], n), nth_checkpoint(tenures[1], n)];
        embedded.store.save(&both.each_ref()).await.unwrap();
        acks.insert(newest(&dir.join("engine"), ".jnl").1, n);
    }
    (embedded, acks)
}

/// Both shards are at one and the same checkpoint, wholly, and it is the last acknowledged before `at` or a later one.
async fn check_store(dir: &Path, acks: &BTreeMap<u64, u64>, at: u64) {
    let Embedded { store, .. } = Embedded::open(dir, EmbeddedConfig::default()).unwrap();
    let Some((_, &durable)) = acks.range(..=at).next_back() else {
        return;
    };
    let mut newest = Vec::new();
    for pipeline in [1, 2] {
        let place = shard(pipeline, 0);
        let claimed = store.claim(place, NodeId(1)).await.unwrap();
        let n = claimed.resume.0;
        assert!(n >= durable, "checkpoint {n} instead of {durable}, torn at {at}");
        let tenure = Tenure {
            shard: place,
            epoch: claimed.epoch,
        };
        if n > 0 {
            assert_eq!(claimed.state, nth_checkpoint(tenure, n).state);
        }
        let results = store.results(place, Offset(100), 100).await.unwrap();
        assert_eq!(
            results.iter().map(|task| task.offset.0).collect::<Vec<_>>(),
            (1..=n).rev().collect::<Vec<_>>()
        );
        assert_eq!(store.dead_count(PipelineId(pipeline)).await.unwrap(), n / 3);
        let parked = store.parked(place, Timestamp::MAX, None, 10).await.unwrap();
        assert_eq!(
            parked.iter().map(|task| task.offset.0).collect::<Vec<_>>(),
            (n.max(1)..=n).collect::<Vec<_>>()
        );
        newest.push(n);
    }
    assert_eq!(newest[0], newest[1], "one save is one transaction");
}

#[tokio::test]
async fn a_torn_tail_of_the_store_costs_nothing_that_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let (_running, acks) = write_store(dir.path()).await;
    let (file, end) = newest(&dir.path().join("engine"), ".jnl");
    let begin = *acks.keys().next().unwrap();
    for tear in [Tear::Cut, Tear::Zeros] {
        for at in positions(begin, end, 40) {
            let torn = torn(dir.path(), &file, tear, at);
            check_store(torn.path(), &acks, at).await;
        }
    }
}

#[tokio::test]
async fn a_changed_byte_of_the_last_save_is_a_torn_tail_and_before_it_an_error() {
    let dir = TempDir::new().unwrap();
    let (_running, acks) = write_store(dir.path()).await;
    let (file, end) = newest(&dir.path().join("engine"), ".jnl");
    let begin = *acks.keys().next().unwrap();
    let last_begins = *acks.keys().rev().nth(1).unwrap();
    // The engine's checksum does not cover a batch's sequence number, so where the last one has a wrong one cannot be told.
    let sequence = last_begins + 5..last_begins + 13;
    for at in positions(begin, end + 20, 50)
        .into_iter()
        .filter(|at| !sequence.contains(at))
    {
        let torn = torn(dir.path(), &file, Tear::Flip, at);
        if at < last_begins {
            let opened = Embedded::open(torn.path(), EmbeddedConfig::default());
            assert!(
                matches!(opened, Err(OpenError::Damaged { .. })),
                "at {at}: {opened:?}"
            );
        } else {
            check_store(torn.path(), &acks, if at < end { last_begins } else { end }).await;
        }
    }
}

#[test]
fn an_engine_of_an_unknown_format_is_an_error() {
    let dir = TempDir::new().unwrap();
    drop(Embedded::open(dir.path(), EmbeddedConfig::default()).unwrap());
    let mut version = File::create(dir.path().join("engine/version")).unwrap();
    version.write_all(b"FJL\x09").unwrap();
    let error = Embedded::open(dir.path(), EmbeddedConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::Engine { .. }), "{error}");
}
