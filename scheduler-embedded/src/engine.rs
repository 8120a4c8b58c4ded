//! The engine: one fjall database with few keyspaces, however many pipelines there are.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use scheduler_core::id::{PipelineId, ShardId};

use crate::config::EmbeddedConfig;
use crate::error::OpenError;

/// The tables, and the first byte of their keys in [`Engine::rows`].
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Table {
    Topic = 1,
    LogPartition = 2,
    Dead = 3,
    DeadCount = 4,
    Parked = 5,
    ParkedByTime = 6,
    Expiry = 7,
    Client = 8,
    ApiKey = 9,
    Application = 10,
    Pipeline = 11,
    Sequence = 12,
    PipelinePath = 13,
    IdempotencyKey = 14,
}

/// The keyspaces.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Space {
    Rows,
    Shards,
    Results,
    Backlog,
}

/// How many full write buffers of a keyspace may wait for the disk.
const FULL_BUFFERS: usize = 2;
const RELIEF_STEP: Duration = Duration::from_millis(1);
const RELIEF_STEPS: u32 = 2000;

/// The database.
#[derive(Clone)]
pub(crate) struct Engine {
    db: Database,
    /// Small rows of every kind; see [`Table`].
    pub(crate) rows: Keyspace,
    /// The newest checkpoint of each shard.
    pub(crate) shards: Keyspace,
    /// Packed results.
    pub(crate) results: Keyspace,
    /// Records that left the log's own files unread.
    pub(crate) backlog: Keyspace,
    write_buffer_bytes: u64,
    /// Bytes written to each [`Space`] since its write buffer was begun.
    unflushed: Arc<[AtomicU64; 4]>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn open(path: &Path, config: &EmbeddedConfig) -> Result<Self, OpenError> {
        crate::journal::repair(path)?;
        let open = || {
            let db = Database::builder(path)
                .cache_size(config.cache_bytes)
                // Of several, the first puts off whatever is to be compacted by sending it to itself, without a pause, and so
                // takes a whole core while another compacts.
                .worker_threads(1)
                .manual_journal_persist(true)
                .max_journaling_size(64 << 20)
                .open()?;
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(config.write_buffer_bytes)
                    .manual_journal_persist(true)
            };
            Ok(Self {
                rows: db.keyspace("rows", options)?,
                shards: db.keyspace("shards", options)?,
                results: db.keyspace("results", options)?,
                backlog: db.keyspace("backlog", options)?,
                write_buffer_bytes: config.write_buffer_bytes,
                unflushed: Arc::default(),
                db,
            })
        };
        open().map_err(OpenError::engine(path))
    }

    /// A batch that is durable once it is committed. There is no other kind: see [`crate::journal`].
    pub(crate) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    /// Says that about `bytes` were written to a keyspace, and waits while too much of it is in memory.
    ///
    /// The engine asks a worker to begin a new write buffer when one is full, and fills it without bound while its workers are busy; so the
    /// writer begins the new one here, and waits for full ones to reach the disk. Only for so long: a worker that never comes
    /// must not stop the store.
    pub(crate) fn wrote(&self, space: Space, bytes: usize) -> fjall::Result<()> {
        let unflushed = &self.unflushed[space as usize];
        if unflushed.fetch_add(bytes as u64, Ordering::Relaxed) + (bytes as u64) < self.write_buffer_bytes {
            return Ok(());
        }
        unflushed.store(0, Ordering::Relaxed);
        let keyspace = self.keyspace(space);
        keyspace.rotate_memtable()?;
        for _ in 0..RELIEF_STEPS {
            if keyspace.sealed_memtable_count() <= FULL_BUFFERS {
                break;
            }
            std::thread::sleep(RELIEF_STEP);
        }
        Ok(())
    }

    /// Has the engine delete files that a compaction has replaced: it looks for those that are older than its last write when it begins a new write
    /// buffer, and what is idle does neither.
    pub(crate) fn drop_old_files(&self) -> fjall::Result<()> {
        let mut batch = self.batch();
        // There is no such row.
        batch.remove(&self.rows, Key::of(Table::LogPartition));
        batch.commit()?;
        self.rows.rotate_memtable()?;
        Ok(())
    }

    /// The keyspace of a space.
    pub(crate) fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Rows => &self.rows,
            Space::Shards => &self.shards,
            Space::Results => &self.results,
            Space::Backlog => &self.backlog,
        }
    }

    /// A row's value.
    pub(crate) fn row(&self, key: &[u8]) -> fjall::Result<Option<Bytes>> {
        Ok(self.rows.get(key)?.map(Into::into))
    }
}

/// Builds keys that sort as their parts do.
#[derive(Clone, Debug)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn of(table: Table) -> Self {
        Self(vec![table as u8])
    }

    /// A key of a keyspace that holds one table only.
    pub(crate) fn bare() -> Self {
        Self(Vec::with_capacity(24))
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn pipeline(self, pipeline: PipelineId) -> Self {
        self.u32(pipeline.0)
    }

    pub(crate) fn shard(self, shard: ShardId) -> Self {
        self.pipeline(shard.pipeline).u32(shard.partition.0)
    }

    /// Text, ended so that no text's keys lie among those of a longer one. Names hold no zero byte.
    pub(crate) fn text(mut self, value: &str) -> Self {
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self
    }

    pub(crate) fn raw(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The big-endian number of 8 bytes at `at`.
    pub(crate) fn number_at(key: &[u8], at: usize) -> Option<u64> {
        Some(u64::from_be_bytes(*key.get(at..)?.first_chunk()?))
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Key> for fjall::Slice {
    fn from(key: Key) -> Self {
        key.0.into()
    }
}
