//! A worker's connections: to whoever answers, or to each owner, and the question who that is. The SDK's `driver.rs`.

use std::collections::{BTreeMap, BTreeSet};

use scheduler_core::id::Partition;
use scheduler_sdk::session::{Input, Located, Output, Site};

use super::Heard;
use crate::coverage::Point;
use crate::net::ConnId;
use crate::world::{Happening, World};

/// How long a worker waits for a node that does not answer at all.
const CONNECT_TIMEOUT: u64 = 5_000;
const KEEP_ALIVE: u64 = 20_000;
/// After how long it is worth asking for owners though nothing has happened.
const LOOK_AGAIN: u64 = 30_000;
/// How long a node believes what it has read of the owners, unless somebody finds it wrong.
const BELIEVED: u64 = 5_000;

/// A site's connection, or the pause before the next.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) conn: Option<ConnId>,
    connect_at: Option<u64>,
    pub(super) failures: u32,
    welcome_since: Option<u64>,
}

pub(super) type Lines = BTreeMap<Site, Line>;

impl Line {
    /// When it is opened.
    pub(super) fn due(&self) -> Option<u64> {
        self.connect_at.filter(|_| self.conn.is_none())
    }
}

/// Who owns what, as a node has read it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    read_at: Option<u64>,
    owners: BTreeMap<u32, String>,
}

/// The question who owns what: whether it is on its way, or when it is asked.
#[derive(Debug, Default)]
pub(crate) struct Question {
    is_asked: bool,
    not_before: u64,
    answered_at: u64,
    /// Questions one after the other that did not settle it.
    unsettled: u32,
    /// Questions that nobody has answered since the last one that somebody did.
    unanswered: usize,
    /// Whether it went to any node, and how often such a one did not answer: the next node may.
    is_anew: bool,
    refusals: usize,
}

impl super::Worker {
    /// When it asks who owns what, if it wants to know.
    pub(super) fn asks_at(&self) -> Option<u64> {
        if self.question.is_asked {
            None
        } else if self.fleet.wants_owners() {
            Some(self.question.not_before)
        } else {
            let after = self.fleet.look_again_after()?;
            Some(self.question.answered_at + LOOK_AGAIN * u64::from(after))
        }
    }
}

impl World {
    /// Keeps a line for each site, and no other.
    pub(super) fn follow(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if !worker.is_up {
            return;
        }
        let sites: BTreeSet<Site> = worker.fleet.sites().cloned().collect();
        let left: Vec<ConnId> = worker
            .lines
            .extract_if(.., |site, _| !sites.contains(site))
            .filter_map(|(_, line)| line.conn)
            .collect();
        if sites.len() > 1 {
            self.coverage.hit(Point::ManySessions);
        }
        for site in sites {
            worker.lines.entry(site).or_insert_with(|| Line {
                connect_at: Some(self.now),
                ..Line::default()
            });
        }
        for conn in left {
            self.leave_conn(conn);
        }
    }

    pub(super) fn open_conns_due(&mut self, index: usize, out: &mut Vec<(Site, Output)>) {
        let lines = &self.workers[index].lines;
        let due = lines
            .iter()
            .filter(|(_, line)| line.due().is_some_and(|at| at <= self.now));
        for site in due.map(|(site, _)| site.clone()).collect::<Vec<_>>() {
            self.open_conn(index, &site, out);
        }
    }

    fn open_conn(&mut self, index: usize, site: &Site, out: &mut Vec<(Site, Output)>) {
        let node = match site {
            Site::Home => self.choose_node(index),
            // An address is a node's number.
            Site::Node(address) => address.parse().ok(),
        };
        let Some(node) = node.filter(|node| self.nodes[*node].is_up) else {
            self.workers[index].fleet.handle(site, Input::Disconnected, out);
            return self.retry_conn(index, site);
        };
        let conn = self.connect(index, node);
        let life = self.workers[index].life;
        if self.nodes[node].is_paused {
            let at = self.now + CONNECT_TIMEOUT;
            let frame = crate::net::Frame::WorkerHears;
            self.queue.push(at, Happening::Frame(conn, frame));
        }
        self.trace.note(&[32, index as u64, node as u64], || {
            format!("worker {index} life {life} connects to node {node} as {site:?}")
        });
        let worker = &mut self.workers[index];
        if let Some(line) = worker.lines.get_mut(site) {
            line.connect_at = None;
            line.conn = Some(conn);
        }
        worker.fleet.handle(site, Input::Connected, out);
    }

    /// Where a worker connects that knows no owner: its servers in turn; with several nodes something in front sends it where work is.
    fn choose_node(&mut self, index: usize) -> Option<usize> {
        let worker = &mut self.workers[index];
        worker.attempts += 1;
        let owning: Vec<usize> = self
            .placement
            .owning()
            .into_iter()
            .filter(|(node, life)| self.nodes[*node].is_up && self.nodes[*node].life == *life)
            .map(|(node, _)| node)
            .collect();
        if owning.is_empty() {
            return Some(worker.attempts % self.nodes.len());
        }
        if self.rng.chance(300) {
            return Some(*self.rng.pick(&owning));
        }
        let conns = &self.conns;
        let workers = &self.workers;
        let busy = |node: usize| {
            let open = workers.iter().flat_map(super::Worker::conns);
            open.filter(|conn| conns[*conn].node == node).count()
        };
        owning.into_iter().min_by_key(|node| busy(*node))
    }

    /// Something came over a connection.
    pub(super) fn hear_over(
        &mut self,
        index: usize,
        conn: ConnId,
        input: Input,
        out: &mut Vec<(Site, Output)>,
    ) {
        let lines = &self.workers[index].lines;
        let found = lines.iter().find(|(_, line)| line.conn == Some(conn));
        let Some(site) = found.map(|(site, _)| site.clone()) else {
            return;
        };
        if input == Input::Disconnected {
            self.lose_conn(index, &site);
        }
        let worker = &mut self.workers[index];
        worker.fleet.handle(&site, input, out);
        if worker.fleet.is_open_at(&site)
            && let Some(line) = worker.lines.get_mut(&site)
            && line.welcome_since.is_none()
        {
            line.welcome_since = Some(self.now);
        }
    }

    /// The connection is gone: another is tried after a pause that grows.
    pub(super) fn lose_conn(&mut self, index: usize, site: &Site) {
        let Some(line) = self.workers[index].lines.get_mut(site) else {
            return;
        };
        let longest = self.plan.backoff.1;
        if line
            .welcome_since
            .take()
            .is_some_and(|since| self.now - since > longest)
        {
            line.failures = 0;
        }
        if let Some(conn) = line.conn.take() {
            self.leave_conn(conn);
        }
        self.retry_conn(index, site);
    }

    fn retry_conn(&mut self, index: usize, site: &Site) {
        let Some(line) = self.workers[index].lines.get_mut(site) else {
            return;
        };
        let failures = line.failures;
        line.failures += 1;
        let pause = self.backoff(failures);
        if let Some(line) = self.workers[index].lines.get_mut(site) {
            line.connect_at = Some(self.now + pause);
        }
    }

    /// Doubles with every failure, and takes between half of it and all of it.
    fn backoff(&mut self, failures: u32) -> u64 {
        let (first, longest) = self.plan.backoff;
        let full = (first << failures.min(20)).min(longest);
        self.rng.range(full / 2, full)
    }

    /// Asks a node who owns what, if the worker wants to know.
    pub(super) fn ask_for_owners(&mut self, index: usize) {
        if self.workers[index].asks_at().is_none_or(|at| at > self.now) {
            return;
        }
        let worker = &mut self.workers[index];
        worker.fleet.asked();
        worker.question.is_asked = true;
        let over = worker.fleet.ask_over(worker.question.unanswered);
        let open = over.and_then(|site| worker.lines.get(site)?.conn);
        worker.question.is_anew = open.is_none();
        let node = match open {
            Some(conn) => self.conns[conn].node,
            None => (index + worker.question.refusals) % self.nodes.len(),
        };
        let life = worker.life;
        let at = self.now + self.net_delay();
        self.queue.push(
            at,
            Happening::Ask {
                worker: index,
                life,
                node,
            },
        );
    }

    /// The question reaches a node.
    pub(crate) fn asked(&mut self, worker: usize, life: u32, node: usize) {
        let there = &self.nodes[node];
        let is_silent = there.is_up && there.is_paused;
        let is_away = self.now < self.store_away_until;
        let is_lost = !self.is_healed && self.rng.chance(20);
        let located = if there.is_up && !is_silent && !is_away && !is_lost {
            Located::Owners(self.owners_by(node))
        } else {
            self.coverage.hit(Point::OwnersUnknown);
            Located::Failed
        };
        let wait = if is_silent {
            CONNECT_TIMEOUT
        } else {
            self.net_delay()
        };
        let happening = Happening::Located {
            worker,
            life,
            located,
        };
        self.queue.push(self.now + wait, happening);
    }

    /// Who owns what, by what a node has read, which may be a little old.
    fn owners_by(&mut self, node: usize) -> BTreeMap<u32, String> {
        let routes = &self.nodes[node].routes;
        if routes.owners.len() == self.partitions as usize
            && routes.read_at.is_some_and(|read| self.now < read + BELIEVED)
        {
            return routes.owners.clone();
        }
        let mut owners = BTreeMap::new();
        for partition in 0..self.partitions {
            let owner = self.store.owner(Partition(partition));
            let found = self
                .nodes
                .iter()
                .position(|node| node.is_up && Some(node.id) == owner);
            owners.insert(partition, found.map(|node| node.to_string()).unwrap_or_default());
        }
        // What is incomplete is read again.
        let is_whole = owners.values().all(|address| !address.is_empty());
        self.nodes[node].routes = Routes {
            read_at: is_whole.then_some(self.now),
            owners: owners.clone(),
        };
        owners
    }

    /// The answer reaches the worker.
    pub(crate) fn answered(&mut self, index: usize, life: u32, located: Located) {
        let worker = &mut self.workers[index];
        if worker.is_up && worker.life == life {
            worker.inputs.push_back(Heard::Located(located));
            if !worker.is_paused {
                self.wake_worker(index, self.now);
            }
        }
    }

    pub(super) fn located(&mut self, index: usize, located: Located, out: &mut Vec<(Site, Output)>) {
        self.trace.note(&[35, index as u64], || {
            format!("worker {index} hears of owners: {located:?}")
        });
        let worker = &mut self.workers[index];
        worker.question.is_asked = false;
        worker.question.answered_at = self.now;
        if located == Located::Failed {
            worker.question.unanswered += 1;
            worker.question.refusals += usize::from(worker.question.is_anew);
        } else {
            worker.question.unanswered = 0;
        }
        worker.fleet.located(located, out);
        worker.question.unsettled = if worker.fleet.wants_owners() {
            worker.question.unsettled.saturating_add(1)
        } else {
            0
        };
        if self.plan.fleet > 0 {
            let unsettled = self.workers[index].question.unsettled;
            let pause = self.backoff(unsettled);
            self.workers[index].question.not_before = self.now + pause;
        }
    }

    /// A paused node answers nobody: those who wait for it give up by and by.
    pub(crate) fn node_is_silent(&mut self, node: usize) {
        let resumes = self.nodes[node].resumes_at;
        let conns: Vec<ConnId> = self.open_conns();
        for conn in conns {
            if self.conns[conn].node == node && resumes > self.now + KEEP_ALIVE {
                self.silence(conn);
            }
        }
    }
}
