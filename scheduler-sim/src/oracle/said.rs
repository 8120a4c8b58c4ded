//! What workers have said in the sessions that are open, as their nodes have heard it.

use std::collections::BTreeMap;

use scheduler_core::id::{LeaseToken, Offset, Partition, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::WorkerHello;
use scheduler_core::session::SessionId;

/// A report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saying {
    pub(super) offset: Offset,
    pub(super) token: LeaseToken,
    pub(super) is_success: bool,
    /// Nobody has to remember it.
    pub(super) is_void: bool,
}

#[derive(Debug, Default)]
pub(super) struct Said {
    sessions: BTreeMap<(usize, SessionId), Session>,
}

#[derive(Debug)]
struct Session {
    worker: WorkerId,
    parts: BTreeMap<Partition, Part>,
}

#[derive(Debug, Default)]
struct Part {
    held: Vec<(Offset, LeaseToken)>,
    reports: Vec<Saying>,
}

/// A worker, and what it holds and has reported of a partition.
pub(super) type Presented = (WorkerId, Vec<(Offset, LeaseToken)>, Vec<Saying>);

impl Said {
    pub(super) fn open(&mut self, node: usize, id: SessionId, hello: &WorkerHello) {
        // One worker has one session.
        self.sessions
            .retain(|(of, _), session| *of != node || session.worker != hello.worker);
        let mut session = Session {
            worker: hello.worker,
            parts: BTreeMap::new(),
        };
        for lease in &hello.held {
            let part = session.parts.entry(lease.partition).or_default();
            part.held.push((lease.offset, lease.token));
        }
        for report in &hello.reported {
            let part = session.parts.entry(report.lease.partition).or_default();
            part.reports.push(Saying {
                offset: report.lease.offset,
                token: report.lease.token,
                is_success: matches!(report.outcome, AttemptOutcome::Succeeded { .. }),
                is_void: false,
            });
        }
        self.sessions.insert((node, id), session);
    }

    pub(super) fn close(&mut self, node: usize, session: SessionId) {
        self.sessions.remove(&(node, session));
    }

    pub(super) fn node_gone(&mut self, node: usize) {
        self.sessions.retain(|(of, _), _| *of != node);
    }

    pub(super) fn worker(&self, node: usize, session: SessionId) -> Option<WorkerId> {
        self.sessions.get(&(node, session)).map(|session| session.worker)
    }

    pub(super) fn sessions(&self, node: usize) -> Vec<SessionId> {
        let of_node = self.sessions.keys().filter(|(of, _)| *of == node);
        of_node.map(|(_, session)| *session).collect()
    }

    /// What was said of a partition is told to its shard; leases that were held only once.
    pub(super) fn present(
        &mut self,
        node: usize,
        session: SessionId,
        partition: Partition,
    ) -> Option<Presented> {
        let session = self.sessions.get_mut(&(node, session))?;
        let part = session.parts.entry(partition).or_default();
        Some((
            session.worker,
            std::mem::take(&mut part.held),
            part.reports.clone(),
        ))
    }

    pub(super) fn presented(
        &mut self,
        node: usize,
        session: SessionId,
        partition: Partition,
        reports: Vec<Saying>,
    ) {
        if let Some(session) = self.sessions.get_mut(&(node, session)) {
            session.parts.entry(partition).or_default().reports = reports;
        }
    }

    pub(super) fn report(&mut self, node: usize, session: SessionId, partition: Partition, saying: Saying) {
        if let Some(session) = self.sessions.get_mut(&(node, session)) {
            session.parts.entry(partition).or_default().reports.push(saying);
        }
    }

    /// The shard is gone, and with it what it was told.
    pub(super) fn deactivated(&mut self, node: usize, partition: Partition) {
        for ((of, _), session) in &mut self.sessions {
            if *of == node {
                session.parts.remove(&partition);
            }
        }
    }

    pub(super) fn reports(&self, node: usize, session: SessionId, partition: Partition) -> &[Saying] {
        self.sessions
            .get(&(node, session))
            .and_then(|session| session.parts.get(&partition))
            .map_or(&[], |part| &part.reports)
    }

    /// A task is leased of which no worker may have said to this owner that it has succeeded.
    pub(super) fn check_lease(
        &self,
        node: usize,
        partition: Partition,
        offset: Offset,
    ) -> Result<(), String> {
        for ((_, id), session) in self.sessions.iter().filter(|((of, _), _)| *of == node) {
            let Some(part) = session.parts.get(&partition) else {
                continue;
            };
            let said = part
                .reports
                .iter()
                .find(|said| said.offset == offset && said.is_success && !said.is_void);
            if let Some(said) = said {
                return Err(format!(
                    "{:?} has said in {id:?} that {partition:?} {offset:?} succeeded under {:?}, and it runs again",
                    session.worker, said.token
                ));
            }
        }
        Ok(())
    }
}
