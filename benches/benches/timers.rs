//! Resource: one core. What tasks cost that wait: for a moment that their submitter named, or after an attempt that failed. All of them are in
//! the wheel of timers at once, and time goes by as fast as they come due.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scheduler_benches::{BATCH, Harness, mixed};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy};
use scheduler_core::task::{TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

const WAITING: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Delays are spread evenly up to this, below what a task is parked for.
const LONGEST: Duration = Duration::from_mins(1);
/// The pause after a failed attempt, less up to a fifth by chance.
const BACKOFF: Duration = Duration::from_secs(10);

fn delayed(number: u64, now: Timestamp, params: Bytes) -> TaskSpec {
    let longest = u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX);
    let options = TaskOptions {
        not_before: Some(now + Duration::from_millis(1 + mixed(number) % longest)),
        ..TaskOptions::default()
    };
    TaskSpec {
        options: Some(Box::new(options)),
        ..TaskSpec::new(params)
    }
}

fn fails_once(token: scheduler_core::id::LeaseToken) -> AttemptOutcome {
    if token.attempt.0 == 1 {
        AttemptOutcome::Failed { error: String::new() }
    } else {
        AttemptOutcome::Succeeded {
            output: Bytes::from_static(b"{}"),
        }
    }
}

/// A shard in which tasks wait.
struct Waiting {
    harness: Harness,
    /// In which a batch comes due.
    step: Duration,
    /// Time that is owed: the shard's is in whole milliseconds.
    owed: Duration,
}

impl Waiting {
    /// `mean` is how long a task waits, so that `waiting` of them do.
    fn new(waiting: u32, mean: Duration, policy: PipelinePolicy) -> Self {
        Self {
            // Those that are due and those that will be are live, and how many come due together varies.
            harness: Harness::empty(waiting + waiting / 2 + 100 * BATCH, policy),
            step: mean * BATCH / waiting,
            owed: Duration::ZERO,
        }
    }

    fn pass(&mut self) {
        self.owed += self.step;
        let whole = Duration::from_millis(u64::try_from(self.owed.as_millis()).unwrap_or(0));
        if !whole.is_zero() {
            self.owed -= whole;
            self.harness.wait(whole);
        }
    }

    fn work(&mut self, outcome: fn(scheduler_core::id::LeaseToken) -> AttemptOutcome) {
        while self.harness.ready() > 0 {
            self.harness.lease(BATCH.min(self.harness.ready()));
            self.harness.report_as(outcome);
        }
    }
}

fn measure(
    criterion: &mut Criterion,
    name: &str,
    mean: Duration,
    policy: &PipelinePolicy,
    task: fn(u64, Timestamp, Bytes) -> TaskSpec,
    outcome: fn(scheduler_core::id::LeaseToken) -> AttemptOutcome,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    for waiting in WAITING {
        let mut shard = Waiting::new(waiting, mean, policy.clone());
        let mut cycle = || {
            shard.harness.arrive_as(BATCH, task);
            shard.pass();
            shard.work(outcome);
        };
        // Until as many come due as come.
        (0..3 * waiting / BATCH + 10_000).for_each(|_| cycle());
        group.bench_function(BenchmarkId::from_parameter(waiting), |bencher| {
            bencher.iter_custom(|iters| {
                let begin = Instant::now();
                (0..iters.div_ceil(BATCH.into())).for_each(|_| cycle());
                begin.elapsed()
            });
        });
    }
    group.finish();
}

fn delays(criterion: &mut Criterion) {
    let done = |_| AttemptOutcome::Succeeded {
        output: Bytes::from_static(b"{}"),
    };
    let policy = PipelinePolicy::default();
    measure(criterion, "delayed_per_task", LONGEST / 2, &policy, delayed, done);
}

fn retries(criterion: &mut Criterion) {
    let policy = PipelinePolicy {
        retry: RetryPolicy {
            initial_backoff: BACKOFF,
            ..RetryPolicy::default()
        },
        ..PipelinePolicy::default()
    };
    let plain = |_, _, params| TaskSpec::new(params);
    // Up to a fifth is left to chance.
    let mean = BACKOFF * 9 / 10;
    measure(
        criterion,
        "failed_once_per_task",
        mean,
        &policy,
        plain,
        fails_once,
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(15);
    targets = delays, retries
}
criterion_main!(benches);
