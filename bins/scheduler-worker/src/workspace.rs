use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where tools look for the files of earlier steps in existing charts.
const DEFAULT: &str = "/mnt/pipe";
/// Left in a workspace so that a worker knows it for one: whatever else has files is not emptied. `rm -r /mnt/pipe/*`
/// and `ls` pass over it.
const MARKER: &str = ".scheduler-workspace";

/// The directory that the steps of a task share.
///
/// It belongs to one worker: what lies in it is deleted.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    /// Whether this process sees the directory and empties it.
    managed: bool,
    per_task: bool,
    turns: Arc<Semaphore>,
}

/// A workspace that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// It holds files of somebody else.
    #[error(
        "workspace {path}: has files that are not a worker's; choose an empty directory, as what is in it is deleted"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// Its path cannot be handed to a shell and an executor alike.
    #[error("workspace {path}: use an absolute path of plain text")]
    Path {
        /// Which.
        path: PathBuf,
    },
    /// Several tasks at once need directories of their own.
    #[error("workspace: a concurrency above 1 needs a directory that this worker can write to; give one")]
    Missing,
    /// The file system refuses.
    #[error("workspace {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Workspace {
    /// Takes the directory over, making it if need be. Without one, `/mnt/pipe` is used: emptied by this worker if it is
    /// there, else left to the executors.
    ///
    /// # Errors
    ///
    /// See [`WorkspaceError`].
    pub fn open(root: Option<PathBuf>, concurrency: u32) -> Result<Self, WorkspaceError> {
        let managed = root.is_some() || Path::new(DEFAULT).is_dir();
        let root = root.unwrap_or_else(|| DEFAULT.into());
        if !root.is_absolute() || root.parent().is_none() || root.to_str().is_none() {
            return Err(WorkspaceError::Path { path: root });
        }
        if managed {
            take_over(&root)?;
        } else if concurrency > 1 {
            return Err(WorkspaceError::Missing);
        }
        let turns = Arc::new(Semaphore::new(usize::try_from(concurrency).unwrap_or(usize::MAX)));
        Ok(Self {
            root,
            managed,
            per_task: concurrency > 1,
            turns,
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits for its turn and gives a task an empty directory; `name` must be unlike those of other tasks at the time.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub async fn enter(&self, name: &str) -> Result<Share, WorkspaceError> {
        let turn = self.turn().await;
        let path = if self.per_task {
            self.root.join(format!("task-{name}"))
        } else {
            self.root.clone()
        };
        let share = Share {
            path,
            managed: self.managed,
            per_task: self.per_task,
            turn,
        };
        if share.managed {
            let path = share.path.clone();
            off_the_runtime(move || make_empty(&path)).await?;
        }
        Ok(share)
    }

    /// Waits for its turn and gives the directory as it is.
    pub async fn enter_as_it_is(&self) -> Share {
        let turn = self.turn().await;
        Share {
            path: self.root.clone(),
            managed: false,
            per_task: false,
            turn,
        }
    }

    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.turns.clone().acquire_owned().await.ok()
    }
}

/// A task's directory. Dropping it empties or removes it.
#[derive(Debug)]
pub struct Share {
    path: PathBuf,
    managed: bool,
    per_task: bool,
    /// Held until the directory is clean.
    turn: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// The path, as commands know it.
    pub fn path(&self) -> &str {
        // `Workspace::open` refuses other paths.
        self.path.to_str().unwrap_or_default()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.managed {
            return;
        }
        let (path, per_task, turn) = (std::mem::take(&mut self.path), self.per_task, self.turn.take());
        let clean = move || {
            let cleaned = if per_task { remove(&path) } else { empty(&path) };
            if let Err(error) = cleaned {
                tracing::warn!(path = %path.display(), %error, "cannot clean the workspace");
            }
            drop(turn);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(clean)),
            Err(_) => clean(),
        }
    }
}

fn take_over(root: &Path) -> Result<(), WorkspaceError> {
    let io_error = |source| WorkspaceError::Io {
        path: root.to_owned(),
        source,
    };
    fs::create_dir_all(root).map_err(io_error)?;
    let marker = root.join(MARKER);
    if !marker.exists() {
        if fs::read_dir(root).map_err(io_error)?.next().is_some() {
            return Err(WorkspaceError::Foreign {
                path: root.to_owned(),
            });
        }
        fs::write(
            &marker,
            "The worker that uses this directory deletes everything in it.\n",
        )
        .map_err(io_error)?;
    }
    empty(root).map_err(io_error)
}

fn make_empty(path: &Path) -> Result<(), WorkspaceError> {
    fs::create_dir_all(path)
        .and_then(|()| empty(path))
        .map_err(|source| WorkspaceError::Io {
            path: path.to_owned(),
            source,
        })
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != MARKER {
            let path = entry.path();
            // Not through symbolic links.
            if entry.file_type()?.is_dir() {
                remove(&path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> io::Result<()> {
    fs::remove_dir_all(directory).or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_task_at_a_time_has_the_directory_itself_and_finds_it_empty() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(Some(root.path().join("pipe")), 1).unwrap();
        for _ in 0..2 {
            let share = workspace.enter("0-1").await.unwrap();
            assert_eq!(Path::new(share.path()), workspace.root());
            assert_eq!(fs::read_dir(share.path()).unwrap().count(), 1, "the marker only");
            fs::create_dir(workspace.root().join("directory")).unwrap();
            std::os::unix::fs::symlink(root.path(), workspace.root().join("link")).unwrap();
            fs::write(workspace.root().join(".hidden"), "").unwrap();
        }
        assert!(root.path().exists(), "links are not followed");
    }

    #[tokio::test]
    async fn tasks_at_once_have_directories_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(Some(root.path().into()), 2).unwrap();
        let (one, two) = (
            workspace.enter("1").await.unwrap(),
            workspace.enter("2").await.unwrap(),
        );
        assert_ne!(one.path(), two.path());
        let path = PathBuf::from(one.path());
        fs::write(path.join("file"), "").unwrap();
        drop(one);
        // The third waits for the first's turn, which ends when its directory is gone.
        let _three = workspace.enter("3").await.unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_a_workspace_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        let opened = Workspace::open(Some(root.path().into()), 1);
        assert!(matches!(opened, Err(WorkspaceError::Foreign { .. })));
        assert!(root.path().join("thesis.tex").exists());
        assert!(matches!(
            Workspace::open(Some("relative".into()), 1),
            Err(WorkspaceError::Path { .. })
        ));
        assert!(matches!(
            Workspace::open(Some("/".into()), 1),
            Err(WorkspaceError::Path { .. })
        ));
    }

    #[test]
    fn a_workspace_of_an_earlier_run_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        Workspace::open(Some(root.path().into()), 1).unwrap();
        fs::write(root.path().join("left over"), "").unwrap();
        Workspace::open(Some(root.path().into()), 1).unwrap();
        assert!(!root.path().join("left over").exists());
    }
}
