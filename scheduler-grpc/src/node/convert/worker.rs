//! Leases, reports, and what a session says. A batch goes in parts, each well below what a message can be.

use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset, Partition};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{
    HeldLease, Lease, Location, Report, WorkerCommand, WorkerEvent, WorkerHello,
};
use scheduler_core::time::Timestamp;
use scheduler_proto::node as wire;
use scheduler_proto::node::event::Kind as EventKind;
use scheduler_proto::worker as public;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Said;
use scheduler_proto::worker::session_response::Kind as Told;

use super::task::{put_spec, spec};
use super::{Decoded, Malformed, path, put_path, put_worker_id, there, worker_id};
use crate::node::PART_BYTES;

pub(in crate::node) fn put_held(lease: HeldLease) -> public::LeaseRef {
    public::LeaseRef {
        partition: lease.partition.0,
        offset: lease.offset.0,
        epoch: lease.token.epoch.0,
        attempt: lease.token.attempt.0,
    }
}

pub(in crate::node) fn held(lease: public::LeaseRef) -> HeldLease {
    HeldLease {
        partition: Partition(lease.partition),
        offset: Offset(lease.offset),
        token: LeaseToken {
            epoch: Epoch(lease.epoch),
            attempt: Attempt(lease.attempt),
        },
    }
}

pub(in crate::node) fn put_report(report: Report) -> public::Report {
    let outcome = match report.outcome {
        AttemptOutcome::Succeeded { output } => Outcome::Succeeded(output),
        AttemptOutcome::Failed { error } => Outcome::Failed(error),
        AttemptOutcome::Rejected { error } => Outcome::Rejected(error),
        AttemptOutcome::Returned => Outcome::Returned(public::Unit {}),
        AttemptOutcome::Stopped => Outcome::Stopped(public::Unit {}),
    };
    public::Report {
        r#ref: Some(put_held(report.lease)),
        outcome: Some(outcome),
    }
}

fn report(report: public::Report) -> Decoded<Report> {
    Ok(Report {
        lease: held(there(report.r#ref, "lease")?),
        outcome: match there(report.outcome, "outcome")? {
            Outcome::Succeeded(output) => AttemptOutcome::Succeeded { output },
            Outcome::Failed(error) => AttemptOutcome::Failed { error },
            Outcome::Rejected(error) => AttemptOutcome::Rejected { error },
            Outcome::Returned(_) => AttemptOutcome::Returned,
            Outcome::Stopped(_) => AttemptOutcome::Stopped,
        },
    })
}

pub(in crate::node) fn reports(list: Vec<public::Report>) -> Decoded<Vec<Report>> {
    list.into_iter().map(report).collect()
}

pub(in crate::node) fn put_hello(path: &PipelinePath, hello: WorkerHello) -> wire::Hello {
    wire::Hello {
        path: Some(put_path(path)),
        hello: Some(public::Hello {
            application: String::new(),
            pipeline: String::new(),
            worker_id: put_worker_id(hello.worker),
            name: hello.name,
            held: hello.held.into_iter().map(put_held).collect(),
            reported: hello.reported.into_iter().map(put_report).collect(),
            shares: hello.shares,
            number: hello.number,
        }),
    }
}

pub(in crate::node) fn hello(hello: wire::Hello) -> Decoded<(PipelinePath, WorkerHello)> {
    let path = path(hello.path.as_ref())?;
    let hello = there(hello.hello, "hello")?;
    let hello = WorkerHello {
        worker: worker_id(&hello.worker_id)?,
        name: hello.name,
        held: hello.held.into_iter().map(held).collect(),
        reported: reports(hello.reported)?,
        shares: hello.shares,
        number: hello.number,
    };
    Ok((path, hello))
}

/// A batch of commands as messages, in order. Reports that are too many for one are in several.
pub(in crate::node) fn put_commands(commands: Vec<WorkerCommand>) -> Vec<wire::Commands> {
    let mut parts = Parts::default();
    for command in commands {
        let said = match command {
            WorkerCommand::Reports(reports) => {
                let mut group = Vec::new();
                let mut bytes = 0;
                for report in reports {
                    let weight = 64 + weight_of(&report.outcome);
                    if bytes + weight > PART_BYTES && !group.is_empty() {
                        let reports = std::mem::take(&mut group);
                        parts.add(Said::Reports(public::Reports { reports }), bytes);
                        bytes = 0;
                    }
                    bytes += weight;
                    group.push(put_report(report));
                }
                parts.add(Said::Reports(public::Reports { reports: group }), bytes);
                continue;
            }
            WorkerCommand::Credit(more) => Said::Credit(more),
            WorkerCommand::Alive => Said::Alive(public::Unit {}),
            WorkerCommand::Progress { lease, progress } => Said::Progress(public::Progress {
                r#ref: Some(put_held(lease)),
                progress,
            }),
            WorkerCommand::Drain => Said::Drain(public::Unit {}),
            WorkerCommand::Recall => Said::Recall(public::Unit {}),
        };
        let weight = if let Said::Progress(progress) = &said {
            64 + progress.progress.len()
        } else {
            16
        };
        parts.add(said, weight);
    }
    let message = |commands: Vec<Said>| wire::Commands {
        commands: commands
            .into_iter()
            .map(|kind| public::SessionRequest { kind: Some(kind) })
            .collect(),
    };
    parts.into_messages().into_iter().map(message).collect()
}

fn weight_of(outcome: &AttemptOutcome) -> usize {
    match outcome {
        AttemptOutcome::Succeeded { output } => output.len(),
        AttemptOutcome::Failed { error } | AttemptOutcome::Rejected { error } => error.len(),
        AttemptOutcome::Returned | AttemptOutcome::Stopped => 0,
    }
}

pub(in crate::node) fn commands(commands: wire::Commands) -> Decoded<Vec<WorkerCommand>> {
    let command = |said: public::SessionRequest| {
        Ok(match there(said.kind, "command")? {
            Said::Hello(_) => return Err(Malformed("command")),
            Said::Credit(more) => WorkerCommand::Credit(more),
            Said::Reports(list) => WorkerCommand::Reports(reports(list.reports)?),
            Said::Alive(_) => WorkerCommand::Alive,
            Said::Progress(progress) => WorkerCommand::Progress {
                lease: held(there(progress.r#ref, "lease")?),
                progress: progress.progress,
            },
            Said::Drain(_) => WorkerCommand::Drain,
            Said::Recall(_) => WorkerCommand::Recall,
        })
    };
    commands.commands.into_iter().map(command).collect()
}

fn put_lease(lease: Lease) -> wire::Lease {
    let held = HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    };
    wire::Lease {
        r#ref: Some(put_held(held)),
        run_until_ms: lease.run_until.as_millis(),
        spec: Some(put_spec(lease.spec)),
    }
}

fn lease(lease: wire::Lease) -> Decoded<Lease> {
    let HeldLease {
        partition,
        offset,
        token,
    } = held(there(lease.r#ref, "lease")?);
    Ok(Lease {
        partition,
        offset,
        token,
        run_until: Timestamp::from_millis(lease.run_until_ms),
        spec: spec(there(lease.spec, "task")?)?,
    })
}

pub(in crate::node) fn put_leases(leases: Vec<Lease>) -> wire::Leases {
    wire::Leases {
        leases: leases.into_iter().map(put_lease).collect(),
    }
}

pub(in crate::node) fn leases(leases: wire::Leases) -> Decoded<Vec<Lease>> {
    leases.leases.into_iter().map(lease).collect()
}

/// A batch of events as messages, in order. Leases that are too many for one are in several.
pub(in crate::node) fn put_events(events: Vec<WorkerEvent>) -> Vec<wire::Events> {
    let mut parts = Parts::default();
    for event in events {
        let (told, weight) = match event {
            WorkerEvent::Leases(leases) => {
                let mut group = Vec::new();
                let mut bytes = 0;
                for lease in leases {
                    let weight = 64 + lease.spec.weight();
                    if bytes + weight > PART_BYTES && !group.is_empty() {
                        parts.add(EventKind::Leases(put_leases(std::mem::take(&mut group))), bytes);
                        bytes = 0;
                    }
                    bytes += weight;
                    group.push(lease);
                }
                parts.add(EventKind::Leases(put_leases(group)), bytes);
                continue;
            }
            WorkerEvent::Settled {
                partition,
                epoch,
                count,
            } => {
                let settled = public::Settled {
                    partition: partition.0,
                    epoch: epoch.0,
                    count,
                };
                (Told::Settled(settled), 32)
            }
            WorkerEvent::Stop(leases) => {
                let weight = 32 * leases.len();
                let refs = leases.into_iter().map(put_held).collect();
                (Told::Stop(public::Stop { refs }), weight)
            }
            WorkerEvent::Definition(definition) => {
                let weight = definition.len();
                (Told::Definition(definition), weight)
            }
            WorkerEvent::Moved(partition) => (Told::Moved(partition.0), 16),
            WorkerEvent::GoAway => (Told::GoAway(public::Unit {}), 16),
            WorkerEvent::Waiting(waiting) => (Told::Waiting(waiting), 16),
            WorkerEvent::Recalled(count) => (Told::Recalled(count), 16),
        };
        let other = public::SessionResponse { kind: Some(told) };
        parts.add(EventKind::Other(other), weight);
    }
    let message = |events: Vec<EventKind>| wire::Events {
        events: events
            .into_iter()
            .map(|kind| wire::Event { kind: Some(kind) })
            .collect(),
    };
    parts.into_messages().into_iter().map(message).collect()
}

pub(in crate::node) fn events(events: wire::Events) -> Decoded<Vec<WorkerEvent>> {
    let event = |event: wire::Event| {
        let other = match there(event.kind, "event")? {
            EventKind::Leases(list) => return Ok(WorkerEvent::Leases(leases(list)?)),
            EventKind::Other(other) => other,
        };
        Ok(match there(other.kind, "event")? {
            Told::Welcome(_) | Told::Leases(_) => return Err(Malformed("event")),
            Told::Settled(settled) => WorkerEvent::Settled {
                partition: Partition(settled.partition),
                epoch: Epoch(settled.epoch),
                count: settled.count,
            },
            Told::Stop(stop) => WorkerEvent::Stop(stop.refs.into_iter().map(held).collect()),
            Told::Definition(definition) => WorkerEvent::Definition(definition),
            Told::Moved(partition) => WorkerEvent::Moved(Partition(partition)),
            Told::GoAway(_) => WorkerEvent::GoAway,
            Told::Waiting(waiting) => WorkerEvent::Waiting(waiting),
            Told::Recalled(count) => WorkerEvent::Recalled(count),
        })
    };
    events.events.into_iter().map(event).collect()
}

pub(in crate::node) fn put_locations(locations: Vec<Location>) -> public::LocateResponse {
    let location = |location: Location| public::Location {
        partition: location.partition.0,
        address: location.address,
    };
    public::LocateResponse {
        locations: locations.into_iter().map(location).collect(),
    }
}

pub(in crate::node) fn locations(answer: public::LocateResponse) -> Vec<Location> {
    let location = |location: public::Location| Location {
        partition: Partition(location.partition),
        address: location.address,
    };
    answer.locations.into_iter().map(location).collect()
}

/// What goes in one message, and what in the next.
struct Parts<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
    bytes: usize,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self {
            full: Vec::new(),
            last: Vec::new(),
            bytes: 0,
        }
    }
}

impl<T> Parts<T> {
    fn add(&mut self, item: T, bytes: usize) {
        if self.bytes + bytes > PART_BYTES && !self.last.is_empty() {
            self.full.push(std::mem::take(&mut self.last));
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.last.push(item);
    }

    fn into_messages(mut self) -> Vec<Vec<T>> {
        if !self.last.is_empty() {
            self.full.push(self.last);
        }
        self.full
    }
}
