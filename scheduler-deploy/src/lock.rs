//! The lock on a deployer's directory.

use std::fs::{File, TryLockError};
use std::io::Result;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long it may be held by one who ends: a program that is about to be started has its starter's files until it begins, and with them the lock of a deployer
/// that has gone meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(10);

/// Locks `directory` for as long as the file is kept; `None` if another has it. Blocks.
pub(crate) fn take(directory: &Path) -> Result<Option<File>> {
    let lock = File::create(directory.join("lock"))?;
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(STEP),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_from_who_ends_and_not_from_who_stays() {
        let directory = tempfile::tempdir().unwrap();
        let held = take(directory.path()).unwrap().unwrap();
        assert!(take(directory.path()).unwrap().is_none());
        let path = directory.path().to_owned();
        let waiting = std::thread::spawn(move || take(&path).unwrap().is_some());
        drop(held);
        assert!(waiting.join().unwrap());
    }
}
