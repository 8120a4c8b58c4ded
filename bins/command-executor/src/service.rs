use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use scheduler_proto::exec::exec_event::Event;
use scheduler_proto::exec::exec_failure::Cause;
use scheduler_proto::exec::exec_service_server::ExecService;
use scheduler_proto::exec::{CommandEnded, CommandStarted, ExecCommands, ExecEvent, ExecFailure, ExecResult};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::Config;
use crate::process::{self, Ended, Ending, Surroundings, Watcher};

/// Below the 4 MiB that gRPC clients take in one message unless told otherwise.
const MAX_ANSWER_BYTES: usize = 3584 * 1024;
/// Characters of a command, and of its standard error, in a message for people.
const MAX_QUOTED: usize = 200;
const MAX_MESSAGE_STDERR: usize = 1024;
/// Events of one call on their way to a client that reads slowly.
const EVENTS: usize = 16;

#[derive(Debug)]
pub(crate) struct Executor {
    config: Arc<Config>,
    /// Every call runs as a task of its own, so that ending it (and its processes) outlives the connection.
    calls: TaskTracker,
    /// How many calls run now.
    active: watch::Sender<usize>,
    shutdown: CancellationToken,
}

impl Executor {
    pub(crate) fn new(config: Config, calls: TaskTracker, shutdown: CancellationToken) -> Self {
        Self {
            config: config.into(),
            calls,
            active: watch::Sender::new(0),
            shutdown,
        }
    }

    pub(crate) fn active(&self) -> watch::Receiver<usize> {
        self.active.subscribe()
    }

    fn admit(&self, request: Request<ExecCommands>) -> Result<Call, Status> {
        let asked_deadline = grpc_timeout(request.metadata());
        let request = request.into_inner();
        if let Some(name) = request
            .environment
            .keys()
            .find(|name| name.is_empty() || name.contains(['=', '\0']))
        {
            return Err(Status::invalid_argument(format!(
                "environment: `{name}` cannot name a variable"
            )));
        }
        let running = Running::enter(&self.active, self.config.max_calls).ok_or_else(|| {
            let message = format!(
                "{} calls are running already; try again later",
                self.config.max_calls
            );
            Status::resource_exhausted(message)
        })?;
        let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
        let timeout = timeout.into_iter().chain(asked_deadline).min();
        let surroundings = Surroundings {
            shell: self.config.shell.clone(),
            working_directory: Some(request.working_directory).filter(|directory| !directory.is_empty()),
            environment: request.environment,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            kill_grace: self.config.kill_grace,
            cancelled: CancellationToken::new(),
            shutdown: self.shutdown.clone(),
        };
        let max_output_bytes = self.config.max_output_bytes;
        Ok(Call {
            commands: request.commands,
            surroundings,
            max_output_bytes,
            _running: running,
        })
    }
}

#[tonic::async_trait]
impl ExecService for Executor {
    async fn execute_commands(&self, request: Request<ExecCommands>) -> Result<Response<ExecResult>, Status> {
        let call = self.admit(request)?;
        let _cancels_when_the_client_is_gone = call.surroundings.cancelled.clone().drop_guard();
        let result = self.calls.spawn(call.run(None)).await;
        result
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }

    type ExecuteStreamStream = Events;

    async fn execute_stream(&self, request: Request<ExecCommands>) -> Result<Response<Events>, Status> {
        let call = self.admit(request)?;
        let (sender, receiver) = mpsc::channel(EVENTS);
        let guard = call.surroundings.cancelled.clone().drop_guard();
        self.calls.spawn(call.run(Some(sender)));
        Ok(Response::new(Events {
            receiver,
            _cancels_when_the_client_is_gone: guard,
        }))
    }
}

/// The events of one call; dropping them ends it.
#[derive(Debug)]
pub(crate) struct Events {
    receiver: mpsc::Receiver<Result<ExecEvent, Status>>,
    _cancels_when_the_client_is_gone: DropGuard,
}

impl Stream for Events {
    type Item = Result<ExecEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

/// Counts one call as active while it lives.
#[derive(Debug)]
struct Running {
    active: watch::Sender<usize>,
}

impl Running {
    fn enter(active: &watch::Sender<usize>, max: usize) -> Option<Self> {
        let entered = active.send_if_modified(|count| {
            let free = *count < max;
            *count += usize::from(free);
            free
        });
        entered.then(|| Self {
            active: active.clone(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.active.send_modify(|count| *count -= 1);
    }
}

struct Call {
    commands: Vec<String>,
    surroundings: Surroundings,
    max_output_bytes: usize,
    _running: Running,
}

type EventSender = mpsc::Sender<Result<ExecEvent, Status>>;

impl Call {
    async fn run(self, events: Option<EventSender>) -> ExecResult {
        let mut result = ExecResult {
            result: true,
            ..ExecResult::default()
        };
        let mut answer_bytes_left = MAX_ANSWER_BYTES;
        for (command, line) in (0_u32..).zip(&self.commands) {
            self.tell(events.as_ref(), Event::Started(CommandStarted { command }))
                .await;
            let watcher = events.as_ref().map(|events| Watcher { events, command });
            let limit = self.max_output_bytes.min(answer_bytes_left);
            let Ended { how, stdout, stderr } = process::run(line, &self.surroundings, limit, watcher).await;

            let output = stdout.into_text();
            answer_bytes_left = answer_bytes_left.saturating_sub(output.len());
            result.output.push(output);
            let exit_code = match &how {
                Ending::Status(status) => status.code().unwrap_or(-1),
                _ => -1,
            };
            self.tell(events.as_ref(), Event::Ended(CommandEnded { command, exit_code }))
                .await;

            if let Some(mut failure) = failure(&how) {
                failure.command = command;
                failure.stderr_tail = stderr.into_text();
                result.result = false;
                result.error_message = self.message(&how, &failure, line);
                result.failure = Some(failure);
                break;
            }
        }
        self.tell(events.as_ref(), Event::Finished(result.clone())).await;
        result
    }

    async fn tell(&self, events: Option<&EventSender>, event: Event) {
        let Some(events) = events else { return };
        let event = Ok(ExecEvent { event: Some(event) });
        tokio::select! {
            // An error says that the client is gone, which `cancelled` tells too.
            _ = events.send(event) => {}
            () = self.surroundings.cancelled.cancelled() => {}
            () = self.surroundings.shutdown.cancelled() => {}
        }
    }

    fn message(&self, how: &Ending, failure: &ExecFailure, line: &str) -> String {
        let number = failure.command + 1;
        let quoted: String = line.trim().chars().take(MAX_QUOTED).collect();
        let more = if quoted.len() < line.trim().len() {
            "…"
        } else {
            ""
        };
        let what = match how {
            Ending::NotStarted(error) => {
                format!("could not be run by `{}`: {error}", self.surroundings.shell)
            }
            Ending::TimedOut => "was stopped: its time was over".to_owned(),
            Ending::ShutDown => "was stopped: the executor is shutting down".to_owned(),
            Ending::Cancelled => "was stopped: the call was cancelled".to_owned(),
            Ending::Status(_) if failure.cause() == Cause::Signal => {
                format!("was ended by signal {}", failure.signal)
            }
            Ending::Status(_) => format!("ended with exit code {}", failure.exit_code),
        };
        let mut message = format!(
            "command {number} of {} (`{quoted}{more}`) {what}",
            self.commands.len()
        );
        let stderr = failure.stderr_tail.as_str();
        if !stderr.is_empty() {
            message.push_str(": ");
            message.push_str(
                &stderr[stderr.ceil_char_boundary(stderr.len().saturating_sub(MAX_MESSAGE_STDERR))..],
            );
        }
        message
    }
}

fn failure(how: &Ending) -> Option<ExecFailure> {
    let mut failure = ExecFailure::default();
    let cause = match how {
        Ending::Status(status) if status.success() => return None,
        Ending::Status(status) => {
            failure.signal = status.signal().unwrap_or_default();
            failure.exit_code = status.code().unwrap_or_default();
            if status.code().is_some() {
                Cause::ExitCode
            } else {
                Cause::Signal
            }
        }
        Ending::TimedOut => Cause::Timeout,
        Ending::ShutDown => Cause::Shutdown,
        // Nobody is there to read this.
        Ending::Cancelled => Cause::Unspecified,
        Ending::NotStarted(_) => Cause::Spawn,
    };
    failure.set_cause(cause);
    Some(failure)
}

/// The deadline that the client gave to gRPC. tonic ends a unary call by it, but not a stream.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.checked_mul(3600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
