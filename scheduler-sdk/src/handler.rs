//! From a typed async function to a service that layers can wrap and the driver can call.

use std::any::Any;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::{self, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use scheduler_proto::worker::report::Outcome;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service as _, ServiceExt as _, service_fn};

use crate::{Context, TaskError};

/// One attempt at a task, as layers see it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What the task was submitted with.
    pub params: Bytes,
    /// The rest.
    pub context: Context,
}

/// What runs attempts: the handler under all its layers. The answer is the task's output.
///
/// An error that a [`TaskFailure`] is behind counts as that; any other, such as a layer's own, as retryable.
pub type TaskService = BoxCloneSyncService<Attempt, Bytes, BoxError>;

/// A handler's [`TaskError`] on its way through the layers.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TaskFailure(pub TaskError);

/// Makes a service of a handler: params in from JSON, output out to JSON. Params that do not fit `In` are a permanent
/// failure.
pub fn service<H, In, Out, E, F>(handler: H) -> TaskService
where
    H: Fn(In, Context) -> F + Clone + Send + Sync + 'static,
    In: DeserializeOwned + Send + 'static,
    Out: Serialize,
    E: Into<TaskError>,
    F: Future<Output = Result<Out, E>> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(move |attempt: Attempt| {
        let parsed = parse(&attempt.params).map(|params| handler(params, attempt.context));
        async move {
            let output = async { parsed?.await.map_err(Into::into) }
                .await
                .map_err(TaskFailure)?;
            let json = serde_json::to_vec(&output).map_err(|error| {
                TaskFailure(TaskError::permanent(format!("the output is no JSON: {error}")))
            })?;
            Ok(Bytes::from(json))
        }
    }))
}

fn parse<In: DeserializeOwned>(params: &[u8]) -> Result<In, TaskError> {
    // No params at all are no value, as `()` and `Option` expect it.
    let json = if params.trim_ascii().is_empty() {
        b"null"
    } else {
        params
    };
    serde_json::from_slice(json).map_err(|error| TaskError::permanent(format!("params: {error}")))
}

/// The rest of an attempt.
pub(crate) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How far an attempt is after its first step.
pub(crate) enum Begun {
    Ended(Outcome),
    /// It waits for something.
    Waits(Work),
}

/// Runs one attempt to its end, whatever that is.
pub(crate) async fn run(service: TaskService, attempt: Attempt, max_output_bytes: usize) -> Outcome {
    let answer = async { service.oneshot(attempt).await };
    end(answer, max_output_bytes).await
}

/// Runs one attempt for as long as it does not wait. A service that is not ready is asked once more, by a clone of its own.
pub(crate) fn begin(
    service: &mut TaskService,
    attempt: Attempt,
    max_output_bytes: usize,
    cx: &mut task::Context<'_>,
) -> Begun {
    let first = panic::catch_unwind(AssertUnwindSafe(|| match service.poll_ready(cx) {
        Poll::Pending => Begun::Waits(Box::pin(run(service.clone(), attempt, max_output_bytes))),
        Poll::Ready(Err(error)) => Begun::Ended(outcome(Ok(Err(error)), max_output_bytes)),
        Poll::Ready(Ok(())) => {
            let mut answer = service.call(attempt);
            match answer.poll_unpin(cx) {
                Poll::Ready(answer) => Begun::Ended(outcome(Ok(answer), max_output_bytes)),
                Poll::Pending => Begun::Waits(Box::pin(end(answer, max_output_bytes))),
            }
        }
    }));
    first.unwrap_or_else(|panic| Begun::Ended(outcome(Err(panic), max_output_bytes)))
}

async fn end(answer: impl Future<Output = Result<Bytes, BoxError>>, max_output_bytes: usize) -> Outcome {
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    outcome(answer, max_output_bytes)
}

fn outcome(answer: Result<Result<Bytes, BoxError>, Box<dyn Any + Send>>, max_output_bytes: usize) -> Outcome {
    match answer {
        Ok(Ok(output)) if output.len() > max_output_bytes => Outcome::Rejected(format!(
            "the output is {} bytes long, at most {max_output_bytes} are taken; store it elsewhere and return where",
            output.len()
        )),
        Ok(Ok(output)) => Outcome::Succeeded(output),
        Ok(Err(error)) => match error.downcast::<TaskFailure>() {
            Ok(failure) if failure.0.is_permanent() => Outcome::Rejected(failure.to_string()),
            Ok(failure) => Outcome::Failed(failure.to_string()),
            Err(other) => Outcome::Failed(TaskError::retryable(other).to_string()),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Outcome::Failed(
                TaskError::retryable(format!("panicked: {}", text.unwrap_or("no message"))).to_string(),
            )
        }
    }
}
