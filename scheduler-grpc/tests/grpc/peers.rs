//! Nodes over loopback: what is asked of a peer is what its gateway is asked, and what it answers comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use scheduler_core::id::{Attempt, Epoch, LeaseToken, Offset, Partition, PipelineId, ShardId, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::cluster::{PeerGateway, Peers as _};
use scheduler_core::port::gateway::{
    ApiError, Caller, DeadSelection, HeldLease, NewDeployment, NewPipeline, PageCursor, PipelineChange,
    Report, TaskFilter, TaskState, WorkerCommand, WorkerEvent, WorkerHello,
};
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;
use scheduler_grpc::node::{ClusterSecret, GrpcPeers, PeersConfig};
use scheduler_proto::node::node_service_client::NodeServiceClient;
use tokio::net::TcpListener;

use crate::far::{FarGateway, FarNode, Link, id, lease, name, path};

fn peers() -> GrpcPeers {
    GrpcPeers::new(ClusterSecret::new("secret"), PeersConfig::default())
}

fn held(offset: u64) -> HeldLease {
    HeldLease {
        partition: Partition(3),
        offset: Offset(offset),
        token: LeaseToken {
            epoch: Epoch(7),
            attempt: Attempt(2),
        },
    }
}

fn reports() -> Vec<Report> {
    let outcomes = [
        AttemptOutcome::Succeeded {
            output: Bytes::from_static(b"\xff\x00"),
        },
        AttemptOutcome::Failed { error: "f".into() },
        AttemptOutcome::Rejected { error: "r".into() },
        AttemptOutcome::Returned,
        AttemptOutcome::Stopped,
    ];
    let report = |(offset, outcome)| Report {
        lease: held(offset),
        outcome,
    };
    (0..).zip(outcomes).map(report).collect()
}

fn full_spec() -> TaskSpec {
    TaskSpec {
        params: Bytes::from_static(b"\xf0 params"),
        priority: Priority::MAX,
        options: Some(Box::new(TaskOptions {
            not_before: Some(Timestamp::from_millis(1)),
            deadline: Some(Timestamp::MAX),
            idempotency_key: Some(Bytes::new()),
            traceparent: Some(Bytes::from_static(b"00-1")),
        })),
    }
}

/// Asks everything there is to ask, and writes down the answers.
async fn ask_all(node: &dyn PeerGateway) -> Vec<String> {
    let caller = Caller {
        client: name("tenant"),
    };
    let mut policy = PipelinePolicy::default();
    policy.timeouts.total = Some(Duration::from_nanos(1_000_000_001));
    let new = NewPipeline {
        name: name("ocr"),
        deployment: Some(NewDeployment {
            chart: "c".into(),
            values: Bytes::from_static(b"{}"),
            min_replicas: Some(0),
            max_replicas: None,
        }),
        definition: Some(Bytes::new()),
        partitions: Some(4),
        topic: Some(scheduler_core::port::log::TopicSettings {
            replication: Some(3),
            settings: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        }),
        policy: Some(policy.clone()),
    };
    let bare = NewPipeline {
        deployment: None,
        definition: None,
        partitions: None,
        topic: None,
        policy: None,
        ..new.clone()
    };
    let change = PipelineChange {
        deployment: new.deployment.clone(),
        definition: Some(Bytes::from_static(b"\xff")),
        policy: Some(policy),
        partitions: Some(9),
        paused: Some(false),
        min_replicas: Some(1),
        max_replicas: Some(2),
    };
    let path = &path();
    let filter = TaskFilter {
        states: vec![TaskState::Queued, TaskState::Expired],
        partition: Some(Partition(0)),
    };
    let after = Some(PageCursor {
        partition: Partition(2),
        offset: Offset(u64::MAX),
    });
    let some = DeadSelection::Ids(vec![id(1), id(u64::MAX)]);
    let patience = Duration::from_nanos(1_500_000_001);
    let worker = WorkerId(u128::MAX - 5);

    let watched = match node.watch(path, Some(id(4))).await {
        Ok(stream) => format!("{:?}", stream.collect::<Vec<_>>().await),
        Err(error) => format!("{error:?}"),
    };
    vec![
        format!("{:?}", node.authenticate(Some("key")).await),
        format!("{:?}", node.authenticate(None).await),
        format!("{:?}", node.ready().await),
        format!("{:?}", node.create_application(&caller, name("a")).await),
        format!("{:?}", node.applications(&caller).await),
        format!("{:?}", node.application(&caller, &name("a")).await),
        format!("{:?}", node.delete_application(&caller, &name("a")).await),
        format!("{:?}", node.create_pipeline(&caller, &name("a"), new).await),
        format!("{:?}", node.create_pipeline(&caller, &name("a"), bare).await),
        format!("{:?}", node.pipelines(&caller, &name("a")).await),
        format!("{:?}", node.pipeline(path).await),
        format!("{:?}", node.load(path).await),
        format!("{:?}", node.change_pipeline(path, change).await),
        format!(
            "{:?}",
            node.change_pipeline(path, PipelineChange::default()).await
        ),
        format!("{:?}", node.scale_pipeline(path, 3).await),
        format!("{:?}", node.delete_pipeline(path).await),
        format!(
            "{:?}",
            node.submit(path, vec![full_spec(), TaskSpec::new("")]).await
        ),
        format!("{:?}", node.task(path, id(1)).await),
        format!("{:?}", node.wait(path, id(1), patience).await),
        format!("{:?}", node.tasks(path, &filter, after, 7).await),
        format!(
            "{:?}",
            node.tasks(path, &TaskFilter::default(), None, usize::MAX).await
        ),
        watched,
        format!("{:?}", node.cancel(path, id(1)).await),
        format!("{:?}", node.retry(path, id(1)).await),
        format!("{:?}", node.dead(path, after, 3).await),
        format!("{:?}", node.redrive(path, DeadSelection::All).await),
        format!("{:?}", node.redrive(path, some.clone()).await),
        format!("{:?}", node.purge(path, some).await),
        format!("{:?}", node.poll(path, worker, 5, patience).await),
        format!("{:?}", node.report(path, worker, reports()).await),
        format!("{:?}", node.extend(path, worker, vec![held(1), held(2)]).await),
        format!("{:?}", node.locate(path).await),
        format!("{:?}", node.flush(path).await),
        format!("{:?}", node.busy(path).await),
        format!("{:?}", node.refresh().await),
    ]
}

#[tokio::test]
async fn every_call_arrives_as_it_was_made_and_every_answer_comes_back_equal() {
    let near = FarGateway::default();
    let answers = ask_all(&near).await;

    let node = FarNode::start("secret").await;
    let remote = peers().at(&node.address);
    assert_eq!(ask_all(&*remote).await, answers);
    assert_eq!(node.far.calls(), near.calls());
}

#[tokio::test]
async fn every_error_comes_back_equal() {
    let errors: [fn() -> ApiError; 9] = [
        || ApiError::invalid("tasks[3].params", "must be JSON"),
        || ApiError::not_found("dead letter", "t1-0-1"),
        || ApiError::Conflict("paused".into()),
        || ApiError::Unauthenticated("who?".into()),
        || ApiError::Forbidden("no".into()),
        || ApiError::Overloaded {
            problem: "much".into(),
            retry_after: Duration::from_nanos(7),
        },
        || ApiError::Unavailable {
            problem: "away".into(),
            retry_after: Duration::from_millis(250),
            source: Some("cause".into()),
        },
        || ApiError::Elsewhere(ShardId::new(PipelineId(3), Partition(4))),
        || ApiError::Internal("broken".into()),
    ];
    let node = FarNode::start("secret").await;
    let remote = peers().at(&node.address);
    for error in errors {
        *node.far.fails.lock().unwrap() = Some(error);
        let near = FarGateway::default();
        *near.fails.lock().unwrap() = Some(error);
        let expected: Vec<String> = ask_all(&near).await;
        let expected: Vec<String> = expected
            .into_iter()
            // Of an internal error it is said whose it is.
            .map(|text| text.replace("\"broken\"", &format!("\"node {}: broken\"", node.address)))
            .collect();
        assert_eq!(ask_all(&*remote).await, expected);
        let hello = WorkerHello {
            worker: WorkerId(1),
            name: "w".into(),
            held: Vec::new(),
            reported: Vec::new(),
            shares: false,
            number: 0,
        };
        let refused = remote.attach(&path(), hello).await.unwrap_err();
        assert_eq!(
            std::mem::discriminant(&refused),
            std::mem::discriminant(&error()),
            "{refused:?}"
        );
    }
}

fn hello() -> WorkerHello {
    WorkerHello {
        worker: WorkerId(77),
        name: "w".into(),
        held: vec![held(1)],
        reported: reports(),
        shares: true,
        number: 0,
    }
}

fn everything_said() -> Vec<WorkerCommand> {
    vec![
        WorkerCommand::Credit(1),
        WorkerCommand::Credit(2),
        WorkerCommand::Reports(reports()),
        WorkerCommand::Alive,
        WorkerCommand::Progress {
            lease: held(4),
            progress: Bytes::from_static(b"50"),
        },
        WorkerCommand::Recall,
        WorkerCommand::Drain,
    ]
}

fn everything_told() -> Vec<WorkerEvent> {
    vec![
        WorkerEvent::Leases(vec![lease(1, full_spec()), lease(2, TaskSpec::new("{}"))]),
        WorkerEvent::Settled {
            partition: Partition(1),
            epoch: Epoch(2),
            count: u64::MAX,
        },
        WorkerEvent::Stop(vec![held(9)]),
        WorkerEvent::Definition(Bytes::from_static(b"\xff")),
        WorkerEvent::Moved(Partition(5)),
        WorkerEvent::GoAway,
        WorkerEvent::Waiting(true),
        WorkerEvent::Waiting(false),
        WorkerEvent::Recalled(6),
    ]
}

#[tokio::test]
async fn a_session_carries_everything_both_ways_until_either_side_ends_it() {
    let mut node = FarNode::start("secret").await;
    let remote = peers().at(&node.address);
    let mut session = remote.attach(&path(), hello()).await.unwrap();
    let mut far = node.sessions.recv().await.unwrap();
    assert_eq!(far.hello, hello());
    assert_eq!(session.definition, Bytes::from_static(b"\xffdefinition"));
    assert_eq!(session.heartbeat, Duration::from_nanos(2_500_000_003));

    session.commands.send(everything_said()).await.unwrap();
    assert_eq!(far.commands.recv().await.unwrap(), everything_said());
    far.events.send(everything_told()).unwrap();
    assert_eq!(session.events.next().await.unwrap(), everything_told());

    // A batch larger than a message arrives in order, in parts.
    let large = |n: u64| Report {
        lease: held(n),
        outcome: AttemptOutcome::Succeeded {
            output: vec![b'x'; 3 << 20].into(),
        },
    };
    let sent: Vec<Report> = (0..8).map(large).collect();
    session
        .commands
        .send(vec![WorkerCommand::Reports(sent.clone())])
        .await
        .unwrap();
    let mut arrived = Vec::new();
    while arrived.len() < sent.len() {
        for command in far.commands.recv().await.unwrap() {
            let WorkerCommand::Reports(reports) = command else {
                panic!("{command:?}")
            };
            arrived.extend(reports);
        }
    }
    assert_eq!(arrived, sent);

    // The worker's side lets go: the far session ends.
    drop(session.commands);
    assert_eq!(far.commands.recv().await, None);
    assert_eq!(session.events.next().await, None);

    // The far gateway ends it: so it is here.
    let mut session = remote.attach(&path(), hello()).await.unwrap();
    let far = node.sessions.recv().await.unwrap();
    drop(far.events);
    assert_eq!(session.events.next().await, None);

    // The far gateway takes no more: what it says reaches whoever speaks.
    let mut session = remote.attach(&path(), hello()).await.unwrap();
    let far = node.sessions.recv().await.unwrap();
    drop(far.commands);
    let _ = session.commands.send(vec![WorkerCommand::Alive]).await;
    assert_eq!(session.events.next().await, None);
    let said = loop {
        if let Err(error) = session.commands.send(vec![WorkerCommand::Alive]).await {
            break error;
        }
    };
    assert!(matches!(said, ApiError::Conflict(_)), "{said:?}");
}

#[tokio::test]
async fn who_does_not_know_the_secret_is_no_node() {
    let mut node = FarNode::start("secret").await;
    let stranger = GrpcPeers::new(ClusterSecret::new("guess"), PeersConfig::default()).at(&node.address);
    for answer in ask_all(&*stranger).await {
        assert!(answer.contains("Unavailable"), "{answer}");
        assert!(answer.contains("another cluster secret"), "{answer}");
    }
    assert!(stranger.attach(&path(), hello()).await.is_err());

    // A client with a good key is no node either, whatever it says of itself.
    let mut client = NodeServiceClient::connect(node.address.clone()).await.unwrap();
    for (key, value) in [
        ("authorization", "Bearer good"),
        ("x-scheduler-node", "secret"),
        ("x-scheduler-node", ""),
    ] {
        let mut request = tonic::Request::new(scheduler_proto::node::Nothing {});
        request.metadata_mut().insert(key, value.parse().unwrap());
        let status = client.ready(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }
    assert_eq!(node.far.calls(), Vec::<String>::new());
    assert!(node.sessions.try_recv().is_err());
}

#[tokio::test]
async fn a_server_without_a_cluster_takes_no_calls_of_nodes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (far, _sessions) = FarGateway::new();
    let server = scheduler_grpc::server::GrpcServer::new(Arc::new(far));
    let running = tokio::spawn(server.serve(listener, std::future::pending()));
    let answer = peers().at(&address).ready().await.unwrap_err();
    assert!(
        matches!(&answer, ApiError::Unavailable { problem, .. } if problem.ends_with("takes no calls of nodes")),
        "{answer:?}"
    );
    running.abort();
}

#[tokio::test]
async fn a_dead_address_is_unavailable_and_comes_back_when_its_node_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    drop(listener);
    let address = format!("http://{port}");
    let peers = peers();
    let remote = peers.at(&address);
    for _ in 0..2 {
        let answer = remote.ready().await.unwrap_err();
        assert!(matches!(answer, ApiError::Unavailable { .. }), "{answer:?}");
    }
    assert!(remote.attach(&path(), hello()).await.is_err());
    let _node = FarNode::on(TcpListener::bind(port).await.unwrap(), "secret");
    remote.ready().await.unwrap();

    for wrong in ["", "no address", "https://127.0.0.1:1", "127.0.0.1:50051"] {
        let answer = peers.at(wrong).ready().await.unwrap_err();
        assert!(
            matches!(answer, ApiError::Unavailable { .. }),
            "{wrong}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_node_that_is_silent_is_given_up() {
    // It takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    let config = PeersConfig {
        connect_timeout: Duration::from_millis(100),
        call_timeout: Duration::from_millis(100),
        save_timeout: Duration::from_millis(200),
        ..PeersConfig::default()
    };
    let remote = GrpcPeers::new(ClusterSecret::new("secret"), config).at(&address);
    assert!(matches!(remote.ready().await, Err(ApiError::Unavailable { .. })));
    assert!(matches!(
        remote.flush(&path()).await,
        Err(ApiError::Unavailable { .. })
    ));
    let refused = remote.attach(&path(), hello()).await;
    assert!(matches!(refused, Err(ApiError::Unavailable { .. })));
    held.abort();
}

#[tokio::test]
async fn streams_end_when_their_connection_is_cut() {
    let mut node = FarNode::start("secret").await;
    let link = Link::to(&node.address).await;
    let remote = peers().at(&link.address);
    let mut session = remote.attach(&path(), hello()).await.unwrap();
    let mut far = node.sessions.recv().await.unwrap();
    let mut watch = remote.watch(&path(), None).await.unwrap();
    assert!(watch.next().await.is_some());
    link.cut();
    assert_eq!(session.events.next().await, None);
    assert!(watch.next().await.is_none());
    assert_eq!(far.commands.recv().await, None);
    // The next call makes a connection of its own.
    remote.ready().await.unwrap();
}

#[tokio::test]
async fn hundreds_of_sessions_do_not_hold_calls_up() {
    let mut node = FarNode::start("secret").await;
    let remote = peers().at(&node.address);
    let mut sessions = Vec::new();
    for _ in 0..1200 {
        sessions.push(remote.attach(&path(), hello()).await.unwrap());
        node.sessions.recv().await.unwrap();
    }
    remote.ready().await.unwrap();
}
