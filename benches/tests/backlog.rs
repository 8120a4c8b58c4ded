//! What the embedded log keeps of a backlog that is given up: neither memory nor disk.

use std::path::Path;
use std::time::Duration;

use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::port::log::TaskLog as _;
use scheduler_core::task::TaskSpec;
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_testkit::contract::topic;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const TASK_BYTES: usize = 64 << 10;
const TASKS: usize = 1_024;
/// What may be left of 64 MiB: the newest segments, and what the engine keeps anyway, without its journal, which is of 64 MiB from the beginning.
const LEFT_ON_DISK: u64 = 8 << 20;
const LEFT_IN_MEMORY: usize = 12 << 20;

fn size_of_files(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_of_files(&entry.path()),
        Ok(_)
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "jnl") =>
        {
            0
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_backlog_leaves_neither_memory_nor_disk_behind() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let kept = || dhat::HeapStats::get().curr_bytes;
    let directory = tempfile::tempdir().unwrap();
    let mut config = EmbeddedConfig::default();
    config.segment_bytes = 1 << 20;
    config.log_bytes = 2 << 20;
    let embedded = Embedded::open(directory.path(), config).unwrap();
    let pipeline = PipelineId(1);
    embedded.log.ensure(&topic(1, 1)).await.unwrap();
    let params = "twenty-three characters ".repeat(TASK_BYTES / 24);
    for _ in 0..TASKS / 8 {
        let tasks = vec![TaskSpec::new(params.clone()); 8];
        embedded
            .log
            .append(ShardId::new(pipeline, Partition(0)), tasks)
            .await
            .unwrap();
    }
    assert!(size_of_files(directory.path()) > 2 * LEFT_ON_DISK);
    embedded.log.delete(pipeline).await.unwrap();
    let given_back = async {
        while size_of_files(directory.path()) > LEFT_ON_DISK || kept() > LEFT_IN_MEMORY {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(1), given_back).await;
    assert!(
        in_time.is_ok(),
        "{} bytes are kept in memory and {} on disk",
        kept(),
        size_of_files(directory.path())
    );
}
