//! What can be chosen about the embedded log and store.

use std::time::Duration;

/// What can be chosen. The defaults suit a small machine: with them an idle process stays under 20 MB.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// How large a file of the log grows before the next one is begun, in bytes. Default 32 MiB.
    pub segment_bytes: u64,
    /// How much of the log is kept in its own files, in bytes; what is older and still wanted moves into the engine.
    /// Costs that much disk, and the time to read it once at start. Default 256 MiB.
    pub log_bytes: u64,
    /// Most entries of the log's index in memory, 24 bytes each; over it, the oldest file moves into the engine early.
    /// Default 131,072.
    pub index_entries: usize,
    /// How much of the log's tail is kept in memory for readers that keep up, in bytes. Default 4 MiB.
    pub hot_bytes: usize,
    /// Most bytes of appends that wait to be written. Default 16 MiB.
    pub queue_bytes: usize,
    /// How long an append waits for room in that queue before it is refused as overload. Default 2 s.
    pub append_patience: Duration,
    /// The largest task that the log takes, in bytes. Default 4 MiB.
    pub max_task_bytes: usize,
    /// The engine's cache of blocks, in bytes. Default 4 MiB.
    pub cache_bytes: u64,
    /// The engine's write buffer for each of its keyspaces, in bytes. Default 2 MiB.
    pub write_buffer_bytes: u64,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            log_bytes: 256 << 20,
            index_entries: 131_072,
            hot_bytes: 4 << 20,
            queue_bytes: 16 << 20,
            append_patience: Duration::from_secs(2),
            max_task_bytes: 4 << 20,
            cache_bytes: 4 << 20,
            write_buffer_bytes: 2 << 20,
        }
    }
}

impl EmbeddedConfig {
    /// How many full files of the log are kept before the oldest moves into the engine.
    pub(crate) fn sealed_segments(&self) -> usize {
        usize::try_from(self.log_bytes / self.segment_bytes.max(1))
            .unwrap_or(usize::MAX)
            .max(1)
    }
}
