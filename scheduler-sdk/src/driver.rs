//! Moves bytes and time: feeds the session machine and does what it says.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::worker::Lease;
use scheduler_proto::worker::report::Outcome;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use crate::Context;
use crate::handler::{self, Attempt, TaskService};
use crate::link::{Event, Link};
use crate::session::{Input, LeaseKey, Output, Session};
use crate::worker::{Options, RunError, Worker};

/// What tasks say before the driver looks: a word or two of each.
const INPUTS: usize = 1024;
/// Inputs that are handled before their outputs are done.
const BATCH: usize = 256;

pub(crate) async fn run(worker: Worker) -> Result<(), RunError> {
    let (inputs, from_tasks) = mpsc::channel(INPUTS);
    let mut shutdown = worker.shutdown;
    let mut driver = Driver {
        session: Session::new(worker.session),
        tasks: Tasks {
            service: worker.service,
            options: worker.options.clone(),
            definition: Bytes::new(),
            inputs,
            running: HashMap::new(),
        },
        link: None,
        connect_at: Instant::now(),
        servers: worker.servers,
        attempts: 0,
        failures: 0,
        welcome_since: None,
        was_welcome: false,
        refused: None,
        options: worker.options,
        started: Instant::now(),
        drained: false,
    };
    let open = |driver: &mut Driver| {
        let server = driver.servers[driver.attempts % driver.servers.len()].clone();
        driver.attempts += 1;
        driver.link = Some(Link::open(server, worker.authorization.clone()));
    };

    let mut from_tasks = from_tasks;
    let mut out = Vec::new();
    let mut ending = Ending::No;
    loop {
        let wake = driver
            .session
            .next_deadline()
            .map(|deadline| driver.started + deadline);
        tokio::select! {
            event = next_event(&mut driver.link) => driver.hear(event, &mut out),
            Some(input) = from_tasks.recv() => driver.tell(input, &mut out),
            () = sleep_until(driver.connect_at), if driver.link.is_none() => open(&mut driver),
            () = at(wake) => {}
            () = &mut shutdown, if matches!(ending, Ending::No) => {
                tracing::info!(running = driver.session.running(), "draining");
                driver.session.handle(Input::Drain, &mut out);
                ending = Ending::Draining { until: Instant::now() + driver.options.drain_timeout };
            }
            () = at(ending.next()), if ending.next().is_some() => match ending {
                Ending::Draining { .. } => {
                    driver.tasks.cancel_all();
                    // A task that does not heed it is dropped after the grace, but only at its next await.
                    let patience = driver.options.cancel_grace + driver.options.settle_timeout;
                    ending = Ending::Cancelled { until: Instant::now() + patience };
                }
                // Nothing is owed any more; only taking leave has failed.
                Ending::Last { .. } if driver.session.unsettled() == 0 => return Ok(()),
                Ending::No | Ending::Cancelled { .. } | Ending::Last { .. } => {
                    return Err(RunError::Unsettled { reports: driver.session.unsettled() });
                }
            },
        }
        for _ in 0..BATCH {
            if let Ok(input) = from_tasks.try_recv() {
                driver.tell(input, &mut out);
            } else if let Some(event) = driver.link.as_mut().and_then(Link::try_next) {
                driver.hear(event, &mut out);
            } else {
                break;
            }
        }
        driver.session.flush(driver.started.elapsed(), &mut out);
        driver.act(&mut out);

        worker.status.set(
            driver.session.is_open(),
            driver.session.running(),
            driver.session.unsettled(),
        );
        if let Some(status) = driver.refused.take() {
            return Err(RunError::Refused(Box::new(status)));
        }
        if driver.drained {
            return Ok(());
        }
        // All tasks have ended: what is left is a matter of the scheduler's next checkpoint.
        if let Ending::Draining { .. } | Ending::Cancelled { .. } = ending
            && driver.session.running() == 0
        {
            ending = Ending::Last {
                until: Instant::now() + driver.options.settle_timeout,
            };
        }
    }
}

/// How far the end of the worker has come.
#[derive(Clone, Copy, Debug)]
enum Ending {
    No,
    /// Tasks may end by themselves.
    Draining {
        until: Instant,
    },
    /// Tasks are told to end.
    Cancelled {
        until: Instant,
    },
    /// Tasks have ended.
    Last {
        until: Instant,
    },
}

impl Ending {
    fn next(self) -> Option<Instant> {
        match self {
            Self::No => None,
            Self::Draining { until } | Self::Cancelled { until } | Self::Last { until } => Some(until),
        }
    }
}

struct Driver {
    session: Session,
    tasks: Tasks,
    link: Option<Link>,
    connect_at: Instant,
    servers: Vec<tonic::transport::Endpoint>,
    attempts: usize,
    /// Connections lost one after the other, none of which was of any use.
    failures: u32,
    /// Since when the present connection is of use.
    welcome_since: Option<Instant>,
    was_welcome: bool,
    refused: Option<Status>,
    options: Options,
    started: Instant,
    drained: bool,
}

impl Driver {
    fn tell(&mut self, input: Input, out: &mut Vec<Output>) {
        if let Input::Ended { lease, .. } = &input {
            self.tasks.running.remove(lease);
        }
        self.session.handle(input, out);
    }

    fn hear(&mut self, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::Connected => self.session.handle(Input::Connected, out),
            Event::Received(kind) => {
                self.session.handle(Input::Received(kind), out);
                if self.session.is_open() && self.welcome_since.is_none() {
                    tracing::info!("the scheduler welcomes this worker");
                    self.welcome_since = Some(Instant::now());
                    self.was_welcome = true;
                }
            }
            Event::Lost(status) => {
                let hopeless = [
                    Code::Unauthenticated,
                    Code::PermissionDenied,
                    Code::InvalidArgument,
                    Code::Unimplemented,
                ];
                if !self.was_welcome && hopeless.contains(&status.code()) {
                    self.refused = Some(status);
                } else {
                    self.lose(status.message());
                }
                self.session.handle(Input::Disconnected, out);
            }
        }
    }

    fn lose(&mut self, why: &str) {
        let wait = self.leave();
        tracing::warn!(why, retry_in = ?wait, "no connection to the scheduler");
    }

    /// Gives the connection up and returns when another is tried.
    fn leave(&mut self) -> Duration {
        if self
            .welcome_since
            .take()
            .is_some_and(|since| since.elapsed() > self.options.max_backoff)
        {
            self.failures = 0;
        }
        let wait = backoff(&self.options, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.link = None;
        self.connect_at = Instant::now() + wait;
        wait
    }

    fn act(&mut self, out: &mut Vec<Output>) {
        for output in std::mem::take(out) {
            match output {
                Output::Send(kind) => {
                    if self.link.as_ref().is_some_and(|link| !link.send(kind)) {
                        self.lose("the server takes no messages");
                        self.session.handle(Input::Disconnected, out);
                    }
                }
                Output::Start(lease) => {
                    self.failures = 0;
                    self.tasks.start(lease);
                }
                Output::Stop(key) => self.tasks.cancel(key),
                Output::Define(definition) => self.tasks.definition = definition,
                Output::Reconnect(why) => {
                    let wait = self.leave();
                    tracing::info!(why, retry_in = ?wait, "connecting anew");
                }
                Output::Warn(what) => tracing::warn!("{what}"),
                Output::Drained => self.drained = true,
            }
        }
    }
}

/// The tasks that run.
struct Tasks {
    service: TaskService,
    options: Options,
    definition: Bytes,
    inputs: mpsc::Sender<Input>,
    running: HashMap<LeaseKey, Running>,
}

struct Running {
    cancel: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Tasks {
    fn start(&mut self, lease: Lease) {
        let cancel = CancellationToken::new();
        let params = lease.params.clone();
        let context = Context::new(
            lease,
            self.definition.clone(),
            cancel.clone(),
            self.inputs.clone(),
        );
        let key = context.lease();
        let inputs = self.inputs.clone();
        let grace = self.options.cancel_grace;
        let work = handler::run(
            self.service.clone(),
            Attempt { params, context },
            self.options.max_output_bytes,
        );
        let cancelled = cancel.clone();
        let task = tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = async {
                    cancelled.cancelled().await;
                    sleep(grace).await;
                } => Outcome::Failed("the worker was told to stop and dropped the task".to_owned()),
            };
            // An error says that the worker has ended.
            let _ = inputs.send(Input::Ended { lease: key, outcome }).await;
        });
        self.running.insert(
            key,
            Running {
                cancel,
                _task: AbortOnDropHandle::new(task),
            },
        );
    }

    fn cancel(&self, key: LeaseKey) {
        if let Some(running) = self.running.get(&key) {
            running.cancel.cancel();
        }
    }

    fn cancel_all(&self) {
        self.running.values().for_each(|running| running.cancel.cancel());
    }
}

/// Doubles with every failure, and takes between half of it and all of it.
fn backoff(options: &Options, failures: u32) -> Duration {
    let full = options
        .min_backoff
        .saturating_mul(1 << failures.min(20))
        .min(options.max_backoff);
    let random = RandomState::new().hash_one(failures) % 1024;
    full / 2 + full / 2 * u32::try_from(random).unwrap_or(0) / 1024
}

async fn next_event(link: &mut Option<Link>) -> Event {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

fn at(instant: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match instant {
        Some(instant) => Box::pin(sleep_until(instant)),
        None => Box::pin(std::future::pending()),
    }
}
