//! One command from start to end: its process group, its output, its time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use scheduler_proto::exec::{CommandOutput, ExecEvent, exec_event::Event};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::output::{Head, Tail};

/// After a command's shell has ended, what it left behind may write for so long before it is killed.
const LINGER: Duration = Duration::from_millis(500);
const MAX_STDERR_TAIL: usize = 8 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// What all commands of a call have in common.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) shell: String,
    pub(crate) working_directory: Option<String>,
    pub(crate) environment: HashMap<String, String>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) kill_grace: Duration,
    /// The client does not want the answer any more.
    pub(crate) cancelled: CancellationToken,
    /// The executor ends.
    pub(crate) shutdown: CancellationToken,
}

/// Who wants to see the output as it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watcher<'a> {
    pub(crate) events: &'a mpsc::Sender<Result<ExecEvent, Status>>,
    /// The command's place in its call.
    pub(crate) command: u32,
}

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: Ending,
    pub(crate) stdout: Head,
    pub(crate) stderr: Tail,
}

#[derive(Debug)]
pub(crate) enum Ending {
    Status(ExitStatus),
    TimedOut,
    Cancelled,
    ShutDown,
    NotStarted(io::Error),
}

/// Runs one command. Its whole process group is gone when this returns; only processes that made themselves a
/// session of their own survive.
pub(crate) async fn run(
    command: &str,
    surroundings: &Surroundings,
    max_output_bytes: usize,
    watcher: Option<Watcher<'_>>,
) -> Ended {
    let mut stdout = Head::new(max_output_bytes);
    let mut stderr = Tail::new(MAX_STDERR_TAIL);
    let how = match Group::start(command, surroundings) {
        Ok(mut group) => {
            group
                .supervise(surroundings, &mut stdout, &mut stderr, watcher)
                .await
        }
        Err(error) => Ending::NotStarted(error),
    };
    Ended { how, stdout, stderr }
}

struct Group {
    child: Child,
    id: Pid,
}

/// How far the end of the command has come.
enum Phase {
    Running,
    /// The shell has ended; its output has not.
    Lingering,
    /// Told to end by SIGTERM.
    Terminating,
    /// Ended by SIGKILL.
    Killed,
}

impl Group {
    fn start(command: &str, surroundings: &Surroundings) -> io::Result<Self> {
        let mut shell = Command::new(&surroundings.shell);
        shell
            .arg("-c")
            .arg(command)
            .envs(&surroundings.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &surroundings.working_directory {
            shell.current_dir(directory);
        }
        let child = shell.spawn()?;
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("the shell ended before its process id was read"))?;
        Ok(Self { child, id })
    }

    async fn supervise(
        &mut self,
        surroundings: &Surroundings,
        stdout: &mut Head,
        stderr: &mut Tail,
        watcher: Option<Watcher<'_>>,
    ) -> Ending {
        let mut out = Pipe::new(self.child.stdout.take());
        let mut err = Pipe::new(self.child.stderr.take());
        let mut pieces = Pieces {
            watcher,
            unsent: VecDeque::new(),
            stderr_left: stdout.limit(),
        };

        let mut phase = Phase::Running;
        let mut wake = surroundings.deadline;
        let mut status = None;
        let mut ending = None;
        loop {
            let finished = status.is_some() && out.ended && err.ended;
            if finished {
                break;
            }
            let running = matches!(phase, Phase::Running);
            // Whoever watches slowly slows the command down, but not its end.
            let may_read = pieces.unsent.is_empty() || !running;
            tokio::select! {
                length = out.read(), if may_read && !out.ended => {
                    let kept = stdout.push(&out.buffer[..length]);
                    pieces.stdout(&out.buffer[..kept]);
                }
                length = err.read(), if may_read && !err.ended => {
                    stderr.push(&err.buffer[..length]);
                    pieces.stderr(&err.buffer[..length]);
                }
                () = pieces.send_one(), if !pieces.unsent.is_empty() => {}
                ended = self.child.wait(), if status.is_none() => {
                    status = Some(ended);
                    if running {
                        phase = Phase::Lingering;
                        wake = Some(Instant::now() + LINGER);
                    }
                }
                () = surroundings.cancelled.cancelled(), if running => {
                    ending = Some(Ending::Cancelled);
                    self.terminate(&mut phase, &mut wake, surroundings);
                }
                () = surroundings.shutdown.cancelled(), if running => {
                    ending = Some(Ending::ShutDown);
                    self.terminate(&mut phase, &mut wake, surroundings);
                }
                () = at(wake), if wake.is_some() => match phase {
                    Phase::Running => {
                        ending = Some(Ending::TimedOut);
                        self.terminate(&mut phase, &mut wake, surroundings);
                    }
                    Phase::Lingering | Phase::Terminating => {
                        self.signal(Signal::SIGKILL);
                        phase = Phase::Killed;
                        wake = Some(Instant::now() + LINGER);
                    }
                    // Something outside the group holds the pipes, or the kernel holds the process.
                    Phase::Killed => break,
                },
            }
        }
        // What runs on in the background with its output elsewhere.
        self.signal(Signal::SIGKILL);
        pieces.send_all(surroundings).await;
        match (ending, status) {
            (Some(ending), _) => ending,
            (None, Some(Ok(status))) => Ending::Status(status),
            (None, Some(Err(error))) => Ending::NotStarted(error),
            (None, None) => Ending::NotStarted(io::Error::other("the shell did not end after SIGKILL")),
        }
    }

    fn terminate(&self, phase: &mut Phase, wake: &mut Option<Instant>, surroundings: &Surroundings) {
        self.signal(Signal::SIGTERM);
        *phase = Phase::Terminating;
        *wake = Some(Instant::now() + surroundings.kill_grace);
    }

    fn signal(&self, signal: Signal) {
        // ESRCH says that nothing is left, which is what is wanted.
        if let Err(error) = killpg(self.id, signal)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!(group = self.id.as_raw(), %signal, %error, "cannot signal the process group");
        }
    }
}

impl Drop for Group {
    /// The runtime is going down in mid-command.
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// One of the command's outputs, until its end.
struct Pipe<R> {
    reader: Option<R>,
    buffer: Box<[u8]>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: Option<R>) -> Self {
        Self {
            ended: reader.is_none(),
            reader,
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// The length of what is in the buffer now; nothing is lost when this is cancelled.
    async fn read(&mut self) -> usize {
        let length = match &mut self.reader {
            Some(reader) => reader.read(&mut self.buffer).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read a command's output");
                0
            }),
            None => 0,
        };
        self.ended = length == 0;
        length
    }
}

/// Output on its way to the watcher.
struct Pieces<'a> {
    watcher: Option<Watcher<'a>>,
    unsent: VecDeque<CommandOutput>,
    /// Bytes of standard error that may still be shown; those of standard output are bounded by what is kept.
    stderr_left: usize,
}

impl Pieces<'_> {
    fn stdout(&mut self, piece: &[u8]) {
        self.push(piece, |command, stdout| CommandOutput {
            command,
            stdout,
            stderr: Bytes::new(),
        });
    }

    fn stderr(&mut self, piece: &[u8]) {
        let shown = piece.len().min(self.stderr_left);
        self.stderr_left -= shown;
        self.push(&piece[..shown], |command, stderr| CommandOutput {
            command,
            stdout: Bytes::new(),
            stderr,
        });
    }

    fn push(&mut self, piece: &[u8], event: impl FnOnce(u32, Bytes) -> CommandOutput) {
        if let Some(watcher) = self.watcher
            && !piece.is_empty()
        {
            self.unsent
                .push_back(event(watcher.command, Bytes::copy_from_slice(piece)));
        }
    }

    /// Nothing is lost when this is cancelled.
    async fn send_one(&mut self) {
        let Some(watcher) = self.watcher else { return };
        if let Ok(permit) = watcher.events.reserve().await {
            if let Some(output) = self.unsent.pop_front() {
                permit.send(Ok(ExecEvent {
                    event: Some(Event::Output(output)),
                }));
            }
        } else {
            self.watcher = None;
            self.unsent.clear();
        }
    }

    async fn send_all(&mut self, surroundings: &Surroundings) {
        while !self.unsent.is_empty() {
            tokio::select! {
                () = self.send_one() => {}
                () = surroundings.cancelled.cancelled() => return,
                () = surroundings.shutdown.cancelled() => return,
            }
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
