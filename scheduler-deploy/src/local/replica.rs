//! The life of one replica.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LocalConfig;
use super::launch::{Plan, workspace};
use super::process::Process;
use crate::leftover;

/// How a replica fares.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Health {
    /// Its processes have lived long enough to believe in them.
    pub(super) ready: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Why it failed last.
    pub(super) problem: String,
}

/// What runs one replica until it is told to stop.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) config: Arc<LocalConfig>,
    pub(super) plan: Arc<Plan>,
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) health: Arc<Mutex<Health>>,
    pub(super) stop: CancellationToken,
}

/// How a start of a replica ended.
enum Ended {
    /// It was told to.
    Stopped,
    /// By itself.
    Failed { reason: String, lived: Duration },
}

impl Replica {
    /// Starts it, again and again, until it is told to stop. Afterwards nothing of it is left but its logs.
    pub(super) async fn run(self) {
        while !self.stop.is_cancelled() {
            let ended = self.live().await;
            self.set(|health| health.ready = false);
            leftover::end_all_of(&self.directory).await;
            let Ended::Failed { reason, lived } = ended else {
                break;
            };
            let mut failures = 0;
            self.set(|health| {
                let before = if lived >= self.config.stable_after {
                    0
                } else {
                    health.failures
                };
                failures = before.saturating_add(1);
                health.failures = failures;
                health.problem.clone_from(&reason);
            });
            let wait = self.backoff(failures);
            tracing::warn!(
                replica = self.name,
                reason,
                failures,
                wait_ms = wait.as_millis(),
                "a worker failed and is started again"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
        }
        remove_workspace(&self.directory).await;
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.config
            .initial_backoff
            .saturating_mul(1 << doublings)
            .min(self.config.max_backoff)
    }

    /// How long it must live to be believed in: the longer the oftener it failed, so that one that always dies late is not ready now and then.
    fn ready_after(&self) -> Duration {
        let mut failures = 0;
        self.set(|health| failures = health.failures);
        self.config
            .ready_after
            .saturating_mul(1 << failures.min(20))
            .min(self.config.stable_after.max(self.config.ready_after))
    }

    fn set(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// One start: until a process ends or the replica is told to stop; then all of them have ended.
    async fn live(&self) -> Ended {
        let began = Instant::now();
        let (mut executors, mut worker) = match self.start().await {
            Ok(started) => started,
            Err(error) => {
                return Ended::Failed {
                    reason: format!("cannot be started: {error}"),
                    lived: Duration::ZERO,
                };
            }
        };
        let ready = tokio::time::sleep(self.ready_after());
        tokio::pin!(ready);
        let mut is_ready = false;
        let ended = loop {
            let (process, status) = tokio::select! {
                () = self.stop.cancelled() => break Ended::Stopped,
                () = &mut ready, if !is_ready => {
                    is_ready = true;
                    self.set(|health| health.ready = true);
                    continue;
                }
                status = worker.ended() => (&mut worker, status),
                (index, status) = any_ended(&mut executors) => (&mut executors[index], status),
            };
            break Ended::Failed {
                lived: began.elapsed(),
                reason: process.reason(status).await,
            };
        };
        // The worker first: while it ends its tasks it needs its executors.
        let grace = match ended {
            Ended::Stopped => self.config.drain_grace,
            Ended::Failed { .. } => self.config.executor_grace,
        };
        worker.end(grace).await;
        let mut ending = JoinSet::new();
        for mut executor in executors {
            let grace = self.config.executor_grace;
            ending.spawn(async move { executor.end(grace).await });
        }
        ending.join_all().await;
        ended
    }

    async fn start(&self) -> io::Result<(Vec<Process>, Process)> {
        let workspace = workspace(&self.directory);
        let logs = self.directory.join("logs");
        make_private(&workspace).await?;
        make_private(&logs).await?;
        let (executors, worker) = self.plan.launches(&self.config, &self.name, &self.directory)?;
        let start = |launch| Process::start(launch, &logs, self.config.log_bytes);
        let executors = executors.iter().map(start).collect::<io::Result<_>>()?;
        Ok((executors, start(&worker)?))
    }
}

/// Removes the files of a replica's tasks, if there are any.
pub(super) async fn remove_workspace(directory: &Path) {
    let workspace = workspace(directory);
    if let Err(error) = tokio::fs::remove_dir_all(&workspace).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %workspace.display(), "a workspace cannot be removed");
    }
}

/// Waits for the end of one of them; for ever if there are none.
async fn any_ended(processes: &mut [Process]) -> (usize, io::Result<std::process::ExitStatus>) {
    std::future::poll_fn(|context| {
        for (index, process) in processes.iter_mut().enumerate() {
            let ended = std::pin::pin!(process.ended());
            if let std::task::Poll::Ready(status) = ended.poll(context) {
                return std::task::Poll::Ready((index, status));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Makes a directory that others cannot look into.
async fn make_private(path: &Path) -> io::Result<()> {
    tokio::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
