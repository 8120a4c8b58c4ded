//! The embedded adapters of the workload scheduler: the task log and the store in one directory, with nothing else installed.
//!
//! ```
//! use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
//! use scheduler_core::port::log::{ReadLimit, TaskLog, Topic, TopicSettings};
//! use scheduler_core::task::TaskSpec;
//! use scheduler_embedded::{Embedded, EmbeddedConfig};
//! # fn name(text: &str) -> scheduler_core::name::Name { text.parse().expect("a name") }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = scheduler_core::name::PipelinePath {
//! #     client: name("default"), application: name("docs"), pipeline: name("ocr"),
//! # };
//! let embedded = Embedded::open(dir.path(), EmbeddedConfig::default())?;
//! embedded.log.ensure(&Topic { pipeline: PipelineId(1), path, partitions: 1, settings: TopicSettings::default() }).await?;
//!
//! // When this answers, the task is on the disk.
//! let shard = ShardId::new(PipelineId(1), Partition(0));
//! let offsets = embedded.log.append(shard, vec![TaskSpec::new("{\"page\":1}")]).await?;
//!
//! let mut records = Vec::new();
//! let mut reader = embedded.log.read(shard, Offset::ZERO).await?;
//! reader.next(ReadLimit { records: 100, bytes: 1 << 20 }, &mut records).await?;
//! assert_eq!(records[0].offset, offsets[0]);
//! # Ok(())
//! # }
//! ```
//!
//! # What is in the directory
//!
//! | name | what |
//! | --- | --- |
//! | `FORMAT` | the version of all the rest; another one is refused by name |
//! | `LOCK` | held while a process has the directory, with its pid in it |
//! | `log/*.segment` | the newest records of all partitions, in the order in which they were written |
//! | `engine/` | a [fjall](https://docs.rs/fjall) database: checkpoints, results, dead letters, parked tasks, catalog, and the backlog |
//!
//! # How the log works
//!
//! One thread writes it. What was appended while it synced goes into its next group commit: frames of records by partition, one write, one
//! fdatasync, then all the answers. So an idle log answers after one sync, and a busy one shares each sync among many. Readers that keep up
//! are served from memory and woken by the commit.
//!
//! A second thread keeps house. A segment that nobody wants any more is deleted; when there are too many, the oldest moves into the engine,
//! packed by partition, until its records are given up there too. So files, index and memory are bounded, whatever the backlog and however
//! many pipelines.
//!
//! # After a crash
//!
//! A write that is torn at the end of the log or of the engine's journal had not been acknowledged and is cut off. Everything else that does
//! not check is [`OpenError::Damaged`], which names the file and the place: nothing acknowledged is dropped in silence.
//! After a failed sync nothing more is written until the directory is opened again.

mod codec;
mod config;
pub mod decode;
mod directory;
mod engine;
mod error;
mod journal;
mod log;
mod store;

use std::path::Path;
use std::sync::Arc;

pub use self::config::EmbeddedConfig;
pub use self::error::{Corrupt, OpenError};
pub use self::log::EmbeddedLog;
pub use self::store::EmbeddedStore;
use crate::directory::Directory;
use crate::engine::Engine;

/// An open data directory.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The task log.
    pub log: Arc<EmbeddedLog>,
    /// Checkpoints, archive and catalog.
    pub store: Arc<EmbeddedStore>,
}

impl Embedded {
    /// Opens the data directory `dir`, making it if there is none, and reads the log's own files, 256 MiB by default. It blocks meanwhile.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong with the directory, and what to do.
    pub fn open(dir: impl AsRef<Path>, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let directory = Arc::new(Directory::open(dir.as_ref())?);
        let engine = Engine::open(&directory.part("engine"), &config)?;
        let store = Arc::new(EmbeddedStore::new(directory.clone(), engine.clone()));
        let log = Arc::new(EmbeddedLog::open(directory, engine, config)?);
        Ok(Self { log, store })
    }
}
