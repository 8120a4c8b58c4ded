//! Trying a handler in process, without a scheduler.

use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::{Lease, LeaseRef};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::Surroundings;
use crate::handler::{self, Attempt, TaskService};
use crate::tasks::Said;
use crate::{Context, TaskError};

/// One attempt at one task, to be given to a handler.
///
/// ```
/// use scheduler_sdk::testing::Trial;
/// use scheduler_sdk::{Context, TaskError, service};
///
/// async fn double(number: i64, ctx: Context) -> Result<i64, TaskError> {
///     ctx.progress(&"half way").await;
///     number.checked_mul(2).ok_or_else(|| TaskError::permanent("too large"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tried = Trial::new(&21).run(service(double)).await;
/// assert_eq!(tried.output(), Ok(42.into()));
/// assert_eq!(tried.progress, ["half way"]);
///
/// let tried = Trial::new(&i64::MAX).run(service(double)).await;
/// assert!(tried.output().unwrap_err().is_permanent());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Trial {
    params: Result<Vec<u8>, String>,
    definition: Bytes,
    attempt: u32,
    cancelled: CancellationToken,
}

/// What came of a [`Trial`].
#[derive(Clone, Debug)]
pub struct Tried {
    outcome: Outcome,
    /// Everything the handler said about its progress, in order.
    pub progress: Vec<Value>,
}

impl Trial {
    /// A first attempt with these params.
    pub fn new(params: &impl Serialize) -> Self {
        let params = serde_json::to_vec(params).map_err(|error| error.to_string());
        Self {
            params,
            definition: Bytes::new(),
            attempt: 1,
            cancelled: CancellationToken::new(),
        }
    }

    /// The pipeline's definition.
    #[must_use]
    pub fn definition(mut self, json: impl Into<Bytes>) -> Self {
        self.definition = json.into();
        self
    }

    /// The number of the attempt.
    #[must_use]
    pub fn attempt(mut self, number: u32) -> Self {
        self.attempt = number;
        self
    }

    /// What the handler sees as its cancellation.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancelled = token;
        self
    }

    /// Runs the attempt as a worker would.
    pub async fn run(self, service: TaskService) -> Tried {
        let params = match self.params {
            Ok(params) => Bytes::from(params),
            Err(error) => {
                return Tried {
                    outcome: Outcome::Rejected(format!("params: {error}")),
                    progress: Vec::new(),
                };
            }
        };
        let name = LeaseRef {
            partition: 0,
            offset: 0,
            epoch: 1,
            attempt: self.attempt,
        };
        let lease = Lease {
            r#ref: Some(name),
            params: params.clone(),
            run_until_ms: u64::MAX,
            ..Lease::default()
        };
        let (said, mut received) = mpsc::channel(16);
        let worker = Surroundings {
            definition: self.definition,
            said,
        };
        let context = Context::with_token(lease, worker.into(), self.cancelled.into());
        let work = handler::run(service, Attempt { params, context }, usize::MAX);
        let gather = async {
            let mut progress = Vec::new();
            while let Some(said) = received.recv().await {
                if let Said::Progressed { progress: json, .. } = said {
                    progress.push(serde_json::from_slice(&json).unwrap_or_default());
                }
            }
            progress
        };
        let (outcome, progress) = tokio::join!(work, gather);
        Tried { outcome, progress }
    }
}

impl Tried {
    /// The output, or the error that the scheduler would be told.
    ///
    /// # Errors
    ///
    /// Those of the handler; a panic is retryable.
    pub fn output(&self) -> Result<Value, TaskError> {
        match &self.outcome {
            Outcome::Succeeded(output) => Ok(serde_json::from_slice(output)?),
            Outcome::Rejected(text) => Err(TaskError::permanent(text)),
            Outcome::Failed(text) => Err(TaskError::retryable(text)),
            Outcome::Returned(_) | Outcome::Stopped(_) => Err(TaskError::retryable("was not run")),
        }
    }
}
