use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use scheduler_proto::worker::Lease;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::LeaseKey;
use crate::tasks::Said;

/// What a handler knows about its task, and its line back to the scheduler. Cheap to clone.
///
/// Signs of life are given by themselves as long as the worker runs.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    lease: Lease,
    key: LeaseKey,
    worker: Arc<Surroundings>,
    /// Made when somebody asks for it: most tasks are over before anybody does.
    cancelled: OnceLock<CancellationToken>,
}

/// What the tasks of a worker have in common.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) definition: Bytes,
    /// To the driver.
    pub(crate) said: mpsc::Sender<Said>,
}

impl Context {
    pub(crate) fn new(lease: Lease, worker: Arc<Surroundings>) -> Self {
        Self::with_token(lease, worker, OnceLock::new())
    }

    /// Cancelled by whoever has the token.
    pub(crate) fn with_token(
        lease: Lease,
        worker: Arc<Surroundings>,
        cancelled: OnceLock<CancellationToken>,
    ) -> Self {
        let key = lease.r#ref.map(LeaseKey::from).unwrap_or_default();
        Self {
            inner: Arc::new(Inner {
                lease,
                key,
                worker,
                cancelled,
            }),
        }
    }

    /// Where the task lies in the log of its pipeline: partition and offset. The same in every attempt.
    pub fn task(&self) -> (u32, u64) {
        (self.inner.key.partition, self.inner.key.offset)
    }

    /// The attempt, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.key.attempt
    }

    /// Which lease this is.
    pub fn lease(&self) -> LeaseKey {
        self.inner.key
    }

    /// The task's priority, 0 (last) to 9 (first).
    pub fn priority(&self) -> u32 {
        self.inner.lease.priority
    }

    /// The W3C trace context that the task was submitted with; empty if it was not.
    pub fn traceparent(&self) -> &[u8] {
        &self.inner.lease.traceparent
    }

    /// How long the attempt still may run.
    pub fn time_left(&self) -> Duration {
        let end = UNIX_EPOCH + Duration::from_millis(self.inner.lease.run_until_ms.min(i64::MAX as u64));
        end.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// The pipeline's definition as the scheduler sent it before this task: JSON, empty if it has none.
    pub fn definition(&self) -> &Bytes {
        &self.inner.worker.definition
    }

    /// Cancelled when the scheduler wants the task stopped or the worker has to end. Who does not heed it is dropped
    /// at its next await after the worker's cancel grace.
    pub fn cancelled(&self) -> &CancellationToken {
        self.inner.cancelled.get_or_init(CancellationToken::new)
    }

    /// Tells how far the task is, as any JSON. Only the latest is kept, and it is sent a few times a second at most.
    pub async fn progress(&self, progress: &(impl Serialize + Sync)) {
        match serde_json::to_vec(progress) {
            Ok(json) => {
                let progressed = Said::Progressed {
                    lease: self.inner.key,
                    progress: json.into(),
                };
                // An error says that the worker has ended, and nobody is there to be told.
                let _ = self.inner.worker.said.send(progressed).await;
            }
            Err(error) => tracing::warn!(%error, "progress that is no JSON"),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("lease", &self.inner.key)
            .finish_non_exhaustive()
    }
}
