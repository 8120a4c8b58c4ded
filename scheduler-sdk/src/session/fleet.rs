use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use scheduler_proto::worker::session_response::Kind as Response;

use super::dealer::{Deal, Dealer};
use super::{Input, LeaseKey, Output, Session, SessionConfig};

/// Connections in a row that came to nothing, after which an address that was never reached counts as out of reach.
const TRIES: u32 = 3;

/// Where a session leads.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Site {
    /// To the configured servers, whichever answers; it passes on what other nodes have.
    Home,
    /// To the node at this address, for what it owns.
    Node(Arc<str>),
}

/// What became of the question who owns what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Located {
    /// The address of each partition's owner; empty for one that has none now.
    Owners(BTreeMap<u32, String>),
    /// The servers do not know such a question.
    Unknown,
    /// Nobody answered.
    Failed,
}

/// All sessions of a worker, as one machine.
///
/// As long as one node owns everything, or nobody says who owns what, there is one session, through the configured address. When there are
/// several owners there is a session with each; what is held and not settled of a partition that moves is presented to its new owner at
/// the beginning of a new stream. The worker's room is one, and is dealt out among the owners.
///
/// A node tells a session what leaves it, from the session's beginning on. So the owners are asked for once more when sessions have opened: an
/// answer to a question that was asked while there was a session with every owner is true, or whoever it is wrong about says so.
///
/// The driver opens a stream for each of [`Fleet::sites`], and asks for the owners while [`Fleet::wants_owners`], and now and then besides
/// ([`Fleet::look_again_after`]).
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Fleet {
    config: SessionConfig,
    sessions: BTreeMap<Site, Session>,
    /// Sessions that were opened, wherever.
    opened: u64,
    /// Connections in a row without a welcome.
    failures: BTreeMap<Site, u32>,
    dealer: Dealer<Site>,
    /// Who owns a partition, as far as is known.
    owners: BTreeMap<u32, Site>,
    /// What nodes said has left them in their present sessions: they are not believed to have it.
    moved: BTreeSet<(Site, u32)>,
    /// Something has happened since the owners were asked for.
    is_stale: bool,
    /// There are no owners to be had, or none that can be reached.
    is_single: bool,
    /// How often all owners were out of reach, so that one session had to do.
    fell_back: u32,
    /// Whether any owner was ever reached at its own address.
    was_reached: bool,
    is_draining: bool,
    drained: BTreeSet<Site>,
    said_drained: bool,
}

impl Fleet {
    /// A worker that is not connected and does not know of any owner. It has no sites before the first answer about owners.
    pub fn new(config: SessionConfig) -> Self {
        Self {
            config,
            sessions: BTreeMap::new(),
            opened: 0,
            failures: BTreeMap::new(),
            dealer: Dealer::new(),
            owners: BTreeMap::new(),
            moved: BTreeSet::new(),
            is_stale: true,
            is_single: false,
            fell_back: 0,
            was_reached: false,
            is_draining: false,
            drained: BTreeSet::new(),
            said_drained: false,
        }
    }

    /// Where a stream is to be, open or opening.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sessions.keys()
    }

    /// Whether the owners have to be asked for, now or after a pause if they were just asked for.
    pub fn wants_owners(&self) -> bool {
        let is_open = |(site, session): (&Site, &Session)| *site == Site::Home || session.is_open();
        !self.is_single && (self.is_stale || !self.sessions.iter().all(is_open))
    }

    /// When it is worth asking for owners though nothing says that the answer has changed, in multiples of the usual time: partitions may have been
    /// added, and owners that were out of reach may be reached now. `None` if the servers do not know of owners.
    pub fn look_again_after(&self) -> Option<u32> {
        (!self.is_single || self.fell_back > 0).then(|| 1 << self.fell_back.min(6))
    }

    /// Whose stream's connection the question who owns what is to go over, when so many questions before it were not answered; `None` for a
    /// connection to a configured server, or to any node that is known: before there is a stream, and when those who were asked did not answer.
    ///
    /// A connection of its own for each question is dear where there are thousands of workers.
    pub fn ask_over(&self, unanswered: usize) -> Option<&Site> {
        let open = self.sessions.iter().filter(|(_, session)| session.is_open());
        let turn = unanswered % (open.clone().count() + 1);
        open.map(|(site, _)| site).nth(turn)
    }

    /// The question who owns what is on its way: what happens from now on may make it necessary to ask again.
    pub fn asked(&mut self) {
        self.is_stale = false;
    }

    /// The answer to the question who owns what.
    pub fn located(&mut self, located: Located, out: &mut Vec<(Site, Output)>) {
        let owners = match located {
            Located::Owners(owners) if !self.is_single => owners,
            Located::Failed => {
                self.is_stale = true;
                if self.sessions.is_empty() {
                    self.add(Site::Home);
                }
                return;
            }
            Located::Owners(owners) if self.fell_back > 0 => {
                // They may have been out of reach for a while only.
                self.is_single = false;
                self.failures.clear();
                owners
            }
            Located::Owners(_) | Located::Unknown => {
                self.is_single = true;
                self.fell_back = 0;
                return self.gather(out);
            }
        };
        let addresses: BTreeSet<&str> = owners
            .values()
            .map(String::as_str)
            .filter(|address| !address.is_empty())
            .collect();
        let is_one = self.sessions.keys().all(|site| *site == Site::Home);
        if is_one && addresses.len() <= 1 {
            // The session is with one owner: what others will own must not wait for it to lose something.
            self.is_stale |= owners.values().any(String::is_empty);
            return self.add(Site::Home);
        }
        if self.out_of_reach() {
            // The configured servers have just answered.
            self.is_single = true;
            self.fell_back = self.fell_back.saturating_add(1);
            return self.gather(out);
        }
        for (partition, address) in owners {
            let site = Site::Node(address.as_str().into());
            if address.is_empty() || self.moved.contains(&(site.clone(), partition)) {
                // Its owner is not known yet: what is held of it stays where it is.
                self.is_stale = true;
                continue;
            }
            self.add(site.clone());
            let mut said = Vec::new();
            if let Some(session) = self.sessions.get_mut(&site) {
                session.regain(partition, &mut said);
            }
            self.pass_on(&site, said, out);
            self.owners.insert(partition, site);
        }
        self.place(out);
        self.retire_strangers();
    }

    /// Takes what happened on a site's stream and appends what must follow.
    pub fn handle(&mut self, site: &Site, input: Input, out: &mut Vec<(Site, Output)>) {
        let was_open = self.sessions.get(site).is_some_and(Session::is_open);
        match &input {
            Input::Connected => self.open(site),
            Input::Disconnected => self.lose(site),
            Input::Received(response) => self.listen(site, response, out),
            Input::Ended { .. } | Input::Progressed { .. } | Input::Drain => {}
        }
        let Some(session) = self.sessions.get_mut(site) else {
            return;
        };
        let mut said = Vec::new();
        session.handle(input, &mut said);
        if session.is_open() && !was_open {
            self.failures.remove(site);
            if *site != Site::Home {
                self.was_reached = true;
                self.fell_back = 0;
                self.is_stale = true;
                self.dealer.join(site.clone());
            }
        }
        self.pass_on(site, said, out);
    }

    /// A task has ended.
    pub fn ended(&mut self, input: Input, out: &mut Vec<(Site, Output)>) {
        let (Input::Ended { lease, .. } | Input::Progressed { lease, .. }) = &input else {
            return;
        };
        let mut sessions = self.sessions.iter_mut();
        if let Some((site, session)) = sessions.find(|(_, session)| session.holds(*lease)) {
            let mut said = Vec::new();
            session.handle(input, &mut said);
            out.extend(said.into_iter().map(|output| (site.clone(), output)));
        }
    }

    /// The worker is to end: it takes no more tasks.
    pub fn drain(&mut self, out: &mut Vec<(Site, Output)>) {
        self.is_draining = true;
        if self.sessions.is_empty() {
            self.said_drained = true;
            return out.push((Site::Home, Output::Drained));
        }
        for site in self.sessions.keys().cloned().collect::<Vec<_>>() {
            self.handle(&site, Input::Drain, out);
        }
    }

    /// Sends what has gathered, and deals out what room there is. `now` is the time since any fixed moment.
    pub fn flush(&mut self, now: Duration, out: &mut Vec<(Site, Output)>) {
        self.deal(out);
        for site in self.sessions.keys().cloned().collect::<Vec<_>>() {
            let mut said = Vec::new();
            if let Some(session) = self.sessions.get_mut(&site) {
                session.flush(now, &mut said);
            }
            self.pass_on(&site, said, out);
        }
    }

    /// When to call [`Fleet::flush`] though nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.sessions.values().filter_map(Session::next_deadline).min()
    }

    /// Whether any node has welcomed the worker on the current streams.
    pub fn is_open(&self) -> bool {
        self.sessions.values().any(Session::is_open)
    }

    /// Whether the node at a site has welcomed the worker on the current stream.
    pub fn is_open_at(&self, site: &Site) -> bool {
        self.sessions.get(site).is_some_and(Session::is_open)
    }

    /// Tasks that have been started and have not ended.
    pub fn running(&self) -> usize {
        self.sessions.values().map(Session::running).sum()
    }

    /// Reports that are not settled.
    pub fn unsettled(&self) -> usize {
        self.sessions.values().map(Session::unsettled).sum()
    }

    fn add(&mut self, site: Site) {
        if self.sessions.contains_key(&site) {
            return;
        }
        let mut session = match site {
            Site::Home => Session::new(self.config.clone()),
            Site::Node(_) => Session::shared(self.config.clone()),
        };
        if self.is_draining {
            // It has said nothing that anything could follow from.
            session.handle(Input::Drain, &mut Vec::new());
        }
        self.sessions.insert(site, session);
    }

    /// One session for everything, through the configured address.
    fn gather(&mut self, out: &mut Vec<(Site, Output)>) {
        self.add(Site::Home);
        self.is_stale = false;
        self.owners.clear();
        for partition in self.partitions() {
            self.give(partition, &Site::Home, out);
        }
        for site in self.sessions.keys().filter(|site| **site != Site::Home) {
            self.dealer.leave(site);
        }
        self.sessions.retain(|site, _| *site == Site::Home);
        self.moved.clear();
    }

    /// Partitions of which anything is held or not settled.
    fn partitions(&self) -> BTreeSet<u32> {
        let keys = self.sessions.values().flat_map(Session::keys);
        keys.map(|key| key.partition).collect()
    }

    /// Brings what is held of each partition to the session with its owner.
    fn place(&mut self, out: &mut Vec<(Site, Output)>) {
        // What nobody owns stays where it is, but not with the session that was for everything: that one ends.
        let any = self.sessions.keys().find(|site| **site != Site::Home).cloned();
        for partition in self.partitions() {
            let was_home = || {
                self.sessions
                    .get(&Site::Home)
                    .is_some_and(|home| home.has(partition))
            };
            let owner = self
                .owners
                .get(&partition)
                .or_else(|| any.as_ref().filter(|_| was_home()));
            if let Some(owner) = owner.cloned() {
                self.give(partition, &owner, out);
            }
        }
    }

    /// Gives everything of a partition that other sessions have to the one with `owner`.
    fn give(&mut self, partition: u32, owner: &Site, out: &mut Vec<(Site, Output)>) {
        let others = self.sessions.iter_mut().filter(|(site, _)| *site != owner);
        let portions: Vec<_> = others.map(|(_, session)| session.give_up(partition)).collect();
        let mut said = Vec::new();
        if let Some(session) = self.sessions.get_mut(owner) {
            for portion in portions {
                session.take_over(partition, portion, &mut said);
            }
            if !session.is_drained() {
                self.drained.remove(owner);
            }
        }
        self.pass_on(owner, said, out);
    }

    /// Ends sessions with nodes that own nothing, unless something is still theirs alone.
    fn retire_strangers(&mut self) {
        let owners: BTreeSet<&Site> = self.owners.values().collect();
        let (sessions, dealer, moved) = (&mut self.sessions, &mut self.dealer, &mut self.moved);
        sessions.retain(|site, session| {
            let stays = owners.contains(site) || session.running() > 0 || session.unsettled() > 0;
            if !stays {
                dealer.leave(site);
                // What the node said holds for that session alone.
                moved.retain(|(from, _)| from != site);
            }
            stays
        });
        // Something is held of a partition without an owner: sooner or later it has one.
        self.is_stale |= self.sessions.keys().any(|site| !owners.contains(site));
    }

    fn out_of_reach(&self) -> bool {
        let is_lost = |site: &Site| {
            *site != Site::Home && self.failures.get(site).is_some_and(|failures| *failures >= TRIES)
        };
        !self.was_reached && !self.sessions.is_empty() && self.sessions.keys().all(is_lost)
    }

    /// Before a hello: how many there were before it, and what the worker's other sessions have.
    fn open(&mut self, site: &Site) {
        let others = self.sessions.iter().filter(|(other, _)| *other != site);
        let keys: Vec<LeaseKey> = others.flat_map(|(_, session)| session.keys()).collect();
        self.moved.retain(|(from, _)| from != site);
        if let Some(session) = self.sessions.get_mut(site) {
            session.opened = self.opened;
            self.opened += 1;
            if let Some(shared) = &mut session.shared {
                shared.elsewhere = keys;
            }
        }
    }

    fn lose(&mut self, site: &Site) {
        self.dealer.leave(site);
        self.is_stale = true;
        let failures = self.failures.entry(site.clone()).or_default();
        *failures = failures.saturating_add(1);
    }

    /// What of a node's word is for more than its own session.
    fn listen(&mut self, site: &Site, response: &Response, out: &mut Vec<(Site, Output)>) {
        match response {
            Response::Leases(leases) => {
                let count = u32::try_from(leases.leases.len()).unwrap_or(u32::MAX);
                self.dealer.used(site, count);
                for key in leases.leases.iter().filter_map(|lease| lease.r#ref) {
                    self.supersede(site, key.into(), out);
                }
            }
            Response::Waiting(waits) => self.dealer.waiting(site, *waits),
            Response::Recalled(count) => self.dealer.recalled(site, *count),
            Response::Moved(partition) => {
                self.is_stale = true;
                self.moved.insert((site.clone(), *partition));
            }
            Response::GoAway(_) => {
                self.is_stale = true;
                self.dealer.retire(site);
            }
            // A new owner says of what another session still holds that it is over.
            Response::Stop(stop) => {
                for (other, session) in self.sessions.iter_mut().filter(|(other, _)| *other != site) {
                    let mut said = Vec::new();
                    for key in &stop.refs {
                        // However far that session's stream is, which may just be opening.
                        session.stop((*key).into(), &mut said);
                    }
                    out.extend(said.into_iter().map(|output| (other.clone(), output)));
                }
            }
            Response::Welcome(_) | Response::Settled(_) | Response::Definition(_) => {}
        }
    }

    /// A task that is leased here may be running for another session still: that attempt is in vain.
    fn supersede(&mut self, site: &Site, key: LeaseKey, out: &mut Vec<(Site, Output)>) {
        for (other, session) in self.sessions.iter_mut().filter(|(other, _)| *other != site) {
            if !session.holds(key) {
                let mut said = Vec::new();
                session.supersede(key, &mut said);
                out.extend(said.into_iter().map(|output| (other.clone(), output)));
            }
        }
    }

    fn deal(&mut self, out: &mut Vec<(Site, Output)>) {
        let is_full = self.unsettled() >= self.config.max_unsettled
            || self.unsettled_bytes() >= self.config.max_unsettled_bytes;
        let shares = |session: &Session| session.shared.is_some() && session.takes_work();
        if self.is_draining || !self.sessions.values().any(shares) {
            return;
        }
        let used = u32::try_from(self.running())
            .unwrap_or(u32::MAX)
            .saturating_add(self.dealer.credits());
        let room = if is_full {
            0
        } else {
            self.config.concurrency.saturating_sub(used)
        };
        let mut deals = Vec::new();
        self.dealer.deal(room, &mut deals);
        for deal in deals {
            let mut said = Vec::new();
            let (Deal::Credit(site, _) | Deal::Recall(site)) = &deal;
            if let Some(session) = self.sessions.get_mut(site) {
                match deal {
                    Deal::Credit(_, credit) => session.grant(credit, &mut said),
                    Deal::Recall(_) => said.push(Output::Send(super::Request::Recall(super::Unit {}))),
                }
                out.extend(said.into_iter().map(|output| (site.clone(), output)));
            }
        }
    }

    fn unsettled_bytes(&self) -> usize {
        self.sessions
            .values()
            .map(|session| session.unsettled.bytes())
            .sum()
    }

    /// Appends what a session says; of its end, only when it is the last.
    fn pass_on(&mut self, site: &Site, said: Vec<Output>, out: &mut Vec<(Site, Output)>) {
        for output in said {
            match output {
                Output::Drained => {
                    self.drained.insert(site.clone());
                }
                Output::Reconnect(why) => {
                    self.dealer.leave(site);
                    self.is_stale = true;
                    out.push((site.clone(), Output::Reconnect(why)));
                }
                output => out.push((site.clone(), output)),
            }
        }
        if self.is_draining
            && !self.said_drained
            && self.sessions.keys().all(|site| self.drained.contains(site))
        {
            self.said_drained = true;
            out.push((site.clone(), Output::Drained));
        }
    }
}
