//! Sessions: how they begin, what is said in them, and how they end.

use super::{Effect, MAX_PROGRESS, PipelineNode};
use crate::id::{Partition, WorkerId};
use crate::port::gateway::{HeldLease, Report, WorkerCommand, WorkerEvent, WorkerHello};
use crate::session::{Session, SessionId};
use crate::shard::Input;
use crate::time::Timestamp;

impl PipelineNode {
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        id: SessionId,
        hello: WorkerHello,
        effects: &mut Vec<Effect>,
    ) {
        if self.hellos.have_overtaken(&hello) {
            return effects.push(Effect::End(id));
        }
        self.hellos.came(now, &hello);
        if let Some(older) = self.by_worker.insert(hello.worker, id) {
            self.sessions.remove(&older);
            self.waiting.retain(|waiting| *waiting != older);
            self.unaware.remove(&older);
            self.answered.remove(&older);
            effects.push(Effect::End(older));
        }
        if hello.shares {
            self.unaware.insert(id);
        }
        self.sessions.insert(id, Session::new(now, hello));
        self.next_sweep = self.next_sweep.min(now + self.policy.timeouts.heartbeat);
        for partition in self.shards.keys().copied().collect::<Vec<_>>() {
            self.attach(now, id, partition, effects);
        }
    }

    /// Whether a hello was overtaken by a later one of its worker: opening its session ends it, and changes nothing.
    pub fn is_overtaken(&self, hello: &WorkerHello) -> bool {
        self.hellos.have_overtaken(hello)
    }

    /// Introduces a session to a shard.
    pub(super) fn attach(
        &mut self,
        now: Timestamp,
        id: SessionId,
        partition: Partition,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_poll) else {
            return;
        };
        let worker = session.worker;
        let presented = session.present(partition);
        let input = Input::Attach {
            worker,
            held: presented.held,
            reported: presented.reported,
        };
        self.tell_shard(now, partition, input, effects);
    }

    pub(super) fn close(&mut self, now: Timestamp, id: SessionId, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.waiting.retain(|waiting| *waiting != id);
        self.unaware.remove(&id);
        self.answered.remove(&id);
        if !session.is_poll {
            self.by_worker.remove(&session.worker);
            self.hellos.ended(now, session.worker);
            self.tell_all(
                now,
                &Input::Detach {
                    worker: session.worker,
                },
                effects,
            );
        }
    }

    /// Closes a session that is still open at its other end.
    pub(super) fn end(&mut self, now: Timestamp, id: SessionId, effects: &mut Vec<Effect>) {
        self.close(now, id, effects);
        effects.push(Effect::End(id));
    }

    pub(super) fn end_all(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for id in self.by_worker.values().copied().collect::<Vec<_>>() {
            self.end(now, id, effects);
        }
    }

    pub(super) fn commands(
        &mut self,
        now: Timestamp,
        id: SessionId,
        commands: Vec<WorkerCommand>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let worker = session.worker;
        session.seen = now;
        for command in commands {
            match command {
                WorkerCommand::Reports(reports) => {
                    for report in reports {
                        self.report(now, id, worker, report, effects);
                    }
                }
                WorkerCommand::Credit(more) => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return;
                    };
                    let had_none = session.credit() == 0;
                    session.add_credit(more);
                    if had_none && session.credit() > 0 {
                        self.waiting.push_back(id);
                    }
                    if session.waits {
                        self.answered.insert(id);
                    }
                }
                WorkerCommand::Alive => self.tell_all(now, &Input::Alive { worker }, effects),
                WorkerCommand::Progress {
                    lease:
                        HeldLease {
                            partition,
                            offset,
                            token,
                        },
                    progress,
                } => {
                    let input = Input::Extend {
                        worker,
                        offset,
                        token,
                        progress: Some(progress).filter(|progress| progress.len() <= MAX_PROGRESS),
                    };
                    self.tell_shard(now, partition, input, effects);
                }
                WorkerCommand::Drain => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return;
                    };
                    session.say_settled(id, effects);
                    // After this the worker knows that no lease is on its way to it. Where it waits for a task its turn is passed over.
                    effects.push(Effect::Tell(id, WorkerEvent::Recalled(session.recall())));
                    session.draining = true;
                }
                WorkerCommand::Recall => {
                    let Some(session) = self.sessions.get_mut(&id) else {
                        return;
                    };
                    let unused = session.recall();
                    self.waiting.retain(|waiting| *waiting != id);
                    if session.shares && !session.waits {
                        self.unaware.insert(id);
                    }
                    effects.push(Effect::Tell(id, WorkerEvent::Recalled(unused)));
                }
            }
        }
        if self.sessions.get(&id).is_some_and(|session| session.draining) {
            // It stays until its reports are saved, so that is not to wait for the next checkpoint's time.
            self.tell_all(now, &Input::Flush, effects);
        }
    }

    fn report(
        &mut self,
        now: Timestamp,
        id: SessionId,
        worker: WorkerId,
        report: Report,
        effects: &mut Vec<Effect>,
    ) {
        let partition = report.lease.partition;
        if self.shards.contains_key(&partition) {
            let HeldLease { offset, token, .. } = report.lease;
            self.tell_shard(
                now,
                partition,
                Input::Report {
                    worker,
                    offset,
                    token,
                    outcome: report.outcome,
                },
                effects,
            );
        } else if let Some(session) = self.sessions.get_mut(&id)
            && !session.defer(report)
        {
            // Nothing is lost: the worker keeps its reports until they are settled.
            self.end(now, id, effects);
        }
    }

    /// Ends sessions whose workers have been silent too long: their connections are dead.
    pub(super) fn sweep(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if now < self.next_sweep {
            return;
        }
        let timeout = self.policy.timeouts.heartbeat;
        let streams = self.sessions.iter().filter(|(_, session)| !session.is_poll);
        let (silent, others): (Vec<_>, Vec<_>) = streams
            .map(|(id, session)| (*id, session.seen + timeout))
            .partition(|(_, until)| *until <= now);
        for (id, _) in silent {
            self.end(now, id, effects);
        }
        let by_worker = &self.by_worker;
        self.hellos.forget(now, |worker| by_worker.contains_key(&worker));
        // Those who live have spoken again by then: looking a little later costs nothing.
        let first = others.iter().map(|(_, until)| *until).min();
        self.next_sweep = first.map_or(Timestamp::MAX, |first| first.max(now + timeout / 4));
    }

    /// Has workers look for a partition's shard.
    pub(super) fn say_moved(&mut self, partition: Partition, effects: &mut Vec<Effect>) {
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| !session.is_poll) {
            session.moved.insert(partition);
            session.say_settled(*id, effects);
            effects.push(Effect::Tell(*id, WorkerEvent::Moved(partition)));
        }
    }
}
