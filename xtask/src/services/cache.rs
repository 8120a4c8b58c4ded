//! What was fetched or built once: a directory outside the repository, by version.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::process::LOOK;
use crate::Failed;
use crate::run::shown;

/// Names the directory.
pub(crate) const CACHE: &str = "SCHEDULER_CACHE_DIR";

/// Set when what is being fetched is not wanted any more.
pub(crate) static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Where this kind of thing is kept.
pub(crate) fn directory(kind: &str) -> Result<PathBuf, Failed> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let root = set(CACHE)
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("workload-scheduler")))
        .or_else(|| Some(set("HOME")?.join(".cache/workload-scheduler")))
        .ok_or_else(|| format!("there is no HOME; set {CACHE} to a directory for what is fetched"))?;
    let directory = root.join(kind);
    make(&directory)?;
    // Programs run elsewhere than here.
    fs::canonicalize(&directory).map_err(|error| format!("{}: {error}", directory.display()))
}

/// Makes a directory and those above it.
pub(crate) fn make(directory: &Path) -> Result<(), Failed> {
    fs::create_dir_all(directory).map_err(|error| format!("{} cannot be made: {error}", directory.display()))
}

/// Writes a file that a server or a build reads.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Holds what the directory stands for until it is dropped; waits for whoever has it. The system lets go for one that died.
pub(crate) fn lock(directory: &Path) -> Result<File, Failed> {
    make(directory)?;
    let path = directory.join("lock");
    let cannot = |error: std::io::Error| format!("{} cannot be locked: {error}", path.display());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(cannot)?;
    if file.try_lock().is_err() {
        println!("waiting for another command that holds {}", path.display());
        file.lock().map_err(cannot)?;
    }
    Ok(file)
}

/// What lies at `path`, made by `produce` if it is not there. It is made under another name and renamed, so half of it is never taken.
pub(crate) fn produced(path: &Path, produce: impl FnOnce(&Path) -> Result<(), Failed>) -> Result<(), Failed> {
    if path.exists() {
        return Ok(());
    }
    let partial = path.with_extension("partial");
    let _ = fs::remove_dir_all(&partial).or_else(|_| fs::remove_file(&partial));
    produce(&partial)?;
    fs::rename(&partial, path).map_err(|error| format!("{} cannot be kept: {error}", path.display()))
}

/// Runs it to its end with its output in a log, unless it is cancelled.
pub(crate) fn run(mut command: Command, log: &Path) -> Result<(), Failed> {
    let line = shown(&command);
    let open = || File::options().create(true).append(true).open(log);
    let cannot = |error| format!("{} cannot be written: {error}", log.display());
    command
        .stdin(Stdio::null())
        .stdout(open().map_err(cannot)?)
        .stderr(open().map_err(cannot)?);
    let lost = |error| format!("`{line}` did not start: {error}");
    let mut child = command.spawn().map_err(lost)?;
    loop {
        if let Some(status) = child.try_wait().map_err(lost)? {
            return if status.success() {
                Ok(())
            } else {
                Err(format!("`{line}` failed: {status}; see {}", log.display()))
            };
        }
        if CANCELLED.load(Ordering::Relaxed) {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(format!("`{line}` was stopped"));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("scheduler-xtask-{}-{name}", std::process::id()));
        make(&directory).unwrap();
        directory
    }

    #[test]
    fn what_was_interrupted_is_made_anew_and_what_is_there_is_kept() {
        let directory = scratch("produced");
        let path = directory.join("thing");
        let broken = produced(&path, |partial| {
            write(partial, "half")?;
            Err("interrupted".to_owned())
        });
        assert!(broken.is_err() && !path.exists());
        produced(&path, |partial| {
            assert!(!partial.exists(), "the half is still there");
            write(partial, "whole")
        })
        .unwrap();
        produced(&path, |_| Err("made twice".to_owned())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let directory = scratch("lock");
        let held = lock(&directory).unwrap();
        let other = File::options().write(true).open(directory.join("lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
        // A process that another test begins has every open file until it runs its program.
        other.lock().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_failure_names_the_command_and_its_log() {
        let directory = scratch("run");
        let log = directory.join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo said; exit 3"]);
        let problem = run(command, &log).unwrap_err();
        assert!(
            problem.contains("exit 3") && problem.contains(log.to_str().unwrap()),
            "{problem}"
        );
        assert_eq!(fs::read_to_string(&log).unwrap(), "said\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
