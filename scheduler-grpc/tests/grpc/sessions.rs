//! Sessions of workers.

use std::time::Duration;

use scheduler_core::id::{Epoch, Partition};
use scheduler_core::port::gateway::{WorkerCommand, WorkerEvent};
use scheduler_grpc::server::GrpcConfig;
use scheduler_proto::worker as wire;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind;
use scheduler_proto::worker::session_response::Kind as Told;
use scheduler_proto::worker::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::fake::{Server, SessionEnds, lease, request};

pub(crate) fn hello() -> wire::Hello {
    wire::Hello {
        application: "myname".into(),
        pipeline: "ocr".into(),
        worker_id: vec![7; 16].into(),
        name: "w".into(),
        ..wire::Hello::default()
    }
}

pub(crate) fn held(offset: u64) -> wire::LeaseRef {
    wire::LeaseRef {
        partition: 0,
        offset,
        epoch: 1,
        attempt: 1,
    }
}

pub(crate) fn report(offset: u64, outcome: Outcome) -> wire::Report {
    wire::Report {
        r#ref: Some(held(offset)),
        outcome: Some(outcome),
    }
}

struct Worker {
    say: mpsc::Sender<wire::SessionRequest>,
    told: Streaming<wire::SessionResponse>,
}

impl Worker {
    async fn open(server: &Server) -> Self {
        let (say, said) = mpsc::channel(64);
        let mut client = WorkerServiceClient::new(server.channel().await);
        let told = client
            .session(request(ReceiverStream::new(said)))
            .await
            .unwrap()
            .into_inner();
        Self { say, told }
    }

    async fn say(&self, kind: Kind) {
        self.say
            .send(wire::SessionRequest { kind: Some(kind) })
            .await
            .unwrap();
    }

    async fn next(&mut self) -> Told {
        self.told.message().await.unwrap().unwrap().kind.unwrap()
    }

    /// Greets, and takes the welcome.
    async fn greeted(server: &mut Server) -> (Self, SessionEnds) {
        let mut worker = Self::open(server).await;
        worker.say(Kind::Hello(hello())).await;
        let ends = server.sessions.recv().await.unwrap();
        let welcome = worker.next().await;
        assert!(matches!(welcome, Told::Welcome(w) if w.heartbeat_ms == 10_000 && w.definition == "{}"));
        (worker, ends)
    }
}

#[tokio::test]
async fn what_is_said_and_told_passes_through() {
    let mut server = Server::start().await;
    let mut worker = Worker::open(&server).await;
    let introduced = wire::Hello {
        held: vec![held(1)],
        reported: vec![report(2, Outcome::Succeeded("x".into()))],
        ..hello()
    };
    worker.say(Kind::Hello(introduced)).await;
    let mut ends = server.sessions.recv().await.unwrap();
    assert_eq!(ends.hello.worker.0.to_be_bytes(), [7; 16]);
    assert_eq!((ends.hello.held.len(), ends.hello.reported.len()), (1, 1));
    worker.next().await;

    worker.say(Kind::Credit(3)).await;
    assert_eq!(ends.commands.recv().await.unwrap(), [WorkerCommand::Credit(3)]);
    let progress = wire::Progress {
        r#ref: Some(held(4)),
        progress: "50".into(),
    };
    worker.say(Kind::Progress(progress)).await;
    assert!(matches!(
        &ends.commands.recv().await.unwrap()[..],
        [WorkerCommand::Progress { .. }]
    ));

    ends.events
        .send(vec![
            WorkerEvent::Leases(vec![lease(5)]),
            WorkerEvent::Settled {
                partition: Partition(0),
                epoch: Epoch(1),
                count: 9,
            },
            WorkerEvent::Definition("{1}".into()),
            WorkerEvent::Moved(Partition(2)),
            WorkerEvent::GoAway,
        ])
        .unwrap();
    let leases = worker.next().await;
    assert!(
        matches!(leases, Told::Leases(l) if l.leases[0].r#ref == Some(held(5)) && l.leases[0].priority == 4)
    );
    assert!(matches!(worker.next().await, Told::Settled(s) if s.count == 9));
    assert_eq!(worker.next().await, Told::Definition("{1}".into()));
    assert_eq!(worker.next().await, Told::Moved(2));
    assert_eq!(worker.next().await, Told::GoAway(wire::Unit {}));
}

/// While the gateway is busy with one batch, what comes meanwhile grows into the next.
#[tokio::test]
async fn messages_that_wait_travel_in_one_batch() {
    let mut server = Server::start().await;
    let (worker, mut ends) = Worker::greeted(&mut server).await;
    const REPORTS: u64 = 300;
    for offset in 0..REPORTS {
        let reports = vec![report(offset, Outcome::Succeeded("x".into()))];
        worker.say(Kind::Reports(wire::Reports { reports })).await;
    }
    let (mut offsets, mut batches) = (Vec::new(), 0);
    while offsets.len() < usize::try_from(REPORTS).unwrap() {
        let batch = ends.commands.recv().await.unwrap();
        batches += 1;
        for command in batch {
            let WorkerCommand::Reports(reports) = command else {
                panic!("{command:?}")
            };
            offsets.extend(reports.iter().map(|report| report.lease.offset.0));
        }
    }
    assert_eq!(offsets, (0..REPORTS).collect::<Vec<_>>());
    // 300 messages, a gateway that holds one batch and a client that has 64 messages ahead: far fewer batches than messages.
    assert!(batches < REPORTS / 2, "{batches}");
}

#[tokio::test]
async fn events_that_wait_travel_in_one_message() {
    let mut server = Server::start().await;
    let mut worker = Worker::open(&server).await;
    worker.say(Kind::Hello(hello())).await;
    let ends = server.sessions.recv().await.unwrap();
    for offset in 0..100 {
        ends.events
            .send(vec![WorkerEvent::Leases(vec![lease(offset)])])
            .unwrap();
    }
    worker.next().await;
    let (mut leases, mut messages) = (0, 0);
    while leases < 100 {
        let Told::Leases(more) = worker.next().await else {
            panic!()
        };
        leases += more.leases.len();
        messages += 1;
    }
    assert!(messages < 50, "{messages}");
}

#[tokio::test]
async fn a_session_begins_with_a_hello() {
    let server = Server::start().await;
    let mut worker = Worker::open(&server).await;
    worker.say(Kind::Credit(1)).await;
    let status = worker.told.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "hello: must be the first message")
    );
}

#[tokio::test]
async fn a_session_without_a_hello_ends() {
    let config = GrpcConfig {
        hello_timeout: Duration::from_millis(50),
        ..GrpcConfig::default()
    };
    let server = Server::with(config, |_| {}).await;
    let mut worker = Worker::open(&server).await;
    let status = worker.told.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().starts_with("hello: "), "{status:?}");
}

#[tokio::test]
async fn a_malformed_hello_is_refused_by_the_name_of_its_field() {
    let server = Server::start().await;
    let no_ref = wire::Report {
        r#ref: None,
        outcome: Some(Outcome::Failed("x".into())),
    };
    for (field, bad) in [
        (
            "hello.application",
            wire::Hello {
                application: "No".into(),
                ..hello()
            },
        ),
        (
            "hello.pipeline",
            wire::Hello {
                pipeline: String::new(),
                ..hello()
            },
        ),
        (
            "hello.worker_id",
            wire::Hello {
                worker_id: vec![1; 15].into(),
                ..hello()
            },
        ),
        (
            "hello.held[0].attempt",
            wire::Hello {
                held: vec![wire::LeaseRef::default()],
                ..hello()
            },
        ),
        (
            "hello.reported[0].ref",
            wire::Hello {
                reported: vec![no_ref],
                ..hello()
            },
        ),
    ] {
        let mut worker = Worker::open(&server).await;
        worker.say(Kind::Hello(bad)).await;
        let status = worker.told.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("{field}: ")), "{status:?}");
    }
    let mut worker = Worker::open(&server).await;
    worker
        .say(Kind::Hello(wire::Hello {
            pipeline: "none".into(),
            ..hello()
        }))
        .await;
    assert_eq!(worker.told.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_malformed_message_ends_the_session_but_what_came_before_counts() {
    let no_outcome = wire::Report {
        r#ref: Some(held(1)),
        outcome: None,
    };
    let reports = |report| {
        Kind::Reports(wire::Reports {
            reports: vec![report],
        })
    };
    for (field, bad) in [
        ("kind", None),
        ("hello", Some(Kind::Hello(hello()))),
        ("progress.ref", Some(Kind::Progress(wire::Progress::default()))),
        ("reports.reports[0].ref", Some(reports(wire::Report::default()))),
        ("reports.reports[0].outcome", Some(reports(no_outcome))),
    ] {
        let mut server = Server::start().await;
        let (mut worker, mut ends) = Worker::greeted(&mut server).await;
        worker.say(Kind::Credit(5)).await;
        worker.say.send(wire::SessionRequest { kind: bad }).await.unwrap();
        assert_eq!(ends.commands.recv().await.unwrap(), [WorkerCommand::Credit(5)]);
        let status = worker.told.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("{field}: ")), "{status:?}");
        // The session is over for the gateway, too.
        assert_eq!(ends.commands.recv().await, None);
    }
}

#[tokio::test]
async fn a_worker_that_vanishes_ends_its_session() {
    let mut server = Server::start().await;
    let (worker, mut ends) = Worker::greeted(&mut server).await;
    drop(worker);
    assert_eq!(ends.commands.recv().await, None);
}

#[tokio::test]
async fn a_worker_that_has_said_everything_ends_its_session() {
    let mut server = Server::start().await;
    let (mut worker, mut ends) = Worker::greeted(&mut server).await;
    worker.say(Kind::Drain(wire::Unit {})).await;
    drop(worker.say);
    assert_eq!(ends.commands.recv().await.unwrap(), [WorkerCommand::Drain]);
    assert_eq!(worker.told.message().await.unwrap(), None);
    assert_eq!(ends.commands.recv().await, None);
}

#[tokio::test]
async fn a_session_that_the_gateway_ends_ends() {
    let mut server = Server::start().await;
    let (mut worker, ends) = Worker::greeted(&mut server).await;
    drop(ends.events);
    assert_eq!(worker.told.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_session_ends_with_its_deadline() {
    let mut server = Server::start().await;
    let (say, said) = mpsc::channel(1);
    let mut opening = request(ReceiverStream::new(said));
    opening
        .metadata_mut()
        .insert("grpc-timeout", "500m".parse().unwrap());
    say.send(wire::SessionRequest {
        kind: Some(Kind::Hello(hello())),
    })
    .await
    .unwrap();
    let mut told = WorkerServiceClient::new(server.channel().await)
        .session(opening)
        .await
        .unwrap()
        .into_inner();
    let mut ends = server.sessions.recv().await.unwrap();
    told.message().await.unwrap();
    assert_eq!(told.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(ends.commands.recv().await, None);
}

#[tokio::test]
async fn a_stopping_server_lets_sessions_end_and_then_ends_them() {
    let config = GrpcConfig {
        shutdown_grace: Duration::from_millis(100),
        ..GrpcConfig::default()
    };
    let mut server = Server::with(config, |_| {}).await;
    let (mut worker, _ends) = Worker::greeted(&mut server).await;
    server.stop.cancel();
    assert_eq!(worker.told.message().await.unwrap_err().code(), Code::Unavailable);
    (&mut server.running).await.unwrap().unwrap();
}
