//! Resource: one core. Batch: 64 tasks arrive, are leased to one of 16 workers, and are reported; a checkpoint is made and taken whenever
//! 32,768 tasks have ended.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scheduler_benches::{BATCH, Harness};

const LIVE: [u32; 4] = [1_000, 100_000, 1_000_000, 10_000_000];
/// Single operations vary more between runs than they do with this.
const LIVE_OF_OPERATIONS: [u32; 2] = [1_000, 1_000_000];

/// Calls `step` often enough for `iters` tasks, and takes the time of each part of it that `step` says.
fn timed(iters: u64, mut step: impl FnMut() -> Duration) -> Duration {
    (0..iters.div_ceil(BATCH.into())).map(|_| step()).sum()
}

fn cycles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("full_cycle_per_task");
    group.throughput(Throughput::Elements(1));
    for live in LIVE {
        let mut harness = Harness::new(live);
        // Once around, so that slots lie as they do in a shard that has run for long.
        for _ in 0..(live / BATCH).max(20_000) {
            harness.cycle();
        }
        group.bench_function(BenchmarkId::from_parameter(live), |bencher| {
            bencher.iter_custom(|iters| {
                let begin = Instant::now();
                for batch in 0..iters.div_ceil(BATCH.into()) {
                    harness.cycle();
                    if batch % 64 == 0 {
                        harness.pass();
                    }
                }
                begin.elapsed()
            });
        });
    }
    group.finish();
}

fn operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("operation_per_task");
    group.throughput(Throughput::Elements(1));
    for live in LIVE_OF_OPERATIONS {
        let mut harness = Harness::new(live);
        for _ in 0..(live / BATCH).max(20_000) {
            harness.cycle();
        }
        for (index, name) in ["arrive", "lease", "report"].into_iter().enumerate() {
            group.bench_function(BenchmarkId::new(name, live), |bencher| {
                bencher.iter_custom(|iters| {
                    timed(iters, || {
                        let begin = Instant::now();
                        harness.arrive(BATCH);
                        let arrived = Instant::now();
                        harness.lease(BATCH);
                        let leased = Instant::now();
                        harness.report();
                        let reported = Instant::now();
                        [arrived - begin, leased - arrived, reported - leased][index]
                    })
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(15);
    targets = cycles, operations
}
criterion_main!(benches);
