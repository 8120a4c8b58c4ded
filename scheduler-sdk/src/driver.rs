//! Moves bytes and time: feeds the session machine and does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::link::{self, Asked, Event, Link};
use crate::session::{Fleet, Input, Located, Output, Site};
use crate::tasks::{Said, Tasks};
use crate::worker::{Options, RunError, Worker, endpoint};

/// What tasks say before the driver looks: a word or two of each.
const SAID: usize = 1024;
/// Inputs that are handled before their outputs are done.
const BATCH: usize = 256;

pub(crate) async fn run(worker: Worker) -> Result<(), RunError> {
    let (said, mut from_tasks) = mpsc::channel(SAID);
    let mut shutdown = worker.shutdown;
    let mut driver = Driver {
        application: worker.session.application.clone(),
        pipeline: worker.session.pipeline.clone(),
        fleet: Fleet::new(worker.session),
        tasks: Tasks::new(worker.service, worker.options.clone(), said),
        links: BTreeMap::new(),
        locating: None,
        asks_anew: false,
        locate_at: Instant::now(),
        located_at: Instant::now(),
        located: 0,
        servers: worker.servers,
        authorization: worker.authorization,
        attempts: 0,
        unanswered: 0,
        refusals: 0,
        was_welcome: false,
        refused: None,
        options: worker.options,
        started: Instant::now(),
        drained: false,
        spare: Vec::new(),
    };

    let mut out = Vec::new();
    let mut ending = Ending::No;
    loop {
        driver.follow();
        let wake = driver.next_wake();
        let connect_at = driver.next_connect();
        let locate_at = driver.next_locate();
        tokio::select! {
            (site, event) = next_event(&mut driver.links) => driver.hear(&site, event, &mut out),
            located = answered(&mut driver.locating) => driver.locate_ended(located, &mut out),
            Some(said) = from_tasks.recv() => driver.tell(said, &mut out),
            () = at(connect_at), if connect_at.is_some() => driver.connect(),
            () = at(locate_at), if locate_at.is_some() => driver.locate(),
            () = at(wake) => {}
            () = &mut shutdown, if matches!(ending, Ending::No) => {
                tracing::info!(running = driver.fleet.running(), "draining");
                driver.fleet.drain(&mut out);
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
                Ending::Last { .. } if driver.fleet.unsettled() == 0 => return Ok(()),
                Ending::No | Ending::Cancelled { .. } | Ending::Last { .. } => {
                    return Err(RunError::Unsettled { reports: driver.fleet.unsettled() });
                }
            },
        }
        for _ in 0..BATCH {
            if let Ok(said) = from_tasks.try_recv() {
                driver.tell(said, &mut out);
            } else if let Some((site, event)) = driver.try_next() {
                driver.hear(&site, event, &mut out);
            } else {
                break;
            }
        }
        driver.tasks.help();
        driver.fleet.flush(driver.started.elapsed(), &mut out);
        driver.act(&mut out);

        worker.status.set(
            driver.fleet.is_open(),
            driver.fleet.running(),
            driver.fleet.unsettled(),
        );
        if let Some(status) = driver.refused.take() {
            return Err(RunError::Refused(Box::new(status)));
        }
        if driver.drained {
            return Ok(());
        }
        // All tasks have ended: what is left is a matter of the scheduler's next checkpoint.
        if let Ending::Draining { .. } | Ending::Cancelled { .. } = ending
            && driver.fleet.running() == 0
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
    application: String,
    pipeline: String,
    fleet: Fleet,
    tasks: Tasks,
    links: BTreeMap<Site, Line>,
    /// The question who owns what, on its way.
    locating: Option<AbortOnDropHandle<Located>>,
    /// Whether over a connection that was made for it.
    asks_anew: bool,
    /// Not before this moment it is asked again.
    locate_at: Instant,
    /// When it was last answered.
    located_at: Instant,
    /// Questions one after the other that did not settle it.
    located: u32,
    servers: Vec<Endpoint>,
    authorization: Option<MetadataValue<Ascii>>,
    attempts: usize,
    /// Questions who owns what that nobody has answered since the last one that somebody did.
    unanswered: usize,
    /// How often those did not answer who were asked over a connection made for that.
    refusals: usize,
    was_welcome: bool,
    refused: Option<Status>,
    options: Options,
    started: Instant,
    drained: bool,
    /// An empty buffer for outputs.
    spare: Vec<(Site, Output)>,
}

/// A site's connection, or the pause before the next.
#[derive(Debug)]
struct Line {
    link: Option<Link>,
    /// The connection below it, once it is made.
    channel: Option<Channel>,
    connect_at: Instant,
    /// Connections lost one after the other, none of which was of any use.
    failures: u32,
    /// Since when the present connection is of use.
    welcome_since: Option<Instant>,
}

impl Driver {
    /// Keeps a line for each site, and no other.
    fn follow(&mut self) {
        let (links, fleet) = (&mut self.links, &self.fleet);
        let sites: BTreeSet<&Site> = fleet.sites().collect();
        links.retain(|site, _| sites.contains(site));
        for site in sites {
            links.entry(site.clone()).or_insert_with(|| Line {
                link: None,
                channel: None,
                connect_at: Instant::now(),
                failures: 0,
                welcome_since: None,
            });
        }
    }

    fn next_connect(&self) -> Option<Instant> {
        let closed = self.links.values().filter(|line| line.link.is_none());
        closed.map(|line| line.connect_at).min()
    }

    fn connect(&mut self) {
        let now = Instant::now();
        let due = self.links.iter_mut();
        for (site, line) in due.filter(|(_, line)| line.link.is_none() && line.connect_at <= now) {
            let server = match site {
                Site::Home => {
                    self.attempts += 1;
                    Some(self.servers[(self.attempts - 1) % self.servers.len()].clone())
                }
                Site::Node(address) => endpoint(address).ok(),
            };
            if let Some(server) = server {
                line.link = Some(Link::open(server, self.authorization.clone()));
            } else {
                tracing::error!(?site, "an owner's address is no URL like http://127.0.0.1:50050");
                line.connect_at = now + self.options.max_backoff;
            }
        }
    }

    fn next_locate(&self) -> Option<Instant> {
        if self.locating.is_some() {
            None
        } else if self.fleet.wants_owners() {
            Some(self.locate_at)
        } else {
            let after = self.fleet.look_again_after()?;
            Some(self.located_at + self.options.look_again * after)
        }
    }

    /// Asks who owns what: a node with which there is a session, else a configured server or one of the owners that are known.
    fn locate(&mut self) {
        let over = self.fleet.ask_over(self.unanswered);
        let open = over.and_then(|site| self.links.get(site)?.channel.clone());
        self.asks_anew = open.is_none();
        let asked = open.map_or_else(|| Asked::Server(Box::new(self.any_server())), Asked::Open);
        self.fleet.asked();
        self.locating = Some(AbortOnDropHandle::new(tokio::spawn(link::locate(
            asked,
            self.authorization.clone(),
            self.application.clone(),
            self.pipeline.clone(),
        ))));
    }

    /// Another one after each that has not answered.
    fn any_server(&self) -> Endpoint {
        let nodes = self.fleet.sites().filter_map(|site| match site {
            Site::Home => None,
            Site::Node(address) => endpoint(address).ok(),
        });
        let servers: Vec<_> = self.servers.iter().cloned().chain(nodes).collect();
        servers[self.refusals % servers.len()].clone()
    }

    fn locate_ended(&mut self, located: Located, out: &mut Vec<(Site, Output)>) {
        self.locating = None;
        if located == Located::Failed {
            // Another may know.
            self.unanswered += 1;
            self.refusals += usize::from(self.asks_anew);
        } else {
            self.unanswered = 0;
        }
        self.fleet.located(located, out);
        self.located = if self.fleet.wants_owners() {
            self.located.saturating_add(1)
        } else {
            0
        };
        self.locate_at = Instant::now() + backoff(&self.options, self.located);
        self.located_at = Instant::now();
    }

    fn try_next(&mut self) -> Option<(Site, Event)> {
        self.links.iter_mut().find_map(|(site, line)| {
            let event = line.link.as_mut().and_then(Link::try_next)?;
            Some((site.clone(), event))
        })
    }

    fn tell(&mut self, said: Said, out: &mut Vec<(Site, Output)>) {
        match said {
            Said::Progressed { lease, progress } => {
                self.fleet.ended(Input::Progressed { lease, progress }, out);
            }
            Said::Ended {
                lease,
                outcome,
                was_quick,
            } => {
                self.tasks.ended(lease, was_quick);
                self.fleet.ended(Input::Ended { lease, outcome }, out);
            }
            Said::Began {
                ended,
                waiting,
                were_quick,
            } => {
                self.tasks.began(&ended, waiting, were_quick);
                for (lease, outcome) in ended {
                    self.fleet.ended(Input::Ended { lease, outcome }, out);
                }
            }
        }
    }

    /// When there is something to do though nothing has happened.
    fn next_wake(&self) -> Option<Instant> {
        let flush = self.fleet.next_deadline().map(|deadline| self.started + deadline);
        flush.into_iter().chain(self.tasks.next_help()).min()
    }

    fn hear(&mut self, site: &Site, event: Event, out: &mut Vec<(Site, Output)>) {
        match event {
            Event::Connected(channel) => {
                if let Some(line) = self.links.get_mut(site) {
                    line.channel = Some(channel);
                }
                self.fleet.handle(site, Input::Connected, out);
            }
            Event::Received(kind) => {
                self.fleet.handle(site, Input::Received(kind), out);
                if self.fleet.is_open_at(site)
                    && let Some(line) = self.links.get_mut(site)
                    && line.welcome_since.is_none()
                {
                    tracing::info!(?site, "the scheduler welcomes this worker");
                    line.welcome_since = Some(Instant::now());
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
                    self.lose(site, status.message());
                }
                self.fleet.handle(site, Input::Disconnected, out);
            }
        }
    }

    fn lose(&mut self, site: &Site, why: &str) {
        let wait = self.leave(site);
        tracing::warn!(?site, why, retry_in = ?wait, "no connection to the scheduler");
    }

    /// Gives a connection up and returns when another is tried.
    fn leave(&mut self, site: &Site) -> Duration {
        let Some(line) = self.links.get_mut(site) else {
            return Duration::ZERO;
        };
        if line
            .welcome_since
            .take()
            .is_some_and(|since| since.elapsed() > self.options.max_backoff)
        {
            line.failures = 0;
        }
        let wait = backoff(&self.options, line.failures);
        line.failures = line.failures.saturating_add(1);
        (line.link, line.channel) = (None, None);
        line.connect_at = Instant::now() + wait;
        wait
    }

    fn act(&mut self, out: &mut Vec<(Site, Output)>) {
        let mut outputs = std::mem::replace(out, std::mem::take(&mut self.spare));
        for (site, output) in outputs.drain(..) {
            match output {
                Output::Send(kind) => {
                    let link = self.links.get(&site).and_then(|line| line.link.as_ref());
                    if link.is_some_and(|link| !link.send(kind)) {
                        self.lose(&site, "the server takes no messages");
                        self.fleet.handle(&site, Input::Disconnected, out);
                    }
                }
                Output::Start(leases) => {
                    if let Some(line) = self.links.get_mut(&site) {
                        line.failures = 0;
                    }
                    self.tasks.start(leases);
                }
                Output::Stop(key) => self.tasks.cancel(key),
                Output::Define(definition) => self.tasks.define(definition),
                Output::Reconnect(why) => {
                    let wait = self.leave(&site);
                    tracing::info!(?site, why, retry_in = ?wait, "connecting anew");
                }
                Output::Warn(what) => tracing::warn!(?site, "{what}"),
                Output::Drained => self.drained = true,
            }
        }
        self.spare = outputs;
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

/// What comes next on any of the lines; cancel safe.
async fn next_event(links: &mut BTreeMap<Site, Line>) -> (Site, Event) {
    let open = links.iter_mut().filter_map(|(site, line)| {
        let link = line.link.as_mut()?;
        Some(Box::pin(async move { (site.clone(), link.next().await) }))
    });
    let open: Vec<_> = open.collect();
    if open.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(open).await.0
}

async fn answered(locating: &mut Option<AbortOnDropHandle<Located>>) -> Located {
    match locating {
        Some(locating) => locating.await.unwrap_or(Located::Failed),
        None => std::future::pending().await,
    }
}

fn at(instant: Option<Instant>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match instant {
        Some(instant) => Box::pin(sleep_until(instant)),
        None => Box::pin(std::future::pending()),
    }
}
