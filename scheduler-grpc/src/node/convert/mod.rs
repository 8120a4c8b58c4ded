//! Between the domain and the nodes' wire, both ways and without loss.

pub(super) mod admin;
pub(super) mod error;
pub(super) mod task;
pub(super) mod worker;

use std::time::Duration;

use scheduler_core::id::WorkerId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::gateway::Caller;
use scheduler_proto::node as wire;

/// A message of another node that cannot be: its version differs too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a node's message has no proper {0}; do the nodes' versions fit each other?")]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) type Decoded<T> = Result<T, Malformed>;

/// A field that must be there.
pub(super) fn there<T>(field: Option<T>, what: &'static str) -> Decoded<T> {
    field.ok_or(Malformed(what))
}

pub(super) fn put_span(span: Duration) -> wire::Span {
    wire::Span {
        seconds: span.as_secs(),
        nanos: span.subsec_nanos(),
    }
}

pub(super) fn span(span: Option<wire::Span>) -> Duration {
    span.map_or(Duration::ZERO, |span| {
        Duration::from_secs(span.seconds).saturating_add(Duration::from_nanos(span.nanos.into()))
    })
}

pub(super) fn name(text: &str) -> Decoded<Name> {
    text.parse().map_err(|_| Malformed("name"))
}

pub(super) fn put_path(path: &PipelinePath) -> wire::Path {
    wire::Path {
        client: path.client.to_string(),
        application: path.application.to_string(),
        pipeline: path.pipeline.to_string(),
    }
}

pub(super) fn path(path: Option<&wire::Path>) -> Decoded<PipelinePath> {
    let path = there(path, "path")?;
    Ok(PipelinePath {
        client: name(&path.client)?,
        application: name(&path.application)?,
        pipeline: name(&path.pipeline)?,
    })
}

pub(super) fn put_caller(caller: &Caller) -> wire::Client {
    wire::Client {
        name: caller.client.to_string(),
    }
}

pub(super) fn caller(client: &str) -> Decoded<Caller> {
    Ok(Caller {
        client: name(client)?,
    })
}

pub(super) fn put_worker_id(worker: WorkerId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&worker.0.to_be_bytes())
}

pub(super) fn worker_id(bytes: &[u8]) -> Decoded<WorkerId> {
    let id = bytes.try_into().map_err(|_| Malformed("worker id"))?;
    Ok(WorkerId(u128::from_be_bytes(id)))
}
