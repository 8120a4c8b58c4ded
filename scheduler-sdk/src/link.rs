//! One connection to a server after the other, each a task of its own.

use scheduler_proto::worker::session_response::Kind;
use scheduler_proto::worker::worker_service_client::WorkerServiceClient;
use scheduler_proto::worker::{LocateRequest, SessionRequest, session_request};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::session::Located;

/// Messages on their way to the server. The session sends a handful per task; a server that does not take so many is
/// as good as gone.
const OUTGOING: usize = 4096;
/// Messages from the server that the worker has not looked at; then the stream waits.
const INCOMING: usize = 64;
/// Bytes of one message from the server, at most: a batch of leases with their params.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// How long a server may take to say who owns what.
const LOCATE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// The connection is made, over which other questions may go too; the stream is about to open.
    Connected(Channel),
    Received(Kind),
    Lost(Status),
}

/// A connection that is made or being made. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Link {
    outgoing: mpsc::Sender<SessionRequest>,
    incoming: mpsc::Receiver<Event>,
    _task: AbortOnDropHandle<()>,
}

/// Where a question goes.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Over a connection that is there.
    Open(Channel),
    /// Over one that is made for it.
    Server(Box<Endpoint>),
}

/// Who owns the partitions of a pipeline, as the server says.
pub(crate) async fn locate(
    asked: Asked,
    authorization: Option<MetadataValue<Ascii>>,
    application: String,
    pipeline: String,
) -> Located {
    let answer = async {
        let channel = match asked {
            Asked::Open(channel) => channel,
            Asked::Server(server) => connect(*server).await?,
        };
        let mut client = WorkerServiceClient::new(channel);
        let mut request = Request::new(LocateRequest {
            application,
            pipeline,
        });
        if let Some(authorization) = authorization {
            request.metadata_mut().insert("authorization", authorization);
        }
        request.set_timeout(LOCATE_TIMEOUT);
        client.locate(request).await
    };
    match tokio::time::timeout(LOCATE_TIMEOUT, answer).await {
        Ok(Ok(answer)) => {
            let locations = answer.into_inner().locations.into_iter();
            Located::Owners(locations.map(|at| (at.partition, at.address)).collect())
        }
        Ok(Err(status)) if status.code() == Code::Unimplemented => Located::Unknown,
        Ok(Err(_)) | Err(_) => Located::Failed,
    }
}

async fn connect(server: Endpoint) -> Result<Channel, Status> {
    server.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        Status::unavailable(format!("cannot connect to {}: {error}{cause}", server.uri()))
    })
}

impl Link {
    pub(crate) fn open(server: Endpoint, authorization: Option<MetadataValue<Ascii>>) -> Self {
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        let (events, incoming) = mpsc::channel(INCOMING);
        let task = tokio::spawn(async move {
            let status = match talk(server, authorization, requests, &events).await {
                Ok(()) => Status::unavailable("the server ended the session"),
                Err(status) => status,
            };
            // An error says that the link was dropped.
            let _ = events.send(Event::Lost(status)).await;
        });
        Self {
            outgoing,
            incoming,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What comes next; cancel safe.
    pub(crate) async fn next(&mut self) -> Event {
        self.incoming
            .recv()
            .await
            .unwrap_or_else(|| Event::Lost(Status::cancelled("the connection's task has ended")))
    }

    pub(crate) fn try_next(&mut self) -> Option<Event> {
        self.incoming.try_recv().ok()
    }

    /// Whether the message is on its way. If not, the server takes nothing any more.
    pub(crate) fn send(&self, kind: session_request::Kind) -> bool {
        self.outgoing
            .try_send(SessionRequest { kind: Some(kind) })
            .is_ok()
    }
}

async fn talk(
    server: Endpoint,
    authorization: Option<MetadataValue<Ascii>>,
    requests: mpsc::Receiver<SessionRequest>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Status> {
    let channel = connect(server).await?;
    let mut client = WorkerServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = Request::new(ReceiverStream::new(requests));
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization);
    }
    let gone = |_| Status::cancelled("the worker left");
    // The server may answer the call only after the hello.
    events.send(Event::Connected(channel)).await.map_err(gone)?;
    let mut responses = client.session(request).await?.into_inner();
    while let Some(response) = responses.message().await? {
        if let Some(kind) = response.kind {
            events.send(Event::Received(kind)).await.map_err(gone)?;
        }
    }
    Ok(())
}
