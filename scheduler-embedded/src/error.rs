//! Why a directory could not be opened, and how the engine's errors become the ports' errors.

use std::io;
use std::path::{Path, PathBuf};

use scheduler_core::port::log::LogError;
use scheduler_core::port::store::StoreError;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by another process{}: stop that process, or give this one a directory of its own",
        dir.display(),
        owner.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// Which directory.
        dir: PathBuf,
        /// Who has it, as far as it said so.
        owner: Option<u32>,
    },
    /// It holds something else.
    #[error(
        "{} is not empty and not a data directory of this program: give an empty directory, or one that does not exist yet",
        dir.display()
    )]
    Foreign {
        /// Which directory.
        dir: PathBuf,
    },
    /// Another version of this program wrote it.
    #[error(
        "the data directory {} has the format {found:?}, and this program reads {expected:?}: open it with the version that wrote it",
        dir.display()
    )]
    Format {
        /// Which directory.
        dir: PathBuf,
        /// What its `FORMAT` file says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Something that was durable is gone. A torn tail, as a crash leaves it, is no damage.
    #[error(
        "{} is damaged at byte {position}: {problem}; restore the data directory from a backup, \
         or move it away to start with an empty one",
        file.display()
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        problem: String,
    },
    /// The operating system refused something.
    #[error("cannot open {}", path.display())]
    Io {
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine could not open its part.
    #[error("the engine cannot open {}", path.display())]
    Engine {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Box<fjall::Error>,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn engine(path: &Path) -> impl FnOnce(fjall::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Engine {
            path,
            source: Box::new(source),
        }
    }
}

/// A stored value that does not read as what it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {0}")]
pub struct Corrupt(pub(crate) &'static str);

/// A message that many callers get, because one write served them all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Shared(pub(crate) std::sync::Arc<str>);

pub(crate) fn log_unavailable(error: impl std::error::Error + Send + Sync + 'static) -> LogError {
    LogError::Unavailable(Box::new(error))
}

pub(crate) fn store_unavailable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}

pub(crate) fn store_damaged(place: impl Into<String>) -> impl FnOnce(Corrupt) -> StoreError {
    let place = place.into();
    move |problem| StoreError::Damaged {
        place,
        source: Box::new(problem),
    }
}

/// Runs `work`, which blocks, away from the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}
