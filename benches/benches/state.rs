//! Resource: one core. The state that a checkpoint carries: how long a shard pauses to make one, and how long one takes to come up from it.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scheduler_benches::{Harness, figure};

const LEASED: [u32; 3] = [1_000, 10_000, 100_000];

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoint_while_leased");
    for leased in LEASED {
        let mut harness = Harness::new(leased);
        harness.lease(leased);
        group.bench_function(BenchmarkId::from_parameter(leased), |bencher| {
            bencher.iter(|| harness.checkpoint());
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("start_from_state_of_leased");
    for leased in LEASED {
        let mut harness = Harness::new(leased);
        harness.lease(leased);
        let checkpoint = harness.keep();
        figure(
            &format!("state of {leased} leased tasks"),
            checkpoint.state.len(),
            "bytes",
        );
        group.throughput(Throughput::Bytes(checkpoint.state.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(leased), |bencher| {
            bencher.iter_with_large_drop(|| Harness::restarted(leased, &checkpoint));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(15);
    targets = encode, decode
}
criterion_main!(benches);
