//! What stands between the SDK's wire types and the core's: here the simulator does what scheduler-grpc does, field by field.

use bytes::Bytes;
use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset, Partition, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{HeldLease, Lease, Report, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_proto::worker as wire;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Said;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_sdk::session::LeaseKey;

pub(crate) fn held(lease: wire::LeaseRef) -> HeldLease {
    HeldLease {
        partition: Partition(lease.partition),
        offset: Offset(lease.offset),
        token: LeaseToken {
            epoch: Epoch(lease.epoch),
            attempt: Attempt(lease.attempt),
        },
    }
}

pub(crate) fn key(lease: HeldLease) -> LeaseKey {
    LeaseKey {
        partition: lease.partition.0,
        offset: lease.offset.0,
        epoch: lease.token.epoch.0,
        attempt: lease.token.attempt.0,
    }
}

fn lease_ref(lease: HeldLease) -> wire::LeaseRef {
    key(lease).into()
}

fn report(report: wire::Report) -> Option<Report> {
    let outcome = match report.outcome? {
        Outcome::Succeeded(output) => AttemptOutcome::Succeeded { output },
        Outcome::Failed(error) => AttemptOutcome::Failed { error },
        Outcome::Rejected(error) => AttemptOutcome::Rejected { error },
        Outcome::Returned(_) => AttemptOutcome::Returned,
        Outcome::Stopped(_) => AttemptOutcome::Stopped,
    };
    Some(Report {
        lease: held(report.r#ref?),
        outcome,
    })
}

/// What a node makes of a hello; `None` if it is not well formed.
pub(crate) fn hello(hello: wire::Hello) -> Option<WorkerHello> {
    let id: [u8; 16] = hello.worker_id.as_ref().try_into().ok()?;
    Some(WorkerHello {
        worker: WorkerId(u128::from_be_bytes(id)),
        name: hello.name,
        shares: hello.shares,
        number: hello.number,
        held: hello.held.into_iter().map(held).collect(),
        reported: hello.reported.into_iter().map(report).collect::<Option<_>>()?,
    })
}

/// What a node makes of another message; `None` if it is not well formed.
pub(crate) fn command(said: Said) -> Option<WorkerCommand> {
    Some(match said {
        Said::Hello(_) => return None,
        Said::Credit(more) => WorkerCommand::Credit(more),
        Said::Reports(reports) => {
            WorkerCommand::Reports(reports.reports.into_iter().map(report).collect::<Option<_>>()?)
        }
        Said::Alive(_) => WorkerCommand::Alive,
        Said::Progress(progress) => WorkerCommand::Progress {
            lease: held(progress.r#ref?),
            progress: progress.progress,
        },
        Said::Drain(_) => WorkerCommand::Drain,
        Said::Recall(_) => WorkerCommand::Recall,
    })
}

pub(crate) fn welcome(heartbeat_ms: u32) -> Told {
    Told::Welcome(wire::Welcome {
        definition: Bytes::new(),
        heartbeat_ms,
    })
}

fn lease(lease: Lease) -> wire::Lease {
    let held = HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    };
    wire::Lease {
        r#ref: Some(lease_ref(held)),
        params: lease.spec.params,
        run_until_ms: lease.run_until.as_millis(),
        traceparent: Bytes::new(),
        priority: lease.spec.priority.level().into(),
    }
}

pub(crate) fn event(event: WorkerEvent) -> Told {
    match event {
        WorkerEvent::Leases(leases) => Told::Leases(wire::Leases {
            leases: leases.into_iter().map(lease).collect(),
        }),
        WorkerEvent::Settled {
            partition,
            epoch,
            count,
        } => Told::Settled(wire::Settled {
            partition: partition.0,
            epoch: epoch.0,
            count,
        }),
        WorkerEvent::Stop(leases) => Told::Stop(wire::Stop {
            refs: leases.into_iter().map(lease_ref).collect(),
        }),
        WorkerEvent::Definition(definition) => Told::Definition(definition),
        WorkerEvent::Moved(partition) => Told::Moved(partition.0),
        WorkerEvent::GoAway => Told::GoAway(wire::Unit {}),
        WorkerEvent::Waiting(waiting) => Told::Waiting(waiting),
        WorkerEvent::Recalled(count) => Told::Recalled(count),
    }
}
