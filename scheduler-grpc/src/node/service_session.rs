//! A worker's session that another node has opened on its behalf.

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use scheduler_core::port::gateway::{CommandSink, EventSource, WorkerSession};
use scheduler_proto::node as wire;
use scheduler_proto::node::session_request::Kind as Said;
use scheduler_proto::node::session_response::Kind as Told;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::convert::error::put_error;
use super::convert::{put_span, worker};
use super::service::NodeRpc;

/// A node says hello as it opens the stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

type Inbound = Streaming<wire::SessionRequest>;

/// Waits for the hello and attaches: a refusal is the answer to the call.
pub(super) async fn open(node: &NodeRpc, mut inbound: Inbound) -> Result<(WorkerSession, Inbound), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came"))??;
    let Some(Said::Hello(hello)) = first.and_then(|message| message.kind) else {
        return Err(Status::invalid_argument("the first message must be the hello"));
    };
    let (path, hello) = worker::hello(hello)?;
    let session = node.local.attach(&path, hello).await.map_err(put_error)?;
    Ok((session, inbound))
}

/// Serves a session that is open; the stream is what the worker is told. Dropping it ends the session.
pub(super) fn run(
    node: &NodeRpc,
    session: WorkerSession,
    inbound: Inbound,
) -> BoxStream<'static, Result<wire::SessionResponse, Status>> {
    let WorkerSession {
        definition,
        heartbeat,
        commands,
        events,
    } = session;
    let welcome = Told::Welcome(wire::Welcome {
        definition,
        heartbeat: Some(put_span(heartbeat)),
    });
    let outbound = Outbound {
        messages: VecDeque::from([welcome]),
        events,
        inbound: AbortOnDropHandle::new(tokio::spawn(pump(inbound, commands))),
        is_over: false,
    };
    futures::stream::unfold(outbound, |mut outbound| async move {
        let next = outbound.next().await?;
        Some((next, outbound))
    })
    .take_until(node.closing.clone().cancelled_owned())
    .boxed()
}

/// How the worker's side ended; the sink comes along, so that the session lives until the end is told.
type Ended = (Result<(), Status>, Box<dyn CommandSink>);

/// Moves what the worker says to the gateway, batch by batch, until one of them ends it.
async fn pump(mut inbound: Inbound, commands: Box<dyn CommandSink>) -> Ended {
    loop {
        let batch = match inbound.message().await {
            Ok(None) => return (Ok(()), commands),
            Ok(Some(wire::SessionRequest {
                kind: Some(Said::Commands(batch)),
            })) => worker::commands(batch).map_err(Status::from),
            Ok(Some(_)) => Err(Status::invalid_argument(
                "a session says commands after its hello",
            )),
            Err(status) => Err(status),
        };
        let sent = match batch {
            Ok(batch) => commands.send(batch).await.map_err(put_error),
            Err(status) => Err(status),
        };
        if sent.is_err() {
            return (sent, commands);
        }
    }
}

#[derive(Debug)]
struct Outbound {
    messages: VecDeque<Told>,
    events: Box<dyn EventSource>,
    inbound: AbortOnDropHandle<Ended>,
    is_over: bool,
}

impl Outbound {
    async fn next(&mut self) -> Option<Result<wire::SessionResponse, Status>> {
        loop {
            if let Some(kind) = self.messages.pop_front() {
                return Some(Ok(wire::SessionResponse { kind: Some(kind) }));
            }
            if self.is_over {
                return None;
            }
            let ended = tokio::select! {
                events = self.events.next() => {
                    if let Some(events) = events {
                        self.messages.extend(worker::put_events(events).into_iter().map(Told::Events));
                        continue;
                    }
                    // The gateway ended it; the worker's side knows better if it failed.
                    (&mut self.inbound).now_or_never()
                }
                ended = &mut self.inbound => Some(ended),
            };
            self.is_over = true;
            return match ended {
                None | Some(Ok((Ok(()), _))) => None,
                Some(Ok((Err(status), _))) => Some(Err(status)),
                Some(Err(error)) => {
                    tracing::error!(%error, "a session of another node failed");
                    Some(Err(Status::internal("internal error")))
                }
            };
        }
    }
}
