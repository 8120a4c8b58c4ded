//! Counts what the shard allocates.

use scheduler_benches::{BATCH, Harness};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// What one checkpoint may allocate: its `Arc`, its state, the list of covered workers, and the like.
const PER_CHECKPOINT: u64 = 40;

#[test]
fn a_shard_in_its_stride_allocates_for_checkpoints_and_for_nothing_else() {
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
