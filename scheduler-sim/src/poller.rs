//! A worker that polls: it has no session, asks for tasks call by call, gives a sign of life for each, and reports until it is answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::PipelineNode;
use scheduler_core::port::gateway::{HeldLease, Lease};

use crate::coverage::Point;
use crate::node::{Mail, PollCall};
use crate::wire;
use crate::worker::kind;
use crate::world::{Happening, World};

/// Tasks that it runs at once, at most.
const ROOM: usize = 4;
/// How long it waits for an answer before it asks again.
const PATIENCE: u64 = 5_000;
/// In a thousand turns while faults happen.
const CRASHES: u64 = 2;

#[derive(Debug)]
pub(crate) struct Poller {
    pub(crate) life: u32,
    pub(crate) is_up: bool,
    worker: WorkerId,
    /// The poll that is under way, and until when it is waited for.
    polling: Option<(u64, u64)>,
    last_call: u64,
    running: BTreeMap<(Partition, u64), Running>,
    /// Reports that were not answered, and when they are made again.
    reports: Vec<(HeldLease, AttemptOutcome, u64)>,
}

#[derive(Debug)]
struct Running {
    lease: HeldLease,
    ends_at: u64,
    outcome: AttemptOutcome,
    /// When it is to give a sign of life.
    alive_at: u64,
}

/// What a node answers.
#[derive(Clone, Debug)]
pub(crate) enum PollAnswer {
    /// Tasks, or none.
    Leases(Vec<Lease>),
    /// The report is taken, or too late; its sender may forget it.
    Settled(HeldLease),
    /// The lease is over.
    Over(HeldLease),
}

impl Poller {
    pub(crate) fn down() -> Self {
        Self {
            life: 0,
            is_up: false,
            worker: WorkerId(0),
            polling: None,
            last_call: 0,
            running: BTreeMap::new(),
            reports: Vec::new(),
        }
    }

    /// Reports that were not answered.
    pub(crate) fn unsettled(&self) -> usize {
        self.reports.len()
    }
}

impl World {
    pub(crate) fn start_poller(&mut self, index: usize) {
        let life = self.pollers[index].life + 1;
        self.pollers[index] = Poller {
            life,
            is_up: true,
            worker: WorkerId(self.rng.u128()),
            ..Poller::down()
        };
        self.trace.note(&[36, index as u64], || {
            format!("poller {index} starts, life {life}")
        });
        self.queue
            .push(self.now, Happening::PollerTurn { poller: index, life });
    }

    fn crash_poller(&mut self, index: usize) {
        self.pollers[index].is_up = false;
        self.trace
            .note(&[37, index as u64], || format!("poller {index} is gone"));
        let back = self.now + self.rng.range(100, 5_000);
        self.queue.push(back, Happening::StartPoller(index));
    }

    pub(crate) fn poller_turn(&mut self, index: usize, life: u32) {
        if !self.pollers[index].is_up || self.pollers[index].life != life {
            return;
        }
        if !self.is_healed && self.rng.chance(CRASHES) {
            self.coverage.hit(Point::WorkerCrash);
            return self.crash_poller(index);
        }
        let now = self.now;
        let poller = &mut self.pollers[index];
        let ended = poller.running.extract_if(.., |_, running| running.ends_at <= now);
        for (_, Running { lease, outcome, .. }) in ended.collect::<Vec<_>>() {
            self.trace.note(&[38, index as u64, lease.offset.0], || {
                format!("poller {index} ended {lease:?}: {outcome:?}")
            });
            self.pollers[index].reports.push((lease, outcome, now));
        }
        self.make_reports(index);
        self.give_signs_of_life(index);
        let poller = &mut self.pollers[index];
        poller.polling = poller.polling.filter(|(_, until)| *until > now);
        let room = ROOM.saturating_sub(poller.running.len());
        if poller.polling.is_none() && room > 0 {
            poller.last_call += 1;
            poller.polling = Some((poller.last_call, now + PATIENCE));
            let call = PollCall {
                poller: index,
                life,
                number: poller.last_call,
                worker: poller.worker,
            };
            let partition = Partition(u32::try_from(self.rng.index(self.partitions as usize)).unwrap_or(0));
            let limit = u32::try_from(room).unwrap_or(1);
            self.tell_owner(partition, Mail::Poll(call, limit));
        }
        let next = self.now + self.rng.range(50, 300);
        self.queue
            .push(next, Happening::PollerTurn { poller: index, life });
    }

    fn make_reports(&mut self, index: usize) {
        let now = self.now;
        let poller = &mut self.pollers[index];
        let call = PollCall {
            poller: index,
            life: poller.life,
            number: 0,
            worker: poller.worker,
        };
        let mut due = Vec::new();
        for (lease, outcome, again_at) in poller.reports.iter_mut().filter(|(.., at)| *at <= now) {
            *again_at = now + PATIENCE;
            due.push((*lease, outcome.clone()));
        }
        for (lease, outcome) in due {
            self.tell_owner(lease.partition, Mail::PolledReport(call, lease, outcome));
        }
    }

    fn give_signs_of_life(&mut self, index: usize) {
        let now = self.now;
        let pause = PipelineNode::heartbeat_of(&self.policy);
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let poller = &mut self.pollers[index];
        let call = PollCall {
            poller: index,
            life: poller.life,
            number: 0,
            worker: poller.worker,
        };
        let mut due = Vec::new();
        for running in poller
            .running
            .values_mut()
            .filter(|running| running.alive_at <= now)
        {
            running.alive_at = now + pause;
            due.push(running.lease);
        }
        for lease in due {
            self.tell_owner(lease.partition, Mail::PolledExtend(call, lease));
        }
    }

    /// A request on its way to whoever owns a partition; it may be lost.
    fn tell_owner(&mut self, partition: Partition, mail: Mail) {
        let delay = self.net_delay();
        let Some((node, life)) = self.placement.owner(partition) else {
            return;
        };
        if self.is_healed || !self.rng.chance(20) {
            let at = self.now + delay;
            self.queue.push(at, Happening::Mail { node, life, mail });
        }
    }

    /// An answer reaches a poller, if it waits for it still.
    pub(crate) fn polled(&mut self, call: PollCall, answer: PollAnswer) {
        let poller = &mut self.pollers[call.poller];
        if !poller.is_up || poller.life != call.life {
            return;
        }
        match answer {
            PollAnswer::Leases(leases) => {
                if poller.polling.is_none_or(|(number, _)| number != call.number) {
                    // It has asked anew: what it was given then is nobody's, until the silence is noticed.
                    return;
                }
                poller.polling = None;
                for lease in leases {
                    self.begin_polled(call.poller, &lease);
                    if !self.pollers[call.poller].is_up {
                        return;
                    }
                }
            }
            PollAnswer::Settled(lease) => poller.reports.retain(|(of, ..)| *of != lease),
            PollAnswer::Over(lease) => {
                let key = (lease.partition, lease.offset.0);
                if poller
                    .running
                    .get(&key)
                    .is_some_and(|running| running.lease == lease)
                {
                    self.coverage.hit(Point::Stopped);
                    poller.running.remove(&key);
                    poller.reports.push((lease, AttemptOutcome::Stopped, self.now));
                }
            }
        }
    }

    fn begin_polled(&mut self, index: usize, lease: &Lease) {
        let held = HeldLease {
            partition: lease.partition,
            offset: lease.offset,
            token: lease.token,
        };
        let what = lease.spec.params.first().copied().unwrap_or(kind::QUICK);
        self.trace.note(&[39, index as u64, lease.offset.0], || {
            format!("poller {index} starts {:?}, kind {what}", wire::key(held))
        });
        self.coverage.hit(Point::Polled);
        let quick = self.rng.range(0, 200);
        let long = self.rng.range(0, self.plan.tasks.longest());
        let succeeded = AttemptOutcome::Succeeded {
            output: Bytes::from_static(b"1"),
        };
        let failed = AttemptOutcome::Failed {
            error: "as drawn".into(),
        };
        let (takes, outcome) = match what {
            kind::POISON => {
                self.coverage.hit(Point::Poisoned);
                return self.crash_poller(index);
            }
            kind::LONG | kind::DEAF => (long, succeeded),
            kind::FLAKY if self.rng.chance(500) => (quick, failed),
            kind::FAILING => (quick, failed),
            kind::REJECTING => (
                quick,
                AttemptOutcome::Rejected {
                    error: "as drawn".into(),
                },
            ),
            kind::HANGING => (u64::MAX / 2, failed),
            _ => (quick, succeeded),
        };
        let running = Running {
            lease: held,
            ends_at: self.now.saturating_add(takes),
            outcome,
            alive_at: self.now,
        };
        // One that is leased again here makes the older attempt void.
        self.pollers[index]
            .running
            .insert((lease.partition, lease.offset.0), running);
    }
}
