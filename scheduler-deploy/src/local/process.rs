//! One process of a replica.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::task::AbortOnDropHandle;

use super::launch::Launch;
use super::log::{Tail, keep};

/// How long output is still read after the end of the process that wrote it: its children may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    child: Child,
    group: Option<Pid>,
    tail: Tail,
    /// Its end tells the process that we are gone.
    _stdin: Option<ChildStdin>,
    logs: Vec<AbortOnDropHandle<()>>,
}

impl Process {
    /// Starts it, in a process group of its own.
    pub(super) fn start(launch: &Launch, logs: &Path, log_bytes: u64) -> io::Result<Self> {
        let mut child = Command::new(&launch.program)
            .env_clear()
            .envs(&launch.environment)
            .current_dir(&launch.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", launch.program.display()))
            })?;
        let tail = Tail::default();
        let log = |output, ending: &str| {
            let path = logs.join(format!("{}.{ending}", launch.name));
            let tail = tail.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = keep(output, path.clone(), log_bytes, tail).await {
                    tracing::warn!(%error, path = %path.display(), "a worker's log cannot be written");
                }
            }))
        };
        let stdout = child.stdout.take().map(|output| -> Output { Box::new(output) });
        let stderr = child.stderr.take().map(|output| -> Output { Box::new(output) });
        let logs = [(stdout, "out"), (stderr, "err")]
            .into_iter()
            .filter_map(|(output, ending)| Some(log(output?, ending)))
            .collect();
        Ok(Self {
            name: launch.name.clone(),
            group: child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
            _stdin: child.stdin.take(),
            child,
            tail,
            logs,
        })
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Why it ended, with its last words.
    pub(super) async fn reason(&mut self, status: io::Result<ExitStatus>) -> String {
        self.read_last_words().await;
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        match self.tail.last_lines().as_str() {
            "" => format!("{} ended ({how}) without a word", self.name),
            words => format!("{} ended ({how}): {words}", self.name),
        }
    }

    /// Asks its group to end, and makes it when `grace` is over.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(process = self.name, "did not end in time and is killed");
            self.signal(Signal::SIGKILL);
            if let Err(error) = self.child.wait().await {
                tracing::warn!(%error, process = self.name, "cannot be waited for");
            }
        }
        self.read_last_words().await;
    }

    async fn read_last_words(&mut self) {
        let read = async {
            while let Some(log) = self.logs.last_mut() {
                // It was cancelled or failed: then there is nothing more to come.
                let _ = log.await;
                self.logs.pop();
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, read).await;
    }

    fn signal(&self, signal: Signal) {
        // While the child is not reaped its number, and so its group's, is nobody else's.
        if let (Some(group), Some(_)) = (self.group, self.child.id()) {
            // The group may be gone already.
            let _ = killpg(group, signal);
        }
    }
}

type Output = Box<dyn tokio::io::AsyncRead + Send + Unpin>;
