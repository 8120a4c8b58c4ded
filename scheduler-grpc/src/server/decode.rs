//! The readers of what workers and clients send, for tests that feed them any bytes. No part of the API: it changes as they do.
#![doc(hidden)]

use bytes::Bytes;
use prost::Message as _;
use scheduler_proto::{api, worker as wire};
use tonic::{Code, Status};

use super::convert::{admin, task, worker};

/// What is answered to a message that says what cannot be.
pub const INVALID: Code = Code::InvalidArgument;

/// Reads a message of a worker. What is no message at all never comes so far, and is no error here.
pub fn worker_message(kind: u8, bytes: Bytes) -> Result<(), Status> {
    match kind % 4 {
        0 => {
            let Ok(said) = wire::Hello::decode(bytes) else {
                return Ok(());
            };
            worker::hello(said).map(drop)
        }
        1 => {
            let Ok(said) = wire::SessionRequest::decode(bytes) else {
                return Ok(());
            };
            worker::add_command(said, &mut Vec::new())
        }
        2 => {
            let Ok(said) = wire::ReportRequest::decode(bytes) else {
                return Ok(());
            };
            worker::worker_id(&said.worker_id, "worker_id")?;
            worker::reports(said.reports, "reports").map(drop)
        }
        _ => {
            let Ok(said) = wire::ExtendRequest::decode(bytes) else {
                return Ok(());
            };
            worker::held_leases(said.refs, "refs").map(drop)
        }
    }
}

/// Reads a message of a client. What is no message at all never comes so far, and is no error here.
pub fn client_message(kind: u8, bytes: Bytes) -> Result<(), Status> {
    match kind % 4 {
        0 => {
            let Ok(said) = api::SubmitRequest::decode(bytes) else {
                return Ok(());
            };
            task::task_specs(said.tasks).map(drop)
        }
        1 => {
            let Ok(said) = api::ListTasksRequest::decode(bytes) else {
                return Ok(());
            };
            task::states(&said.states)?;
            task::limit(said.limit)?;
            task::cursor(&said.cursor).map(drop)
        }
        2 => {
            let Ok(said) = api::DeadLetterSelection::decode(bytes) else {
                return Ok(());
            };
            task::selection(&said).map(drop)
        }
        _ => {
            let Ok(said) = api::CreatePipelineRequest::decode(bytes) else {
                return Ok(());
            };
            admin::new_pipeline(said).map(drop)
        }
    }
}
