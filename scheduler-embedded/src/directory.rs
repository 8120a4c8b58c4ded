//! The data directory: whose it is, and which format it has.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// What the `FORMAT` file says. Raised with every change that an older program could misread.
const FORMAT: &str = "workload-scheduler embedded 1\n";

/// A data directory that this process alone has, until it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes `path`, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::io(path))?;
        let format = path.join("FORMAT");
        let found = match fs::read_to_string(&format) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::io(&format)(error)),
        };
        // An interrupted first start leaves nothing but the lock and perhaps a `FORMAT` that is not whole.
        let fresh = found
            .as_deref()
            .is_none_or(|text| text != FORMAT && FORMAT.starts_with(text));
        if fresh && !only_ours(path)? {
            return Err(OpenError::Foreign { dir: path.to_owned() });
        }

        let lock_path = path.join("LOCK");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(OpenError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                return Err(OpenError::InUse {
                    dir: path.to_owned(),
                    owner: owner.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::io(&lock_path)(error)),
        }
        write_owner(&mut lock).map_err(OpenError::io(&lock_path))?;

        match found {
            Some(text) if !fresh && text != FORMAT => {
                return Err(OpenError::Format {
                    dir: path.to_owned(),
                    found: text.trim().chars().take(80).collect(),
                    expected: FORMAT.trim_ascii_end(),
                });
            }
            Some(_) if !fresh => {}
            _ => {
                let mut file = File::create(&format).map_err(OpenError::io(&format))?;
                file.write_all(FORMAT.as_bytes())
                    .and_then(|()| file.sync_all())
                    .map_err(OpenError::io(&format))?;
                sync_directory(path)?;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where the part called `name` lies.
    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn only_ours(path: &Path) -> Result<bool, OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::io(path))? {
        let name = entry.map_err(OpenError::io(path))?.file_name();
        if name != "LOCK" && name != "FORMAT" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}", std::process::id())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(OpenError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        let error = Directory::open(dir.path()).unwrap_err();
        assert!(matches!(&error, OpenError::InUse { owner: Some(pid), .. } if *pid == std::process::id()));
        let text = error.to_string();
        assert!(
            text.contains(&dir.path().display().to_string()) && text.contains("stop that process"),
            "{text}"
        );
        drop(first);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn what_is_no_data_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        assert!(matches!(
            Directory::open(dir.path()),
            Err(OpenError::Foreign { .. })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unknown_format_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), "workload-scheduler embedded 9\n").unwrap();
        let error = Directory::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("embedded 9") && error.contains("embedded 1"),
            "{error}"
        );
    }

    #[test]
    fn an_interrupted_first_start_is_repeated() {
        for length in 0..FORMAT.len() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("FORMAT"), &FORMAT[..length]).unwrap();
            drop(Directory::open(dir.path()).unwrap());
            assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), FORMAT);
        }
    }
}
