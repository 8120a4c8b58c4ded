//! Sessions and polls: how leases reach workers, and come back when they do not.

use std::collections::BTreeMap;

use bytes::Bytes;
use scheduler_core::id::WorkerId;
use scheduler_core::pipeline::Event;
use scheduler_core::port::cluster::MOST_BUSY;
use scheduler_core::port::deploy::BusyWorker;
use scheduler_core::port::gateway::{HeldLease, Lease, WorkerEvent, WorkerHello};
use scheduler_core::session::SessionId;
use scheduler_core::shard::Shard;
use scheduler_core::time::Timestamp;
use tokio::sync::oneshot;

use super::PipelineActor;
use super::outbox::Teller;

/// The longest name of a pod.
const LONGEST_NAME: usize = 253;

/// A session's transport, and what it is told at the end of this turn.
#[derive(Debug)]
pub(super) struct Telling {
    worker: WorkerId,
    /// Empty if it is longer than that of any worker that is deployed.
    name: Box<str>,
    teller: Teller,
    batch: Vec<WorkerEvent>,
}

/// One who asked for leases once.
#[derive(Debug)]
pub(super) enum Polling {
    /// It waits.
    Waiting(oneshot::Sender<Vec<Lease>>),
    /// It was given these, and has not said that it has them.
    Answered(Vec<HeldLease>),
}

impl PipelineActor {
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        session: SessionId,
        hello: WorkerHello,
        teller: Teller,
        definition: &Bytes,
    ) {
        let worker = hello.worker;
        let name = if hello.name.len() <= LONGEST_NAME {
            hello.name.as_str().into()
        } else {
            Box::default()
        };
        if !self.host.open(now, session, hello, &mut self.effects) {
            // The session ends with its teller.
            return;
        }
        let mut batch = Vec::new();
        // The pipeline may have changed since the session was asked for.
        if self.pipeline.definition != *definition {
            batch.push(WorkerEvent::Definition(self.pipeline.definition.clone()));
            self.told.push(session);
        }
        let telling = Telling {
            worker,
            name,
            teller,
            batch,
        };
        self.sessions.insert(session, telling);
    }

    /// Workers with sessions that have tasks, by name.
    pub(super) fn busy(&self) -> Vec<BusyWorker> {
        let mut held = BTreeMap::<WorkerId, u64>::new();
        for (worker, leases) in self.host.pipeline().shards().flat_map(Shard::holders) {
            *held.entry(worker).or_default() += u64::from(leases);
        }
        let mut busy = BTreeMap::<&str, u64>::new();
        for telling in self.sessions.values().filter(|telling| !telling.name.is_empty()) {
            // A worker that comes again may have two sessions for a moment.
            if let Some(tasks) = held.remove(&telling.worker) {
                *busy.entry(&telling.name).or_default() += tasks;
            }
        }
        let busy = busy.into_iter().take(MOST_BUSY);
        busy.map(|(name, tasks)| BusyWorker {
            name: name.to_owned(),
            tasks,
        })
        .collect()
    }

    pub(super) fn poll(
        &mut self,
        now: Timestamp,
        session: SessionId,
        worker: WorkerId,
        limit: u32,
        reply: oneshot::Sender<Vec<Lease>>,
    ) {
        // Whoever is refused is told so by the end of the channel.
        if !reply.is_closed() && self.host.poll(now, session, worker, limit, &mut self.effects) {
            self.polls.insert(session, Polling::Waiting(reply));
        }
    }

    /// A transport has let go of a session or poll; `complete` if it has got what a poll asked for.
    pub(super) fn close(&mut self, now: Timestamp, session: SessionId, complete: bool) {
        self.event(now, Event::Close(session));
        if let Some(telling) = self.sessions.remove(&session) {
            self.take_back(now, &telling);
        }
        if let Some(Polling::Answered(leases)) = self.polls.remove(&session)
            && !complete
        {
            self.give_back(now, leases);
        }
    }

    pub(super) fn answer_poll(&mut self, now: Timestamp, session: SessionId, leases: Vec<Lease>) {
        let held = leases.iter().map(held).collect();
        if let Some(Polling::Waiting(reply)) = self.polls.remove(&session)
            && reply.send(leases).is_ok()
        {
            self.polls.insert(session, Polling::Answered(held));
        } else {
            // Whoever asked has gone: the leases go back at once.
            self.give_back(now, held);
        }
    }

    pub(super) fn tell(&mut self, session: SessionId, event: WorkerEvent) {
        if let Some(telling) = self.sessions.get_mut(&session) {
            if telling.batch.is_empty() {
                self.told.push(session);
            }
            telling.batch.push(event);
        }
    }

    pub(super) fn tell_all(&mut self, event: &WorkerEvent) {
        for (session, telling) in &mut self.sessions {
            if telling.batch.is_empty() {
                self.told.push(*session);
            }
            telling.batch.push(event.clone());
        }
    }

    /// Ends a session that the machine has ended.
    pub(super) fn end_session(&mut self, session: SessionId) {
        if let Some(mut telling) = self.sessions.remove(&session) {
            telling.teller.0.put(&mut telling.batch);
        }
    }

    /// Sends each session what has come together for it. Answers whether one of them had to be ended, so that there is more to do.
    pub(super) fn tell_sessions(&mut self, now: Timestamp) -> bool {
        let mut ended = Vec::new();
        for session in self.told.drain(..) {
            if let Some(telling) = self.sessions.get_mut(&session)
                && !telling.teller.0.put(&mut telling.batch)
            {
                ended.push(session);
            }
        }
        for session in &ended {
            self.close(now, *session, false);
        }
        !ended.is_empty()
    }

    /// Returns the leases that a session's transport has not taken.
    fn take_back(&mut self, now: Timestamp, telling: &Telling) {
        let unread = telling.teller.0.take_back();
        let leases = unread.iter().chain(&telling.batch).flat_map(|event| match event {
            WorkerEvent::Leases(leases) => leases.as_slice(),
            _ => &[],
        });
        self.give_back(now, leases.map(held).collect());
    }

    fn give_back(&mut self, now: Timestamp, leases: Vec<HeldLease>) {
        for HeldLease {
            partition,
            offset,
            token,
        } in leases
        {
            self.host
                .give_back(now, partition, offset, token, &mut self.effects);
        }
    }
}

fn held(lease: &Lease) -> HeldLease {
    HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    }
}
