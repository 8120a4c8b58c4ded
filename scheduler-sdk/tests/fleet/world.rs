//! Nodes that partitions move between, and a worker with a session at each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Said;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_proto::worker::{Lease, LeaseRef, Leases, Report, Settled, Welcome};
use scheduler_sdk::session::{Fleet, Input, LeaseKey, Located, Output, SessionConfig, Site};

pub(crate) type Task = (u32, u64);

/// A shard as its owner saves it: what is to be done, what the worker has, what is done.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) ready: VecDeque<u64>,
    /// Attempts, and which of its owners granted them.
    pub(crate) leased: BTreeMap<u64, (u32, u32)>,
    /// Counts its owners.
    pub(crate) epoch: u32,
    pub(crate) done: BTreeSet<u64>,
    pub(crate) attempts: BTreeMap<u64, u32>,
    pub(crate) next: u64,
    /// Reports of the present session.
    pub(crate) reported: u64,
}

/// A stream between the worker and a node, with what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) is_greeted: bool,
    pub(crate) credit: u32,
    pub(crate) waits: bool,
    /// Of a stream for everything: partitions that have left its node.
    pub(crate) gone: BTreeSet<usize>,
    pub(crate) to_node: VecDeque<Said>,
    pub(crate) to_worker: VecDeque<Told>,
}

pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) now: Duration,
    pub(crate) shards: Vec<Shard>,
    pub(crate) owner: Vec<usize>,
    pub(crate) streams: BTreeMap<Site, Stream>,
    pub(crate) numbers: BTreeSet<u64>,
    pub(crate) running: BTreeSet<LeaseKey>,
    pub(crate) started: BTreeMap<Task, u32>,
    pub(crate) concurrency: usize,
    pub(crate) messages: u32,
    /// On its way.
    pub(crate) answer: Option<Located>,
}

pub(crate) fn address(node: usize) -> String {
    format!("http://n{node}")
}

impl World {
    pub(crate) fn new(nodes: usize, partitions: usize, concurrency: u32) -> Self {
        let config = SessionConfig {
            application: "app".into(),
            pipeline: "ocr".into(),
            worker_id: [7; 16],
            name: "w".into(),
            concurrency,
            max_unsettled: 1000,
            max_unsettled_bytes: 1 << 20,
        };
        Self {
            fleet: Fleet::new(config),
            now: Duration::from_secs(1),
            shards: (0..partitions).map(|_| Shard::default()).collect(),
            owner: (0..partitions).map(|partition| partition % nodes).collect(),
            streams: BTreeMap::new(),
            numbers: BTreeSet::new(),
            running: BTreeSet::new(),
            started: BTreeMap::new(),
            concurrency: concurrency as usize,
            messages: 0,
            answer: None,
        }
    }

    pub(crate) fn here(&self, site: &Site, partition: usize) -> bool {
        match site {
            Site::Home => self
                .streams
                .get(site)
                .is_none_or(|stream| !stream.gone.contains(&partition)),
            Site::Node(at) => **at == address(self.owner[partition]),
        }
    }

    pub(crate) fn worker(&mut self, act: impl FnOnce(&mut Fleet, &mut Vec<(Site, Output)>)) {
        let mut out = Vec::new();
        act(&mut self.fleet, &mut out);
        self.fleet.flush(self.now, &mut out);
        for (site, output) in out {
            match output {
                Output::Send(said) => {
                    if let Some(stream) = self.streams.get_mut(&site) {
                        self.messages += 1;
                        stream.to_node.push_back(said);
                    }
                }
                Output::Start(leases) => {
                    for lease in leases {
                        let key = LeaseKey::from(lease.r#ref.unwrap());
                        *self.started.entry((key.partition, key.offset)).or_default() += 1;
                        self.running.insert(key);
                        assert!(self.running.len() <= self.concurrency, "too many at once");
                    }
                }
                Output::Stop(key) => panic!("{key:?} is stopped"),
                Output::Reconnect(_) => _ = self.streams.remove(&site),
                Output::Warn(what) => panic!("{what}"),
                Output::Define(_) | Output::Drained => {}
            }
        }
        let sites: BTreeSet<Site> = self.fleet.sites().cloned().collect();
        self.streams.retain(|site, _| sites.contains(site));
    }

    pub(crate) fn connect(&mut self, site: &Site) -> bool {
        if self.streams.contains_key(site) || !self.fleet.sites().any(|known| known == site) {
            return false;
        }
        self.streams.insert(site.clone(), Stream::default());
        self.worker(|fleet, out| fleet.handle(site, Input::Connected, out));
        true
    }

    pub(crate) fn cut(&mut self, site: &Site) {
        if self.streams.remove(site).is_some() {
            self.worker(|fleet, out| fleet.handle(site, Input::Disconnected, out));
        }
    }

    /// Asks who owns what if that is wanted, or hears the answer to the last question, which may be old by then.
    pub(crate) fn locate(&mut self) -> bool {
        if let Some(owners) = self.answer.take() {
            self.worker(|fleet, out| fleet.located(owners, out));
            return true;
        }
        let wants = self.fleet.wants_owners();
        if wants {
            self.fleet.asked();
            let owners = self.owner.iter().map(|node| address(*node));
            self.answer = Some(Located::Owners((0..).zip(owners).collect()));
        }
        wants
    }

    pub(crate) fn learn_owners(&mut self) {
        self.locate();
        self.locate();
    }

    /// A node looks at one message.
    pub(crate) fn node_turn(&mut self, site: &Site) -> bool {
        let Some(said) = self
            .streams
            .get_mut(site)
            .and_then(|stream| stream.to_node.pop_front())
        else {
            return false;
        };
        match said {
            Said::Hello(hello) => {
                // Each session of the worker has its number, wherever it is opened.
                assert!(self.numbers.insert(hello.number), "{} again", hello.number);
                let all: BTreeSet<LeaseRefKey> = hello.held.iter().map(key_of).collect();
                let reported: BTreeSet<LeaseRefKey> = hello
                    .reported
                    .iter()
                    .map(|report| key_of(&report.r#ref.unwrap()))
                    .collect();
                for partition in 0..self.shards.len() {
                    if !self.here(site, partition) {
                        continue;
                    }
                    let shard = &mut self.shards[partition];
                    shard.reported = 0;
                    // What the worker neither holds nor has reported never reached it; what another owner granted may be on its way.
                    let epoch = shard.epoch;
                    let lost = shard.leased.extract_if(.., |offset, (attempt, of)| {
                        let key = (partition as u32, *offset, *attempt);
                        *of == epoch && !all.contains(&key) && !reported.contains(&key)
                    });
                    let lost: Vec<u64> = lost.map(|(offset, _)| offset).collect();
                    shard.ready.extend(lost);
                }
                let stream = self.streams.get_mut(site).unwrap();
                stream.is_greeted = true;
                stream.to_worker.push_back(Told::Welcome(Welcome {
                    definition: Bytes::new(),
                    heartbeat_ms: 60_000,
                }));
                self.take(site, hello.reported);
            }
            Said::Reports(reports) => self.take(site, reports.reports),
            Said::Credit(more) => self.streams.get_mut(site).unwrap().credit += more,
            Said::Recall(_) | Said::Drain(_) => {
                let stream = self.streams.get_mut(site).unwrap();
                let unused = std::mem::take(&mut stream.credit);
                stream.to_worker.push_back(Told::Recalled(unused));
            }
            Said::Alive(_) | Said::Progress(_) => {}
        }
        self.dispatch(site);
        true
    }

    pub(crate) fn take(&mut self, site: &Site, reports: Vec<Report>) {
        for report in reports {
            let (partition, offset, _) = key_of(&report.r#ref.unwrap());
            if !self.here(site, partition as usize) {
                // Kept until the shard comes, when the session ends.
                continue;
            }
            let shard = &mut self.shards[partition as usize];
            shard.leased.remove(&offset);
            shard.done.insert(offset);
            shard.reported += 1;
            let settled = Settled {
                partition,
                epoch: shard.epoch,
                count: shard.reported,
            };
            let stream = self.streams.get_mut(site).unwrap();
            stream.to_worker.push_back(Told::Settled(settled));
        }
    }

    pub(crate) fn dispatch(&mut self, site: &Site) {
        let is_here: Vec<bool> = (0..self.shards.len())
            .map(|partition| self.here(site, partition))
            .collect();
        let Some(stream) = self.streams.get_mut(site).filter(|stream| stream.is_greeted) else {
            return;
        };
        let shards = self
            .shards
            .iter_mut()
            .enumerate()
            .filter(|(partition, _)| is_here[*partition]);
        let mut tasks_wait = false;
        for (partition, shard) in shards {
            while stream.credit > 0
                && let Some(offset) = shard.ready.pop_front()
            {
                stream.credit -= 1;
                let attempt = shard.attempts.entry(offset).or_default();
                *attempt += 1;
                shard.leased.insert(offset, (*attempt, shard.epoch));
                let lease = Lease {
                    r#ref: Some(LeaseRef {
                        partition: partition as u32,
                        offset,
                        epoch: shard.epoch,
                        attempt: *attempt,
                    }),
                    ..Lease::default()
                };
                stream
                    .to_worker
                    .push_back(Told::Leases(Leases { leases: vec![lease] }));
            }
            tasks_wait |= !shard.ready.is_empty();
        }
        let waits = tasks_wait && stream.credit == 0;
        if *site != Site::Home && (waits && !stream.waits || stream.waits && stream.credit > 0) {
            stream.waits = waits;
            stream.to_worker.push_back(Told::Waiting(waits));
        }
    }

    /// The worker looks at one message.
    pub(crate) fn worker_turn(&mut self, site: &Site) -> bool {
        let Some(told) = self
            .streams
            .get_mut(site)
            .and_then(|stream| stream.to_worker.pop_front())
        else {
            return false;
        };
        self.messages += 1;
        self.worker(|fleet, out| fleet.handle(site, Input::Received(told), out));
        true
    }

    pub(crate) fn arrive(&mut self, partition: usize) {
        let shard = &mut self.shards[partition];
        shard.ready.push_back(shard.next);
        shard.next += 1;
        for site in self.streams.keys().cloned().collect::<Vec<_>>() {
            self.dispatch(&site);
        }
    }

    pub(crate) fn finish(&mut self) -> bool {
        let Some(lease) = self.running.pop_first() else {
            return false;
        };
        let outcome = Outcome::Succeeded(Bytes::new());
        self.worker(|fleet, out| fleet.ended(Input::Ended { lease, outcome }, out));
        true
    }

    /// The old owner says goodbye if its stream is there; the new one has sessions introduced anew.
    pub(crate) fn migrate(&mut self, partition: usize, to: usize) {
        let from = Site::Node(address(self.owner[partition]).into());
        let to_site = Site::Node(address(to).into());
        if from == to_site {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&from).filter(|stream| stream.is_greeted) {
            stream.to_worker.push_back(Told::Moved(partition as u32));
        }
        if let Some(home) = self.streams.get_mut(&Site::Home).filter(|home| home.is_greeted) {
            home.gone.insert(partition);
            home.to_worker.push_back(Told::Moved(partition as u32));
        }
        self.owner[partition] = to;
        self.shards[partition].reported = 0;
        self.shards[partition].epoch += 1;
        self.cut(&to_site);
        if self.owner.iter().all(|owner| *owner == to) {
            // A node without shards of its own passes on what the one owner has, from a new stream on.
            self.cut(&Site::Home);
        }
    }

    pub(crate) fn sites(&self) -> Vec<Site> {
        self.fleet.sites().cloned().collect()
    }

    /// Everything on its way arrives, and what is closed is opened.
    pub(crate) fn calm(&mut self) {
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 10_000, "no rest");
            let mut moved = self.locate();
            for site in self.sites() {
                moved |= self.connect(&site) | self.node_turn(&site) | self.worker_turn(&site);
            }
            if !moved && !self.end_grace() {
                return;
            }
        }
    }

    /// Nothing is on its way any more: leases of earlier owners that did not reach the worker go back. Whether there were any.
    pub(crate) fn end_grace(&mut self) -> bool {
        let mut went_back = false;
        for (partition, shard) in (0..).zip(&mut self.shards) {
            let epoch = shard.epoch;
            let running = &self.running;
            let lost = shard.leased.extract_if(.., |offset, (attempt, of)| {
                let has = |key: &LeaseKey| {
                    (key.partition, key.offset, key.attempt) == (partition, *offset, *attempt)
                };
                *of < epoch && !running.iter().any(has)
            });
            let lost: Vec<u64> = lost.map(|(offset, _)| offset).collect();
            went_back |= !lost.is_empty();
            shard.ready.extend(lost);
        }
        for site in self.sites() {
            self.dispatch(&site);
        }
        went_back
    }

    pub(crate) fn check_nobody_starves(&self) {
        let ready: usize = self.shards.iter().map(|shard| shard.ready.len()).sum();
        assert!(
            ready == 0 || self.running.len() == self.concurrency,
            "{ready} tasks wait, {} run",
            self.running.len()
        );
    }
}

pub(crate) type LeaseRefKey = (u32, u64, u32);

pub(crate) fn key_of(lease: &LeaseRef) -> LeaseRefKey {
    (lease.partition, lease.offset, lease.attempt)
}
