//! The readers of what other nodes say, for tests that feed them any bytes. No part of the API: it changes as they do.
#![doc(hidden)]

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use scheduler_core::port::gateway::ApiError;
use scheduler_proto::node as wire;
use tonic::{Code, Status};

use super::convert::{Decoded, admin, error, task, worker};

/// Reads a message of another node, passes on what it says, and answers both, which must be the same.
/// `None` for what is no message, or says what cannot be.
pub fn node_message(kind: u8, bytes: Bytes) -> Option<[String; 2]> {
    match kind % 9 {
        0 => passed_on(bytes, worker::commands, |said| {
            let parts = worker::put_commands(said);
            let commands = parts.into_iter().flat_map(|part| part.commands).collect();
            wire::Commands { commands }
        }),
        1 => passed_on(bytes, worker::events, |said| {
            let parts = worker::put_events(said);
            let events = parts.into_iter().flat_map(|part| part.events).collect();
            wire::Events { events }
        }),
        2 => passed_on(bytes, worker::hello, |(path, hello)| {
            worker::put_hello(&path, hello)
        }),
        3 => passed_on(bytes, task::page, task::put_page),
        4 => passed_on(bytes, task::dead_page, task::put_dead_page),
        5 => passed_on(bytes, admin::new_pipeline, |(caller, application, new)| {
            admin::put_new_pipeline(&caller, &application, new)
        }),
        6 => {
            let said = |message: wire::PipelineChange| {
                let path = super::convert::path(message.path.as_ref())?;
                Ok((path, admin::change(message)?))
            };
            passed_on(bytes, said, |(path, change)| admin::put_change(&path, change))
        }
        7 => passed_on(bytes, admin::view, admin::put_view),
        _ => {
            let status = Status::with_details(Code::Internal, "see the details", bytes);
            let read = |status: &Status| error::error(status, "");
            let said = read(&status);
            // Its text is about this node's call, and grows on the way.
            if matches!(said, ApiError::Internal(_)) {
                return None;
            }
            let text = format!("{said:?}");
            Some([text, format!("{:?}", read(&error::put_error(said)))])
        }
    }
}

fn passed_on<M: Message + Default, T: Debug>(
    bytes: Bytes,
    read: impl Fn(M) -> Decoded<T>,
    put: impl Fn(T) -> M,
) -> Option<[String; 2]> {
    let said = read(M::decode(bytes).ok()?).ok()?;
    let text = format!("{said:?}");
    let on_its_way = Bytes::from(put(said).encode_to_vec());
    let again = M::decode(on_its_way).map(&read);
    let again =
        again.map(|again| again.map_or_else(|problem| problem.to_string(), |again| format!("{again:?}")));
    Some([text, again.unwrap_or_else(|problem| problem.to_string())])
}
