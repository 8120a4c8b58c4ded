use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scheduler_proto::exec::exec_event::Event;
use scheduler_proto::exec::exec_service_client::ExecServiceClient;
use scheduler_proto::exec::{ExecCommands, ExecResult};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long an executor may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than a step's timeout its answer may take: the executor has processes to end first.
const ANSWER_GRACE: Duration = Duration::from_secs(15);
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The executors that a worker can call, by name.
#[derive(Debug)]
pub struct Executors {
    by_name: BTreeMap<String, Executor>,
}

#[derive(Debug)]
struct Executor {
    target: String,
    channel: Channel,
    /// It has answered that it knows no streaming.
    no_stream: AtomicBool,
}

/// An executor that is configured wrongly.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// A step that did not succeed. Another try may.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What went wrong: the command, its exit code, the end of its error output; or why there was no answer.
    pub message: String,
    /// The output of the commands up to the one that failed.
    pub output: Vec<String>,
}

impl Executors {
    /// Executors by name and target (`127.0.0.1:50051`). Must be called within a tokio runtime; connects later.
    ///
    /// # Errors
    ///
    /// A target that is no address, or a name given twice.
    pub fn new(executors: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut by_name = BTreeMap::new();
        for (name, target) in executors {
            let target = target
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned();
            let endpoint = Endpoint::from_shared(format!("http://{target}"))
                .ok()
                .filter(|endpoint| endpoint.uri().port().is_some())
                .ok_or_else(|| {
                    ConfigError(format!(
                        "executor {name}: `{target}` is no target; use one like 127.0.0.1:50051"
                    ))
                })?;
            let channel = endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .connect_lazy();
            match by_name.entry(name) {
                Entry::Occupied(entry) => {
                    return Err(ConfigError(format!("executor {} is given twice", entry.key())));
                }
                Entry::Vacant(entry) => entry.insert(Executor {
                    target,
                    channel,
                    no_stream: AtomicBool::new(false),
                }),
            };
        }
        Ok(Self { by_name })
    }

    /// Their names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The executors that take no connection now, each with the reason.
    pub async fn unreachable(&self) -> Vec<String> {
        let probe = async |(name, executor): (&String, &Executor)| {
            let connect = TcpStream::connect(&executor.target);
            match timeout(Duration::from_secs(1), connect).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(format!("executor {name} at {}: {error}", executor.target)),
                Err(_) => Some(format!("executor {name} at {}: no answer", executor.target)),
            }
        };
        let probes = futures::future::join_all(self.by_name.iter().map(probe)).await;
        probes.into_iter().flatten().collect()
    }

    /// Runs commands on one executor and gives their outputs. `ended` is set to how many have ended so far.
    ///
    /// Dropping the future ends the commands.
    ///
    /// # Errors
    ///
    /// See [`StepError`].
    pub async fn run(
        &self,
        name: &str,
        request: ExecCommands,
        ended: watch::Sender<usize>,
    ) -> Result<Vec<String>, StepError> {
        let executor = self.by_name.get(name).ok_or_else(|| {
            let known: Vec<_> = self.names().collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            no_answer(format!(
                "this worker has no executor of that name (it has: {known})"
            ))
        })?;
        let limit = Duration::from_millis(request.timeout_ms);
        let call = executor.call(request, ended);
        let result = if limit.is_zero() {
            call.await
        } else {
            timeout(limit + ANSWER_GRACE, call).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "no answer {ANSWER_GRACE:?} after its time"
                )))
            })
        };
        let result = result.map_err(|status| {
            no_answer(format!(
                "executor at {} failed: {} ({})",
                executor.target,
                status.message(),
                status.code()
            ))
        })?;
        if result.result {
            return Ok(result.output);
        }
        let message = match (result.error_message.trim(), &result.failure) {
            ("", _) => "failed without a message".to_owned(),
            (message, _) => message.to_owned(),
        };
        Err(StepError {
            message,
            output: result.output,
        })
    }
}

fn no_answer(message: String) -> StepError {
    StepError {
        message,
        output: Vec::new(),
    }
}

impl Executor {
    async fn call(&self, request: ExecCommands, ended: watch::Sender<usize>) -> Result<ExecResult, Status> {
        let mut client =
            ExecServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        if !self.no_stream.load(Ordering::Relaxed) {
            match client.execute_stream(request.clone()).await {
                Ok(stream) => {
                    let mut events = stream.into_inner();
                    while let Some(event) = events.message().await? {
                        match event.event {
                            Some(Event::Ended(_)) => ended.send_modify(|count| *count += 1),
                            Some(Event::Finished(result)) => return Ok(result),
                            Some(Event::Started(_) | Event::Output(_)) | None => {}
                        }
                    }
                    return Err(Status::unavailable("the stream ended before the commands"));
                }
                Err(status) if status.code() == Code::Unimplemented => {
                    self.no_stream.store(true, Ordering::Relaxed);
                }
                Err(status) => return Err(status),
            }
        }
        // An executor from before streaming does not know of timeouts either.
        let limit = Duration::from_millis(request.timeout_ms);
        let call = client.execute_commands(request);
        let answer = if limit.is_zero() {
            call.await
        } else {
            timeout(limit, call).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "the step's time of {limit:?} was over"
                )))
            })
        };
        answer.map(tonic::Response::into_inner)
    }
}
