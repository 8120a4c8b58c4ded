//! Counts what the shard allocates, and what it keeps.

use std::sync::Mutex;
use std::time::Duration;

use scheduler_benches::{BATCH, Harness};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// What one checkpoint may allocate: its `Arc`, its state, the list of covered workers, and the like.
const PER_CHECKPOINT: u64 = 40;

/// There is one count for the whole process.
static COUNTING: Mutex<()> = Mutex::new(());

/// What a shard may keep while it has nothing to do, in bytes.
const RESTING: usize = 24 << 10;

#[test]
fn a_shard_that_has_nothing_to_do_gives_back_what_a_busy_time_took() {
    let _turn = COUNTING.lock();
    let _profiler = dhat::Profiler::builder().testing().build();
    let kept = || dhat::HeapStats::get().curr_bytes;
    let mut harness = Harness::new(16_384);
    harness.idle(Duration::ZERO);
    let busy = kept();
    assert!(busy > 1 << 20, "after a busy time it keeps {busy} bytes");
    harness.idle(Duration::from_secs(59));
    assert_eq!(kept(), busy);
    harness.idle(Duration::from_secs(1));
    let resting = kept();
    assert!(resting <= RESTING, "while it rests it keeps {resting} bytes");
    // It works as before.
    for _ in 0..3 {
        harness.arrive(1_000);
        harness.idle(Duration::from_mins(1));
        assert!(kept() <= RESTING);
    }
}

#[test]
fn a_shard_in_its_stride_allocates_for_checkpoints_and_for_nothing_else() {
    let _turn = COUNTING.lock();
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut harness = Harness::new(10_000);
    for _ in 0..200_000 / BATCH {
        harness.cycle();
    }
    let before = dhat::HeapStats::get().total_blocks;
    let checkpoints = harness.checkpoints;
    for _ in 0..200_000 / BATCH {
        harness.cycle();
    }
    let blocks = dhat::HeapStats::get().total_blocks - before;
    let checkpoints = harness.checkpoints - checkpoints;
    assert!(checkpoints >= 5, "there were only {checkpoints} checkpoints");
    assert!(
        blocks <= checkpoints * PER_CHECKPOINT,
        "200,000 tasks and {checkpoints} checkpoints allocated {blocks} blocks"
    );
}
