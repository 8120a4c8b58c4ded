//! Resource: one core. What tasks cost that are not all alike: priorities of which a few are rare, idempotency keys of which some come again.
//! Batch: 64 tasks arrive, as many are leased to one of 16 workers and reported.

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scheduler_benches::{BATCH, Harness, mixed};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

const LIVE: [u32; 2] = [1_000, 100_000];
/// Keys that come again and again.
const HOT: u64 = 1_000;

/// Of 100 tasks one is of the highest priority, nine of a high one, 80 of the usual, ten of the lowest.
fn priorities(number: u64, _: Timestamp, params: Bytes) -> TaskSpec {
    let level = match mixed(number) % 100 {
        0 => 9,
        1..10 => 6,
        10..90 => 4,
        _ => 0,
    };
    TaskSpec {
        priority: Priority::new(level).unwrap_or_default(),
        ..TaskSpec::new(params)
    }
}

fn keyed(key: u64, params: Bytes) -> TaskSpec {
    let options = TaskOptions {
        idempotency_key: Some(Bytes::copy_from_slice(&key.to_be_bytes())),
        ..TaskOptions::default()
    };
    TaskSpec {
        options: Some(Box::new(options)),
        ..TaskSpec::new(params)
    }
}

/// No two tasks have the same key.
fn keys(number: u64, _: Timestamp, params: Bytes) -> TaskSpec {
    keyed(number + HOT, params)
}

/// Every fourth task has one of a thousand keys, the rest have keys of their own.
fn hot_keys(number: u64, at: Timestamp, params: Bytes) -> TaskSpec {
    if number.is_multiple_of(4) {
        keyed(mixed(number) % HOT, params)
    } else {
        keys(number, at, params)
    }
}

type Task = fn(u64, Timestamp, Bytes) -> TaskSpec;

/// What has come before is done until so many tasks are left.
fn work_down_to(harness: &mut Harness, live: u32) {
    while harness.ready() > live {
        harness.lease(BATCH.min(harness.ready() - live));
        harness.report();
    }
}

fn mixes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mix_per_task");
    group.throughput(Throughput::Elements(1));
    let mixes: [(&str, Task); 4] = [
        ("all alike", |_, _, params| TaskSpec::new(params)),
        ("priorities", priorities),
        ("keys", keys),
        ("keys that come again", hot_keys),
    ];
    for (name, task) in mixes {
        for live in LIVE {
            let mut harness = Harness::empty(live, PipelinePolicy::default());
            // Those that come again end at once.
            while harness.ready() < live {
                harness.arrive_as(BATCH, task);
            }
            let mut cycle = || {
                harness.arrive_as(BATCH, task);
                work_down_to(&mut harness, live);
            };
            (0..20_000).for_each(|_| cycle());
            group.bench_function(BenchmarkId::new(name, live), |bencher| {
                bencher.iter_custom(|iters| {
                    let begin = std::time::Instant::now();
                    (0..iters.div_ceil(BATCH.into())).for_each(|_| cycle());
                    begin.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(15);
    targets = mixes
}
criterion_main!(benches);
