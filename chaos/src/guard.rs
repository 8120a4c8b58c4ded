//! Nothing outlives a run: a process that waits for the run's end, however it comes, and then kills its servers and workers.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler_examples::binaries;

/// The arguments by which a server and a worker are known for ours: a path in the run's directory follows.
const MARKS: [&[u8]; 2] = [b"--data", b"--ledger"];

/// Held while the run lasts.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let program = binaries()?.join("chaos");
        let child = Command::new(&program)
            .arg("guard")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C ends us, and it has work to do then.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} did not start; build it first", program.display()))?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It has nothing left to do after an orderly end, and is quick in any case.
        let _ = self.0.wait();
    }
}

/// What that process does.
///
/// # Errors
///
/// The processes of this machine cannot be listed.
pub fn guard(directory: &Path) -> anyhow::Result<()> {
    // Nobody writes; it ends when the other end is closed, which the system does also when the run is killed.
    let mut nothing = [0; 64];
    while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if let Some(pid) = pid
            && is_ours(&line, directory)
        {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

fn is_ours(line: &[u8], directory: &Path) -> bool {
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| {
        let path = std::str::from_utf8(pair[1]).map(Path::new);
        MARKS.contains(&pair[0]) && path.is_ok_and(|path| path.starts_with(directory))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ours_by_where_it_keeps_its_things() {
        let of_this_run = |line: &str| is_ours(line.replace(' ', "\0").as_bytes(), Path::new("/run/x"));
        assert!(of_this_run("server --data /run/x/data-0 --http 1"));
        assert!(of_this_run("worker --ledger /run/x/worker-0.ledger"));
        assert!(!of_this_run("server --data /run/xy/data-0"));
        assert!(!of_this_run("xtask services guard --dir /run/x/services"));
        assert!(!of_this_run("server --data"));
    }
}
