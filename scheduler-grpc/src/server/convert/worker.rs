//! Leases, reports and what a session says.

use bytes::Bytes;
use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset, Partition, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{HeldLease, Lease, Report, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_proto::worker as wire;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Said;
use scheduler_proto::worker::session_response::Kind as Told;
use tonic::Status;

use crate::server::status::invalid;

/// Bytes of params in one message of leases, more or less: far below what any client takes, far above what makes messages cheap.
const LEASES_BYTES: usize = 1 << 20;

pub(crate) fn worker_id(bytes: &Bytes, field: &str) -> Result<WorkerId, Status> {
    let id: [u8; 16] = bytes.as_ref().try_into().map_err(|_| {
        invalid(
            field,
            &format!("must be 16 bytes chosen at random, is {}", bytes.len()),
        )
    })?;
    Ok(WorkerId(u128::from_be_bytes(id)))
}

/// The lease in the field that `at` names; names are made only when they are needed, since this runs for every task.
fn held_lease(lease: wire::LeaseRef, at: impl FnOnce() -> String) -> Result<HeldLease, Status> {
    if lease.attempt == 0 {
        return Err(invalid(
            &format!("{}.attempt", at()),
            "counts from 1; send the ref as the lease had it",
        ));
    }
    Ok(HeldLease {
        partition: Partition(lease.partition),
        offset: Offset(lease.offset),
        token: LeaseToken {
            epoch: Epoch(lease.epoch),
            attempt: Attempt(lease.attempt),
        },
    })
}

pub(crate) fn held_leases(leases: Vec<wire::LeaseRef>, field: &str) -> Result<Vec<HeldLease>, Status> {
    leases
        .into_iter()
        .enumerate()
        .map(|(index, lease)| held_lease(lease, || format!("{field}[{index}]")))
        .collect()
}

fn report(report: wire::Report, index: usize, field: &str) -> Result<Report, Status> {
    let at = |part: &str| format!("{field}[{index}].{part}");
    let lease = report
        .r#ref
        .ok_or_else(|| invalid(&at("ref"), "is missing; send the ref as the lease had it"))?;
    let outcome = match report.outcome {
        Some(Outcome::Succeeded(output)) => AttemptOutcome::Succeeded { output },
        Some(Outcome::Failed(error)) => AttemptOutcome::Failed { error },
        Some(Outcome::Rejected(error)) => AttemptOutcome::Rejected { error },
        Some(Outcome::Returned(_)) => AttemptOutcome::Returned,
        Some(Outcome::Stopped(_)) => AttemptOutcome::Stopped,
        None => {
            return Err(invalid(
                &at("outcome"),
                "is missing; one of succeeded, failed, rejected, returned, stopped",
            ));
        }
    };
    Ok(Report {
        lease: held_lease(lease, || at("ref"))?,
        outcome,
    })
}

pub(crate) fn reports(reports: Vec<wire::Report>, field: &str) -> Result<Vec<Report>, Status> {
    reports
        .into_iter()
        .enumerate()
        .map(|(index, wire)| report(wire, index, field))
        .collect()
}

pub(crate) fn hello(hello: wire::Hello) -> Result<WorkerHello, Status> {
    Ok(WorkerHello {
        worker: worker_id(&hello.worker_id, "hello.worker_id")?,
        name: hello.name,
        shares: hello.shares,
        number: hello.number,
        held: held_leases(hello.held, "hello.held")?,
        reported: reports(hello.reported, "hello.reported")?,
    })
}

/// Adds what a message says to `commands`, joined with the last of them where that says the same.
pub(crate) fn add_command(
    message: wire::SessionRequest,
    commands: &mut Vec<WorkerCommand>,
) -> Result<(), Status> {
    let said = message.kind.ok_or_else(|| {
        invalid(
            "kind",
            "is missing or unknown; one of credit, reports, alive, progress, drain, recall",
        )
    })?;
    match (said, commands.last_mut()) {
        (Said::Hello(_), _) => return Err(invalid("hello", "must be the first message and no other")),
        (Said::Credit(more), Some(WorkerCommand::Credit(credit))) => *credit = credit.saturating_add(more),
        (Said::Credit(credit), _) => commands.push(WorkerCommand::Credit(credit)),
        (Said::Reports(more), last) => {
            let more = reports(more.reports, "reports.reports")?;
            match last {
                Some(WorkerCommand::Reports(reports)) => reports.extend(more),
                _ => commands.push(WorkerCommand::Reports(more)),
            }
        }
        (Said::Alive(_), Some(WorkerCommand::Alive)) => {}
        (Said::Alive(_), _) => commands.push(WorkerCommand::Alive),
        (Said::Progress(progress), _) => {
            let lease = progress
                .r#ref
                .ok_or_else(|| invalid("progress.ref", "is missing; send the ref as the lease had it"))?;
            commands.push(WorkerCommand::Progress {
                lease: held_lease(lease, || "progress.ref".to_owned())?,
                progress: progress.progress,
            });
        }
        (Said::Drain(_), _) => commands.push(WorkerCommand::Drain),
        (Said::Recall(_), _) => commands.push(WorkerCommand::Recall),
    }
    Ok(())
}

fn lease_ref(lease: HeldLease) -> wire::LeaseRef {
    wire::LeaseRef {
        partition: lease.partition.0,
        offset: lease.offset.0,
        epoch: lease.token.epoch.0,
        attempt: lease.token.attempt.0,
    }
}

pub(crate) fn lease(lease: Lease) -> wire::Lease {
    let held = HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    };
    wire::Lease {
        r#ref: Some(lease_ref(held)),
        params: lease.spec.params,
        run_until_ms: lease.run_until.as_millis(),
        traceparent: lease
            .spec
            .options
            .and_then(|options| options.traceparent)
            .unwrap_or_default(),
        priority: lease.spec.priority.level().into(),
    }
}

/// Messages on their way to a worker, made of events: leases that follow each other travel together.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    messages: std::collections::VecDeque<wire::SessionResponse>,
    /// Leases not in a message yet, and their bytes.
    leases: Vec<wire::Lease>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn welcome(&mut self, definition: Bytes, heartbeat_ms: u32) {
        self.push(Told::Welcome(wire::Welcome {
            definition,
            heartbeat_ms,
        }));
    }

    pub(crate) fn extend(&mut self, events: Vec<WorkerEvent>) {
        for event in events {
            self.add(event);
        }
    }

    fn add(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Leases(leases) => {
                for next in leases {
                    self.bytes += next.spec.weight();
                    self.leases.push(lease(next));
                    if self.bytes >= LEASES_BYTES {
                        self.seal();
                    }
                }
            }
            WorkerEvent::Settled {
                partition,
                epoch,
                count,
            } => self.push(Told::Settled(wire::Settled {
                partition: partition.0,
                epoch: epoch.0,
                count,
            })),
            WorkerEvent::Stop(leases) => self.push(Told::Stop(wire::Stop {
                refs: leases.into_iter().map(lease_ref).collect(),
            })),
            WorkerEvent::Definition(definition) => self.push(Told::Definition(definition)),
            WorkerEvent::Moved(partition) => self.push(Told::Moved(partition.0)),
            WorkerEvent::GoAway => self.push(Told::GoAway(wire::Unit {})),
            WorkerEvent::Waiting(waiting) => self.push(Told::Waiting(waiting)),
            WorkerEvent::Recalled(count) => self.push(Told::Recalled(count)),
        }
    }

    /// The next message, with every lease that has been added so far in some message.
    pub(crate) fn pop(&mut self) -> Option<wire::SessionResponse> {
        if self.messages.is_empty() {
            self.seal();
        }
        self.messages.pop_front()
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.messages.len() + usize::from(!self.leases.is_empty())
    }

    fn push(&mut self, kind: Told) {
        self.seal();
        self.messages
            .push_back(wire::SessionResponse { kind: Some(kind) });
    }

    fn seal(&mut self) {
        if !self.leases.is_empty() {
            let leases = std::mem::take(&mut self.leases);
            self.bytes = 0;
            self.messages.push_back(wire::SessionResponse {
                kind: Some(Told::Leases(wire::Leases { leases })),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use scheduler_core::task::TaskSpec;
    use scheduler_core::time::Timestamp;

    fn granted(offset: u64, bytes: usize) -> Lease {
        Lease {
            partition: Partition(0),
            offset: Offset(offset),
            token: LeaseToken {
                epoch: Epoch(1),
                attempt: Attempt(1),
            },
            run_until: Timestamp::MAX,
            spec: TaskSpec::new(vec![b'x'; bytes]),
        }
    }

    fn lease_counts(outbox: &mut Outbox) -> Vec<usize> {
        std::iter::from_fn(|| outbox.pop())
            .map(|message| match message.kind {
                Some(Told::Leases(leases)) => leases.leases.len(),
                _ => 0,
            })
            .collect()
    }

    proptest! {
        /// Bytes that look like messages: tags of the fields that there are, and anything after them.
        #[test]
        fn whatever_a_worker_sends_is_commands_or_an_error(
            parts in proptest::collection::vec((1..8u8, 0..6u8, proptest::collection::vec(any::<u8>(), 0..20)), 1..6),
        ) {
            let bytes: Vec<u8> = parts
                .into_iter()
                .flat_map(|(field, wire_type, rest)| [vec![field << 3 | wire_type], rest].concat())
                .collect();
            if let Ok(message) = wire::SessionRequest::decode(&bytes[..])
                && let Err(status) = add_command(message, &mut Vec::new())
            {
                prop_assert_eq!(status.code(), tonic::Code::InvalidArgument);
            }
            if let Ok(said) = wire::Hello::decode(&bytes[..]) {
                prop_assert_eq!(hello(said.clone()).is_ok(), said.worker_id.len() == 16
                    && said.held.iter().all(|lease| lease.attempt > 0)
                    && said.reported.iter().all(|r| r.outcome.is_some() && r.r#ref.is_some_and(|lease| lease.attempt > 0)));
            }
        }
    }

    #[test]
    fn leases_that_follow_each_other_share_a_message() {
        let mut outbox = Outbox::default();
        outbox.add(WorkerEvent::Leases(vec![granted(0, 1)]));
        outbox.add(WorkerEvent::Leases(vec![granted(1, 1), granted(2, 1)]));
        outbox.add(WorkerEvent::GoAway);
        outbox.add(WorkerEvent::Leases(vec![granted(3, 1)]));
        assert_eq!(outbox.len(), 3);
        assert_eq!(lease_counts(&mut outbox), [3, 0, 1]);
    }

    #[test]
    fn a_message_of_leases_has_a_limit() {
        let mut outbox = Outbox::default();
        outbox.add(WorkerEvent::Leases(
            (0..5).map(|n| granted(n, LEASES_BYTES / 2)).collect(),
        ));
        assert_eq!(lease_counts(&mut outbox), [2, 2, 1]);
    }

    #[test]
    fn the_same_said_twice_is_one_command() {
        let lease = wire::LeaseRef {
            partition: 0,
            offset: 1,
            epoch: 1,
            attempt: 1,
        };
        let reported = || {
            Said::Reports(wire::Reports {
                reports: vec![wire::Report {
                    r#ref: Some(lease),
                    outcome: Some(Outcome::Returned(wire::Unit {})),
                }],
            })
        };
        let mut commands = Vec::new();
        for kind in [
            Said::Credit(1),
            Said::Credit(u32::MAX),
            reported(),
            reported(),
            Said::Alive(wire::Unit {}),
            Said::Alive(wire::Unit {}),
        ] {
            add_command(wire::SessionRequest { kind: Some(kind) }, &mut commands).unwrap();
        }
        assert!(matches!(
            &commands[..],
            [WorkerCommand::Credit(u32::MAX), WorkerCommand::Reports(reports), WorkerCommand::Alive] if reports.len() == 2
        ));
    }
}
