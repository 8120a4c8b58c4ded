//! Ends what is left of replicas: commands that outlived their executor, and whole replicas that outlived a scheduler that was killed.
//!
//! Every process of a replica has its directory in the environment, and so has all that it starts, in whatever process group. The kernel
//! shows the environment that a process began with, so a process that only got the number of an old one is never mistaken for it, and
//! nothing has to be written down before a process starts.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable with the directory of the deployer, or of a part of it, that a process was started by.
pub(crate) const MARK: &str = "SCHEDULER_REPLICA";

/// How often the process table is read at most: a process may be starting another while we look.
const MOST_ROUNDS: u32 = 50;

/// Kills every process whose replica's directory is `directory` or lies in it, and waits until they are gone. How many there were.
///
/// Without a `/proc` it finds none.
pub(crate) async fn end_all_of(directory: &Path) -> usize {
    let mut killed = 0;
    for round in 0..MOST_ROUNDS {
        let directory = directory.to_owned();
        let found = tokio::task::spawn_blocking(move || find(&directory))
            .await
            .unwrap_or_default();
        if found.is_empty() {
            return killed;
        }
        killed = killed.max(found.len());
        for pid in found {
            // It may have ended meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
        // A killed process stays in the table until the kernel has taken it down.
        tokio::time::sleep(Duration::from_millis(u64::from(round.min(20)))).await;
    }
    tracing::warn!(directory = %directory.display(), "processes of a replica cannot be ended");
    killed
}

fn find(directory: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = Pid::this();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|&pid| pid != own && belongs(pid, directory))
        .collect()
}

/// The environment of other users' processes cannot be read: they are none of ours. That of a dead one is empty.
fn belongs(pid: Pid, directory: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|&byte| byte == 0)
        .filter_map(|entry| entry.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))
        .any(|value| Path::new(std::ffi::OsStr::from_bytes(value)).starts_with(directory))
}
