//! What the embedded log and store cost: tasks go in, are read, end in checkpoints, and are truncated.
//!
//! `cargo bench -p scheduler-embedded --bench pipe [-- DIRECTORY]`. Every figure is of one run; every append is synced before it
//! counts. CPU is of the whole process, with the load generator.

#![expect(clippy::print_stdout, reason = "figures for people")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Attempt, CheckpointId, NodeId, Offset, ShardId, Tenure};
use scheduler_core::outcome::{Ending, FinishedTask};
use scheduler_core::port::log::{ReadLimit, TaskLog};
use scheduler_core::port::store::CheckpointStore;
use scheduler_core::task::TaskSpec;
use scheduler_core::time::Timestamp;
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_testkit::contract::{shard, topic};

const PARAMS: usize = 128;
const CHECKPOINT_EVERY: usize = 32_768;

/// What the process has used so far.
#[derive(Clone, Copy)]
struct Usage {
    cpu: f64,
    written: u64,
    rss_kib: u64,
    at: Instant,
}

impl Usage {
    fn now() -> Self {
        let field = |file: &str, name: &str| -> u64 {
            let text = std::fs::read_to_string(file).expect("Linux has /proc");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a known field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has /proc");
        let times = stat
            .rsplit(')')
            .next()
            .expect("a name in brackets")
            .split_whitespace()
            .skip(11)
            .take(2);
        // In ticks of 10 ms.
        let ticks: f64 = times.map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
        Self {
            cpu: ticks / 100.0,
            written: field("/proc/self/io", "write_bytes:"),
            rss_kib: field("/proc/self/status", "VmRSS:"),
            at: Instant::now(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(what: &str, records: usize, before: Usage) {
    let after = Usage::now();
    let n = records as f64;
    println!(
        "{what:44} {:>10.0} records/s {:>7.3} CPU us/record {:>6.0} bytes written/record {:>4} MiB RSS",
        n / (after.at - before.at).as_secs_f64(),
        (after.cpu - before.cpu) * 1e6 / n,
        (after.written - before.written) as f64 / n,
        after.rss_kib / 1024,
    );
}

/// Tasks that cost nothing to make, so that the figures are the log's.
fn tasks(batch: usize) -> Vec<TaskSpec> {
    static BYTES: [u8; PARAMS] = [b'x'; PARAMS];
    vec![TaskSpec::new(bytes::Bytes::from_static(&BYTES)); batch]
}

/// `writers` tasks append batches, each to its partition, and wait for the answer.
async fn append(embedded: &Embedded, partitions: u32, writers: usize, batch: usize, records: usize) {
    let mut running = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let log = embedded.log.clone();
        let place = shard(1, u32::try_from(writer).expect("few writers") % partitions);
        running.spawn(async move {
            for _ in 0..records / writers / batch {
                log.append(place, tasks(batch)).await.expect("an append succeeds");
            }
        });
    }
    running.join_all().await;
}

/// Reads a partition, ends every task, saves checkpoints and truncates, until `records` have passed.
async fn consume(embedded: Embedded, place: ShardId, records: usize) {
    let claimed = embedded
        .store
        .claim(place, NodeId(1))
        .await
        .expect("a claim succeeds");
    let tenure = Tenure {
        shard: place,
        epoch: claimed.epoch,
    };
    let start = embedded
        .log
        .bounds(place)
        .await
        .expect("the partition exists")
        .start;
    let mut reader = embedded
        .log
        .read(place, start)
        .await
        .expect("what is there can be read");
    let mut finished = Vec::new();
    let (mut passed, mut checkpoint) = (0, CheckpointId::default());
    while passed < records {
        let mut batch = Vec::new();
        reader
            .next(
                ReadLimit {
                    records: 1000,
                    bytes: 1 << 20,
                },
                &mut batch,
            )
            .await
            .expect("records come");
        passed += batch.len();
        finished.extend(batch.into_iter().map(|record| FinishedTask {
            offset: record.offset,
            ending: Ending::Succeeded,
            attempts: Attempt(1),
            submitted_at: record.appended_at,
            started_at: record.appended_at,
            finished_at: record.appended_at,
            output: "{\"ok\":true}".into(),
        }));
        if finished.len() >= CHECKPOINT_EVERY || passed >= records {
            checkpoint = checkpoint.next();
            let resume = finished.last().map_or(start, |task| task.offset.next());
            let next = Checkpoint {
                finished: std::mem::take(&mut finished),
                expire_results: Timestamp::from_millis(86_400_000),
                ..Checkpoint::empty(tenure, checkpoint, Timestamp::ZERO, resume)
            };
            embedded.store.save(&[&next]).await.expect("a save succeeds");
            embedded
                .log
                .truncate(place, resume)
                .await
                .expect("a truncation succeeds");
        }
    }
}

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, EmbeddedConfig::default()).expect("the directory can be opened")
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let parent = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_else(|| ".".into());
    let dir = || tempfile::tempdir_in(&parent).expect("the directory can be written");

    for (writers, batch, records) in [
        (1, 1, 5_000),
        (64, 1, 100_000),
        (1, 100, 200_000),
        (1, 1000, 2_000_000),
        (8, 1000, 4_000_000),
    ] {
        let dir = dir();
        let embedded = open(dir.path());
        embedded
            .log
            .ensure(&topic(1, 8))
            .await
            .expect("a topic can be made");
        let before = Usage::now();
        append(&embedded, 8, writers, batch, records).await;
        report(
            &format!("append, {writers} writers, batches of {batch}"),
            records,
            before,
        );
    }

    let few = dir();
    let embedded = open(few.path());
    embedded
        .log
        .ensure(&topic(1, 4))
        .await
        .expect("a topic can be made");
    let before = Usage::now();
    let records = 4_000_000;
    let consumers =
        (0..4).map(|partition| tokio::spawn(consume(embedded.clone(), shard(1, partition), records / 4)));
    let consumers: Vec<_> = consumers.collect();
    append(&embedded, 4, 8, 1000, records).await;
    for consumer in consumers {
        consumer.await.expect("a consumer ends");
    }
    report("append, read, checkpoint, truncate", records, before);
    drop(embedded);

    let deep = dir();
    let embedded = open(deep.path());
    embedded
        .log
        .ensure(&topic(1, 4))
        .await
        .expect("a topic can be made");
    let before = Usage::now();
    append(&embedded, 4, 8, 1000, 4_000_000).await;
    report("a backlog of 4 M", 4_000_000, before);
    drop(embedded);
    let before = Usage::now();
    let embedded = Arc::new(open(deep.path()));
    let opened = Usage::now();
    println!(
        "opened it in {:?} with {:.2} CPU s; RSS {} MiB before, {} MiB after",
        opened.at - before.at,
        opened.cpu - before.cpu,
        before.rss_kib / 1024,
        opened.rss_kib / 1024
    );
    let before = Usage::now();
    for partition in 0..4 {
        let end = embedded
            .log
            .bounds(shard(1, partition))
            .await
            .expect("the partition exists")
            .end;
        consume(
            Embedded::clone(&embedded),
            shard(1, partition),
            usize::try_from(end.0).expect("few"),
        )
        .await;
        assert!(
            embedded
                .log
                .read(shard(1, partition), Offset::ZERO)
                .await
                .is_err(),
            "it is truncated"
        );
    }
    report("read, checkpoint, truncate the backlog", 4_000_000, before);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "afterwards {} MiB on disk, {} MiB RSS",
        disk(deep.path()) >> 20,
        Usage::now().rss_kib / 1024
    );
}

fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| {
            if path.is_dir() {
                disk(&path)
            } else {
                path.metadata().map_or(0, |metadata| metadata.blocks() * 512)
            }
        })
        .sum()
}
