//! A worker's session with another node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{
    ApiError, CommandSink, EventSource, WorkerCommand, WorkerEvent, WorkerHello, WorkerSession,
};
use scheduler_proto::node as wire;
use scheduler_proto::node::session_request::Kind as Said;
use scheduler_proto::node::session_response::Kind as Told;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::channels::Place;
use super::convert::{error, span, worker};
use super::remote::RemotePeer;

/// Messages on their way to the other node; then whoever speaks waits.
const OUTGOING: usize = 16;

/// Opens a session there.
pub(super) async fn attach(
    peer: &RemotePeer,
    path: &PipelinePath,
    hello: WorkerHello,
) -> Result<WorkerSession, ApiError> {
    let (outgoing, requests) = mpsc::channel(OUTGOING);
    let hello = wire::SessionRequest {
        kind: Some(Said::Hello(worker::put_hello(path, hello))),
    };
    // There is room for the first message.
    let _ = outgoing.try_send(hello);
    let (mut client, place) = peer.stream()?;
    let request = peer.signed(ReceiverStream::new(requests));
    let open = async {
        let mut incoming = client.attach(request).await?.into_inner();
        let first = incoming.message().await?.and_then(|message| message.kind);
        match first {
            Some(Told::Welcome(welcome)) => Ok(tonic::Response::new((welcome, incoming))),
            _ => Err(Status::internal("the node did not begin with its welcome")),
        }
    };
    let (welcome, incoming) = peer.answer(peer.config.call_timeout, open).await?;
    let end = Arc::new(End {
        address: Arc::clone(&peer.address),
        status: Mutex::default(),
    });
    Ok(WorkerSession {
        definition: welcome.definition,
        heartbeat: span(welcome.heartbeat),
        commands: Box::new(Commands {
            outgoing,
            end: Arc::clone(&end),
        }),
        events: Box::new(Events {
            incoming,
            end,
            _place: place,
        }),
    })
}

/// How the session ended, once it has.
#[derive(Debug)]
struct End {
    address: Arc<str>,
    status: Mutex<Option<Status>>,
}

impl End {
    fn because(&self, status: Status) {
        let mut end = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        end.get_or_insert(status);
    }

    fn error(&self) -> ApiError {
        let end = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &*end {
            Some(status) => error::error(status, &self.address),
            None => ApiError::Unavailable {
                problem: "the session is over; open another".to_owned(),
                retry_after: Duration::ZERO,
                source: None,
            },
        }
    }
}

#[derive(Debug)]
struct Commands {
    outgoing: mpsc::Sender<wire::SessionRequest>,
    end: Arc<End>,
}

#[async_trait]
impl CommandSink for Commands {
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError> {
        for part in worker::put_commands(commands) {
            let request = wire::SessionRequest {
                kind: Some(Said::Commands(part)),
            };
            self.outgoing.send(request).await.map_err(|_| self.end.error())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Events {
    incoming: Streaming<wire::SessionResponse>,
    end: Arc<End>,
    _place: Place,
}

#[async_trait]
impl EventSource for Events {
    async fn next(&mut self) -> Option<Vec<WorkerEvent>> {
        let status = match self.incoming.message().await {
            Ok(None) => return None,
            Ok(Some(wire::SessionResponse {
                kind: Some(Told::Events(events)),
            })) => match worker::events(events) {
                Ok(events) => return Some(events),
                Err(error) => Status::internal(error.to_string()),
            },
            Ok(Some(_)) => Status::internal("the node said welcome twice"),
            Err(status) => status,
        };
        tracing::debug!(node = %self.end.address, %status, "a session with another node is over");
        self.end.because(status);
        None
    }
}
