//! Resource: one core. What is written of tasks, as bytes: frames of the embedded log, and rows of results as both stores pack them.

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scheduler_benches::{BATCH, Harness, figure};
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use scheduler_core::task::TaskSpec;
use scheduler_embedded::decode;

/// The file of the TiDB adapter by itself: what it packs is not for others.
#[path = "../../scheduler-tidb/src/packed.rs"]
mod packed;

/// Tasks that are appended together: about one frame.
const TOGETHER: u32 = 400;
/// Batches of tasks that end between two checkpoints.
const BATCHES: u32 = 500;

fn frames(criterion: &mut Criterion) {
    let shard = ShardId::new(PipelineId(1), Partition(0));
    let params = Bytes::from(vec![b'x'; 128]);
    let tasks: Vec<TaskSpec> = (0..TOGETHER).map(|_| TaskSpec::new(params.slice(..))).collect();
    let bytes = decode::framed(shard, Offset::ZERO, &tasks);
    figure(
        "a frame of tasks of 128 bytes, a task",
        bytes.len().div_ceil(TOGETHER as usize),
        "bytes",
    );
    let mut group = criterion.benchmark_group("log_frame");
    group.throughput(Throughput::Elements(TOGETHER.into()));
    group.bench_function("write", |bencher| {
        bencher.iter_with_large_drop(|| decode::framed(shard, Offset::ZERO, &tasks));
    });
    group.bench_function("read", |bencher| {
        bencher.iter_with_large_drop(|| decode::frames(bytes.clone()).expect("what was written is read"));
    });
    group.finish();
}

fn results(criterion: &mut Criterion) {
    let mut harness = Harness::new(BATCH);
    for _ in 0..BATCHES {
        harness.cycle();
        harness.pass();
    }
    let checkpoint = harness.keep();
    let rows: Vec<Bytes> = packed::pack(&checkpoint.finished)
        .into_iter()
        .map(|row| {
            assert!(row.last.0 - row.first.0 < packed::SPAN);
            row.body.into()
        })
        .collect();
    let bytes: usize = rows.iter().map(Bytes::len).sum();
    let tasks = checkpoint.finished.len();
    figure("results in TiDB, a thousand tasks", bytes * 1000 / tasks, "bytes");
    let mut group = criterion.benchmark_group("result_rows");
    group.throughput(Throughput::Elements(tasks as u64));
    group.bench_function("write", |bencher| {
        bencher.iter_with_large_drop(|| packed::pack(&checkpoint.finished));
    });
    group.bench_function("read", |bencher| {
        bencher.iter_with_large_drop(|| {
            let read = rows
                .iter()
                .map(|row| packed::unpack(row.clone()).expect("what was written is read"));
            read.collect::<Vec<_>>()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(15);
    targets = frames, results
}
criterion_main!(benches);
