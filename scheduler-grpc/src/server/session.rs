//! A worker's session: one bidirectional stream between a worker and the gateway.
//!
//! Two loops, one for each direction, and nothing between them and the gateway. Each takes what is ready, hands it on in one batch,
//! and only then waits: under load a batch grows by itself, and a lone message is never held back.

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{CommandSink, EventSource, WorkerCommand, WorkerSession};
use scheduler_proto::worker as wire;
use scheduler_proto::worker::session_request::Kind;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::call::{Call, Node, name};
use super::convert::to_short_millis;
use super::convert::worker::{Outbox, add_command, hello};
use super::status::{from_api, invalid};

/// Serves a session; the stream is what the worker is told. Dropping it, as happens when the worker vanishes, ends the session.
pub(crate) fn run(
    node: Node,
    call: Call,
    inbound: Streaming<wire::SessionRequest>,
) -> BoxStream<'static, Result<wire::SessionResponse, Status>> {
    // The answer begins at once, and the hello is awaited inside the stream: a worker may wait for the answer before it says hello.
    futures::stream::once(open(node, call, inbound))
        .map_ok(|outbound| {
            futures::stream::unfold(outbound, |mut outbound| async move {
                let next = outbound.next().await?;
                Some((next, outbound))
            })
        })
        .try_flatten()
        .boxed()
}

async fn open(
    node: Node,
    call: Call,
    mut inbound: Streaming<wire::SessionRequest>,
) -> Result<Box<Outbound>, Status> {
    let hello_timeout = node.config.hello_timeout;
    let first = tokio::select! {
        first = tokio::time::timeout(hello_timeout, inbound.message()) => first.map_err(|_| {
            Status::deadline_exceeded(format!("hello: must come within {} ms", hello_timeout.as_millis()))
        })??,
        () = Call::expired(call.deadline()) => return Err(deadline_is_over()),
        () = node.stopping.cancelled() => return Err(is_stopping()),
    };
    let Some(Kind::Hello(said)) = first.and_then(|message| message.kind) else {
        return Err(invalid("hello", "must be the first message"));
    };
    let path = PipelinePath {
        client: call.caller.client.clone(),
        application: name("hello.application", &said.application)?,
        pipeline: name("hello.pipeline", &said.pipeline)?,
    };
    let hello = hello(said)?;
    // A worker that has sessions with the other nodes as well wants what is here and no more.
    let session = match node.local.as_ref().filter(|_| hello.shares) {
        Some(local) => local.attach(&path, hello).await,
        None => node.gateway.attach(&path, hello).await,
    };
    let session = session.map_err(from_api)?;
    let WorkerSession {
        definition,
        heartbeat,
        commands,
        events,
    } = session;

    let mut outbox = Outbox::default();
    outbox.welcome(definition, to_short_millis(heartbeat));
    let batch = node.config.session_batch;
    let inbound = AbortOnDropHandle::new(tokio::spawn(pump(inbound, commands, batch.max(1))));
    let inbound = inbound.map(|ended| {
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, "a session failed");
            (Err(Status::internal("internal error")), None)
        })
    });
    let closing = node.closing.clone().cancelled_owned();
    let closing = closing.map(|()| (Err(is_stopping()), None));
    let ends = FuturesUnordered::from_iter([inbound.boxed(), closing.boxed()]);
    if let Some(deadline) = call.deadline() {
        let expired = tokio::time::sleep_until(deadline);
        ends.push(expired.map(|()| (Err(deadline_is_over()), None)).boxed());
    }
    Ok(Box::new(Outbound {
        outbox,
        events,
        ends,
        batch,
        over: false,
    }))
}

/// How a session ended; the sink comes along, so that it lives until the end is told.
type Ended = (Result<(), Status>, Option<Box<dyn CommandSink>>);

/// Moves what the worker says to the gateway, until one of them ends it.
async fn pump(
    mut inbound: Streaming<wire::SessionRequest>,
    commands: Box<dyn CommandSink>,
    most: usize,
) -> Ended {
    loop {
        let mut batch = Vec::new();
        let read = read_batch(&mut inbound, &mut batch, most).await;
        // What was said before a malformed message counts.
        if !batch.is_empty()
            && let Err(error) = commands.send(batch).await
        {
            return (Err(from_api(error)), Some(commands));
        }
        match read {
            Ok(true) => {}
            Ok(false) => return (Ok(()), Some(commands)),
            Err(status) => return (Err(status), Some(commands)),
        }
    }
}

/// Waits for a message and takes those that have come with it; `false` when the worker has said all it has to say.
async fn read_batch(
    inbound: &mut Streaming<wire::SessionRequest>,
    batch: &mut Vec<WorkerCommand>,
    most: usize,
) -> Result<bool, Status> {
    let Some(first) = inbound.message().await? else {
        return Ok(false);
    };
    add_command(first, batch)?;
    for _ in 1..most {
        match inbound.next().now_or_never() {
            None => break,
            Some(None) => return Ok(false),
            Some(Some(message)) => add_command(message?, batch)?,
        }
    }
    Ok(true)
}

/// What the worker is told.
#[derive(Debug)]
struct Outbound {
    outbox: Outbox,
    events: Box<dyn EventSource>,
    /// What else may end it: the worker's side, its deadline, the node. Looked at when one of them has something to say, not with each message.
    ends: FuturesUnordered<BoxFuture<'static, Ended>>,
    batch: usize,
    over: bool,
}

impl Outbound {
    async fn next(&mut self) -> Option<Result<wire::SessionResponse, Status>> {
        loop {
            if let Some(message) = self.outbox.pop() {
                return Some(Ok(message));
            }
            if self.over {
                return None;
            }
            tokio::select! {
                events = self.events.next() => {
                    if let Some(events) = events {
                        self.outbox.extend(events);
                        self.take_ready();
                    } else {
                        // The gateway ended it; the worker's side knows better if it failed.
                        self.over = true;
                        if let Some(Some((Err(status), _))) = self.ends.next().now_or_never() {
                            return Some(Err(status));
                        }
                    }
                }
                Some((ended, _)) = self.ends.next() => {
                    self.over = true;
                    return ended.err().map(Err);
                }
            }
        }
    }

    /// Takes events that are there already, so that they share messages.
    fn take_ready(&mut self) {
        while self.outbox.len() < self.batch {
            match self.events.next().now_or_never() {
                Some(Some(events)) => self.outbox.extend(events),
                // The end is seen again by the next call.
                Some(None) | None => return,
            }
        }
    }
}

fn deadline_is_over() -> Status {
    Status::deadline_exceeded("the deadline of the call is over")
}

fn is_stopping() -> Status {
    Status::unavailable("the node is stopping; open a session elsewhere")
}
