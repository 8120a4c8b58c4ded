//! A server that hands each session over to the test, which says what it answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_proto::worker::worker_service_server::{WorkerService, WorkerServiceServer};
use scheduler_proto::worker::{
    ExtendRequest, ExtendResponse, Hello, Lease, LeaseRef, Leases, LocateRequest, LocateResponse, Location,
    PollRequest, PollResponse, Report, ReportRequest, ReportResponse, SessionRequest, SessionResponse,
    Settled, Welcome,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request as Call, Response as Answer, Status, Streaming};

/// Hands each session over to the test.
pub(crate) struct FakeServer {
    pub(crate) sessions: mpsc::Sender<FakeSession>,
    pub(crate) owners: Owners,
    /// Where questions for them came from.
    pub(crate) asked: mpsc::UnboundedSender<Option<SocketAddr>>,
}

/// The address of each partition's owner; none from a server that does not know.
pub(crate) type Owners = Arc<Mutex<Vec<String>>>;

pub(crate) struct FakeSession {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) authorization: Option<String>,
    pub(crate) requests: Streaming<SessionRequest>,
    pub(crate) responses: mpsc::Sender<Result<SessionResponse, Status>>,
    pub(crate) credit: u32,
    pub(crate) unread: VecDeque<Request>,
}

#[tonic::async_trait]
impl WorkerService for FakeServer {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        call: Call<Streaming<SessionRequest>>,
    ) -> Result<Answer<Self::SessionStream>, Status> {
        let (responses, stream) = mpsc::channel(16);
        let authorization = call
            .metadata()
            .get("authorization")
            .map(|key| key.to_str().unwrap().to_owned());
        if authorization.as_deref() == Some("Bearer wrong") {
            return Err(Status::unauthenticated("no such key"));
        }
        let session = FakeSession {
            peer: call.remote_addr(),
            authorization,
            requests: call.into_inner(),
            responses,
            credit: 0,
            unread: VecDeque::new(),
        };
        self.sessions
            .send(session)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Answer::new(ReceiverStream::new(stream)))
    }

    async fn poll(&self, _: Call<PollRequest>) -> Result<Answer<PollResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn report(&self, _: Call<ReportRequest>) -> Result<Answer<ReportResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn extend(&self, _: Call<ExtendRequest>) -> Result<Answer<ExtendResponse>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn locate(&self, call: Call<LocateRequest>) -> Result<Answer<LocateResponse>, Status> {
        let _ = self.asked.send(call.remote_addr());
        let owners = self.owners.lock().unwrap().clone();
        if owners.is_empty() {
            return Err(Status::unimplemented("fake"));
        }
        let location = |(partition, address)| Location { partition, address };
        let locations = (0..).zip(owners).map(location).collect();
        Ok(Answer::new(LocateResponse { locations }))
    }
}

impl FakeSession {
    pub(crate) async fn receive(&mut self) -> Request {
        let request = self
            .requests
            .message()
            .await
            .unwrap()
            .expect("the worker goes on")
            .kind
            .unwrap();
        match request {
            Request::Credit(credit) => self.credit += credit,
            Request::Drain(_) => {
                let unused = std::mem::take(&mut self.credit);
                self.say(Response::Recalled(unused)).await;
            }
            _ => {}
        }
        request
    }

    pub(crate) async fn request(&mut self) -> Request {
        match self.unread.pop_front() {
            Some(request) => request,
            None => self.receive().await,
        }
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.request().await {
            Request::Hello(hello) => hello,
            other => panic!("{other:?} instead of hello"),
        }
    }

    pub(crate) async fn say(&self, kind: Response) {
        self.responses
            .send(Ok(SessionResponse { kind: Some(kind) }))
            .await
            .unwrap();
    }

    pub(crate) async fn welcome(&mut self) -> Hello {
        let hello = self.hello().await;
        self.say(Response::Welcome(Welcome {
            definition: Bytes::from_static(b"{\"v\":1}"),
            heartbeat_ms: 60_000,
        }))
        .await;
        hello
    }

    /// Leases a task once there is room for it.
    pub(crate) async fn lease(&mut self, offset: u64, params: &Value) {
        while self.credit == 0 {
            let request = self.receive().await;
            self.unread.push_back(request);
        }
        self.credit -= 1;
        self.lease_unasked(offset, params).await;
    }

    pub(crate) async fn lease_unasked(&self, offset: u64, params: &Value) {
        let lease = Lease {
            r#ref: Some(name(offset)),
            params: params.to_string().into(),
            ..Lease::default()
        };
        self.say(Response::Leases(Leases { leases: vec![lease] })).await;
    }

    /// The next report, whatever is said before it.
    pub(crate) async fn report(&mut self) -> Report {
        loop {
            if let Request::Reports(reports) = self.request().await {
                let [report] = <[Report; 1]>::try_from(reports.reports).unwrap();
                return report;
            }
        }
    }

    pub(crate) async fn outcome(&mut self) -> Outcome {
        self.report().await.outcome.unwrap()
    }

    pub(crate) async fn settle(&self, count: u64) {
        self.say(Response::Settled(Settled {
            partition: 0,
            epoch: 1,
            count,
        }))
        .await;
    }
}

pub(crate) fn name(offset: u64) -> LeaseRef {
    LeaseRef {
        partition: 0,
        offset,
        epoch: 1,
        attempt: 1,
    }
}

pub(crate) async fn server() -> (String, mpsc::Receiver<FakeSession>) {
    server_that_knows(Owners::default()).await
}

pub(crate) async fn server_that_knows(owners: Owners) -> (String, mpsc::Receiver<FakeSession>) {
    let (url, sessions, _) = server_that_is_asked(owners).await;
    (url, sessions)
}

pub(crate) async fn server_that_is_asked(
    owners: Owners,
) -> (
    String,
    mpsc::Receiver<FakeSession>,
    mpsc::UnboundedReceiver<Option<SocketAddr>>,
) {
    let (asked, questions) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sessions, received) = mpsc::channel(4);
    let service = WorkerServiceServer::new(FakeServer {
        sessions,
        owners,
        asked,
    });
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (url, received, questions)
}
