//! The worker's side of a session, as a machine: no clock, no socket, no task.
//!
//! The driver feeds it what happens ([`Input`]) and does what it says ([`Output`]). After a batch of inputs, and when
//! [`Session::next_deadline`] has come, it calls [`Session::flush`], which sends what has gathered.
//!
//! - Credits promise room: running tasks and credits together never exceed the concurrency, and none are given while too
//!   many reports wait to be settled.
//! - Each report is kept, in order, until the server says that a checkpoint covers it, and is presented again at the
//!   beginning of the next connection. So are the leases that are still held.
//! - A lease that is held or was reported already is not started again.
//!
//! A worker of a cluster has such a session with every node that owns a part of its pipeline; [`Fleet`] is all of them together.

mod dealer;
mod fleet;
mod held;
mod unsettled;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_proto::worker::{Hello, Lease, LeaseRef, Progress, Reports, Unit};

pub use self::fleet::{Fleet, Located, Site};
use self::held::{Held, State};
use self::unsettled::{Reports as Kept, Unsettled};
pub use self::words::{Input, LeaseKey, Output, SessionConfig};

/// Bytes of reports in one message, at most, below the 4 MiB that gRPC servers take unless told otherwise.
const MAX_REPORTS_BYTES: usize = 2 * 1024 * 1024;
/// Progress of all tasks is sent this often, at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The machine. See the [module](self).
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    stage: Stage,
    held: Held,
    unsettled: Unsettled,
    progress: BTreeMap<LeaseKey, Bytes>,
    next_progress: Duration,
    /// Credits given on this stream and not used yet.
    credits: u32,
    drain: Drain,
    /// On this stream.
    drain_sent: bool,
    /// Credits that the drain made void, and of which the server has not said yet that it has not used them: leases for them may be on their way.
    void_credits: u32,
    leaving: Option<&'static str>,
    /// Sessions that the worker has opened, this one and others.
    opened: u64,
    /// What makes it one of several.
    shared: Option<Shared>,
}

/// What a session has to know of the worker's others.
#[derive(Debug, Default)]
struct Shared {
    /// What they hold, or have reported and not had settled.
    elsewhere: Vec<LeaseKey>,
    /// Partitions whose reports were given to another session since this one began: what is said of them here counts those as well.
    given_up: BTreeSet<u32>,
}

/// What a session has of one partition.
#[derive(Debug, Default)]
struct Portion {
    held: BTreeMap<LeaseKey, State>,
    progress: BTreeMap<LeaseKey, Bytes>,
    reports: Kept,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Closed,
    /// Said hello.
    Greeting,
    Open {
        heartbeat: Duration,
        next_alive: Duration,
    },
}

/// How far the end of the worker has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Drain {
    No,
    Asked,
    Done,
}

impl Session {
    /// A session that is not connected yet.
    pub fn new(config: SessionConfig) -> Self {
        Self {
            config,
            stage: Stage::Closed,
            held: Held::default(),
            unsettled: Unsettled::default(),
            progress: BTreeMap::new(),
            next_progress: Duration::ZERO,
            credits: 0,
            drain: Drain::No,
            drain_sent: false,
            void_credits: 0,
            leaving: None,
            opened: 0,
            shared: None,
        }
    }

    /// One of several sessions of a worker, whose room others deal out.
    fn shared(config: SessionConfig) -> Self {
        Self {
            shared: Some(Shared::default()),
            ..Self::new(config)
        }
    }

    /// Takes one input and appends what must follow, in order, to `out`.
    pub fn handle(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Connected => self.greet(out),
            Input::Disconnected => self.close(),
            Input::Received(response) => self.receive(response, out),
            Input::Ended { lease, outcome } => self.end(lease, outcome, out),
            Input::Progressed { lease, progress } => {
                if self.held.contains(lease) {
                    self.progress.insert(lease, progress);
                }
            }
            Input::Drain => {
                if self.drain == Drain::No {
                    self.drain = Drain::Asked;
                }
            }
        }
    }

    /// Sends what has gathered: reports, credits, progress, signs of life. `now` is the time since any fixed moment.
    pub fn flush(&mut self, now: Duration, out: &mut Vec<Output>) {
        if let Stage::Open {
            heartbeat,
            next_alive,
        } = self.stage
        {
            self.send_reports(out);
            self.send_progress(now, out);
            if self.is_draining() && !self.drain_sent {
                self.drain_sent = true;
                self.void_credits = std::mem::take(&mut self.credits);
                out.push(Output::Send(Request::Drain(Unit {})));
            }
            self.send_credits(out);
            if now >= next_alive {
                out.push(Output::Send(Request::Alive(Unit {})));
                // Before the server begins to wonder.
                self.stage = Stage::Open {
                    heartbeat,
                    next_alive: now + heartbeat * 2 / 3,
                };
            }
            // A node that goes down settles what it was told before it ends, and no other can for as long as it lives.
            if let Some(why) = self
                .leaving
                .filter(|_| self.held.is_empty() && self.unsettled.is_empty())
            {
                self.close();
                out.push(Output::Reconnect(why));
            }
        }
        if self.drain == Drain::Asked
            && self.held.is_empty()
            && self.unsettled.is_empty()
            && self.void_credits == 0
        {
            self.drain = Drain::Done;
            out.push(Output::Drained);
        }
    }

    /// When to call [`Session::flush`] though nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let Stage::Open { next_alive, .. } = self.stage else {
            return None;
        };
        let progress = (!self.progress.is_empty()).then_some(self.next_progress);
        Some(progress.map_or(next_alive, |progress| progress.min(next_alive)))
    }

    /// Whether the server has welcomed the worker on the current stream.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// Tasks that have been started and have not ended.
    pub fn running(&self) -> usize {
        self.held.len()
    }

    /// Reports that the server has not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    fn greet(&mut self, out: &mut Vec<Output>) {
        self.close();
        self.opened += 1;
        self.stage = Stage::Greeting;
        self.unsettled.begin_session();

        let mut hello = Hello {
            application: self.config.application.clone(),
            pipeline: self.config.pipeline.clone(),
            worker_id: Bytes::copy_from_slice(&self.config.worker_id),
            name: self.config.name.clone(),
            held: self.held.keys().into_iter().map(LeaseRef::from).collect(),
            reported: Vec::new(),
            shares: self.shared.is_some(),
            number: self.opened,
        };
        let mut bytes = 0;
        self.unsettled.send(|report, weight| {
            bytes += weight;
            let fits = bytes <= MAX_REPORTS_BYTES;
            if fits {
                hello.reported.push(report);
            }
            fits
        });
        // The rest follows in messages of its own; until then it counts as held, lest its tasks be given to another.
        hello.held.extend(self.unsettled.unsent().map(LeaseRef::from));
        if let Some(shared) = &self.shared {
            // The node may be the owner of more than is known here: what others have is not to be given to others still.
            hello
                .held
                .extend(shared.elsewhere.iter().map(|&key| LeaseRef::from(key)));
        }
        out.push(Output::Send(Request::Hello(hello)));
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    fn close(&mut self) {
        self.stage = Stage::Closed;
        self.credits = 0;
        self.drain_sent = false;
        self.void_credits = 0;
        self.leaving = None;
        if let Some(shared) = &mut self.shared {
            shared.given_up.clear();
        }
    }

    fn receive(&mut self, response: Response, out: &mut Vec<Output>) {
        match (response, self.stage) {
            (_, Stage::Closed) => {}
            (Response::Welcome(welcome), Stage::Greeting) => {
                let heartbeat = Duration::from_millis(welcome.heartbeat_ms.max(10).into());
                self.stage = Stage::Open {
                    heartbeat,
                    next_alive: Duration::ZERO,
                };
                out.push(Output::Define(welcome.definition));
            }
            (_, Stage::Greeting) => out.push(Output::Warn("the server spoke before its welcome")),
            (Response::Welcome(_), Stage::Open { .. }) => {
                out.push(Output::Warn("the server said welcome twice"));
            }
            (Response::Leases(leases), _) => self.take(leases.leases, out),
            (Response::Settled(settled), _) => {
                let too_late = |shared: &Shared| shared.given_up.contains(&settled.partition);
                if !self.shared.as_ref().is_some_and(too_late)
                    && !self
                        .unsettled
                        .settle(settled.partition, settled.epoch, settled.count)
                {
                    out.push(Output::Warn("the server settled more reports than it was sent"));
                }
            }
            (Response::Stop(stop), _) => {
                for key in stop.refs.into_iter().map(LeaseKey::from) {
                    self.stop(key, out);
                }
            }
            (Response::Definition(definition), _) => out.push(Output::Define(definition)),
            // Its partitions leave a node that goes down one by one; the stream is left once, after all of them.
            // One of several is told where it has moved, and goes on with the rest.
            (Response::Moved(_), _) if self.leaving.is_some() || self.shared.is_some() => {}
            // What is unsettled is presented to the new owner by the next hello.
            (Response::Moved(_), _) => {
                self.close();
                out.push(Output::Reconnect("a partition has moved to another node"));
            }
            (Response::GoAway(_), _) => self.leaving = Some("the node goes down"),
            (Response::Recalled(count), _) => {
                self.credits = self.credits.saturating_sub(count);
                self.void_credits = self.void_credits.saturating_sub(count);
            }
            // Whoever deals the room out hears it.
            (Response::Waiting(_), _) => {}
        }
    }

    /// Has an attempt stopped, if it runs; whoever said so need not be the node that this session is with.
    fn stop(&mut self, key: LeaseKey, out: &mut Vec<Output>) {
        if self.held.stop(key) {
            out.push(Output::Stop(key));
        }
    }

    fn take(&mut self, leases: Vec<Lease>, out: &mut Vec<Output>) {
        let mut begun = Vec::with_capacity(leases.len());
        for lease in leases {
            let Some(key) = lease.r#ref.map(LeaseKey::from) else {
                out.push(Output::Warn("the server sent a lease without its name"));
                continue;
            };
            let had_room = self.credits > 0;
            self.credits = self.credits.saturating_sub(1);
            self.void_credits = self.void_credits.saturating_sub(1);
            if self.held.contains(key) || self.unsettled.contains(key) {
                continue;
            }
            if self.is_draining() || !had_room {
                self.unsettled.push(key, Outcome::Returned(Unit {}));
                continue;
            }
            // The server has given the task up for lost and leases it again: the older attempt is in vain.
            for older in self.running_of(key) {
                if !begun.is_empty() {
                    out.push(Output::Start(std::mem::take(&mut begun)));
                }
                self.stop(older, out);
            }
            self.held.insert(key, State::Running);
            begun.push(lease);
        }
        if !begun.is_empty() {
            out.push(Output::Start(begun));
        }
    }

    /// Attempts of a task that are running.
    fn running_of(&self, key: LeaseKey) -> Vec<LeaseKey> {
        // Nothing is allocated for none.
        self.held.running(key.partition, key.offset).collect()
    }

    /// Stops other attempts of a task.
    fn supersede(&mut self, key: LeaseKey, out: &mut Vec<Output>) {
        for older in self.running_of(key) {
            self.stop(older, out);
        }
    }

    /// Gives credit, as whoever deals the room out says.
    fn grant(&mut self, credit: u32, out: &mut Vec<Output>) {
        self.credits += credit;
        out.push(Output::Send(Request::Credit(credit)));
    }

    /// Whether it has room to be given.
    fn takes_work(&self) -> bool {
        self.is_open() && !self.is_draining() && self.leaving.is_none()
    }

    /// Whether it has this attempt.
    fn holds(&self, key: LeaseKey) -> bool {
        self.held.contains(key)
    }

    /// Every attempt that it holds, or has reported and not had settled.
    fn keys(&self) -> impl Iterator<Item = LeaseKey> {
        self.held.keys().into_iter().chain(self.unsettled.keys())
    }

    /// Whether it has anything of a partition.
    fn has(&self, partition: u32) -> bool {
        self.keys().any(|key| key.partition == partition)
    }

    fn is_drained(&self) -> bool {
        self.drain == Drain::Done
    }

    /// Lets go of everything of a partition, for another session.
    fn give_up(&mut self, partition: u32) -> Portion {
        let of_it = |key: &LeaseKey| key.partition == partition;
        if let Some(shared) = &mut self.shared
            && self.unsettled.counts(partition)
        {
            shared.given_up.insert(partition);
        }
        Portion {
            held: self.held.take(partition),
            progress: self.progress.extract_if(.., |key, _| of_it(key)).collect(),
            reports: self.unsettled.give_up(partition),
        }
    }

    /// The node is to be the owner of a partition. If reports of it were given away in the middle of this stream, the node has counted them and this
    /// side has not: both begin anew.
    fn regain(&mut self, partition: u32, out: &mut Vec<Output>) {
        let has_lost_count = |shared: &Shared| shared.given_up.contains(&partition);
        if self.stage != Stage::Closed && self.shared.as_ref().is_some_and(has_lost_count) {
            self.close();
            out.push(Output::Reconnect("to count the reports of a partition anew"));
        }
    }

    /// Takes what another session has let go of: the node hears of it at the beginning of a new stream, before it leases any of it.
    fn take_over(&mut self, partition: u32, portion: Portion, out: &mut Vec<Output>) {
        if let Some(shared) = &mut self.shared {
            shared.given_up.remove(&partition);
        }
        let Portion {
            held,
            progress,
            reports,
        } = portion;
        if held.is_empty() && reports.is_empty() {
            return;
        }
        if self.drain == Drain::Done {
            self.drain = Drain::Asked;
        }
        for (key, state) in held {
            self.held.insert(key, state);
        }
        self.progress.extend(progress);
        self.unsettled.take_over(partition, reports);
        if self.stage != Stage::Closed {
            self.close();
            out.push(Output::Reconnect("to present what came from another node"));
        }
    }

    fn end(&mut self, key: LeaseKey, outcome: Outcome, out: &mut Vec<Output>) {
        self.progress.remove(&key);
        match self.held.remove(key) {
            None => out.push(Output::Warn("a task ended that was not running")),
            // Work that was finished all the same is worth more than none.
            Some(State::Stopping) if !matches!(outcome, Outcome::Succeeded(_)) => {
                self.unsettled.push(key, Outcome::Stopped(Unit {}));
            }
            Some(_) => self.unsettled.push(key, outcome),
        }
    }

    fn send_reports(&mut self, out: &mut Vec<Output>) {
        let mut message = Reports::default();
        let mut bytes = 0;
        self.unsettled.send(|report, weight| {
            if bytes + weight > MAX_REPORTS_BYTES && !message.reports.is_empty() {
                out.push(Output::Send(Request::Reports(std::mem::take(&mut message))));
                bytes = 0;
            }
            bytes += weight;
            message.reports.push(report);
            true
        });
        if !message.reports.is_empty() {
            out.push(Output::Send(Request::Reports(message)));
        }
    }

    fn send_progress(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.progress.is_empty() || now < self.next_progress {
            return;
        }
        self.next_progress = now + PROGRESS_INTERVAL;
        for (key, progress) in std::mem::take(&mut self.progress) {
            out.push(Output::Send(Request::Progress(Progress {
                r#ref: Some(key.into()),
                progress,
            })));
        }
    }

    fn send_credits(&mut self, out: &mut Vec<Output>) {
        let full = self.unsettled.len() >= self.config.max_unsettled
            || self.unsettled.bytes() >= self.config.max_unsettled_bytes;
        if self.shared.is_some() || self.is_draining() || self.leaving.is_some() || full {
            return;
        }
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let room = self
            .config
            .concurrency
            .saturating_sub(held)
            .saturating_sub(self.credits);
        if room > 0 {
            self.credits += room;
            out.push(Output::Send(Request::Credit(room)));
        }
    }
}
