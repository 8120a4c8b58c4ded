//! What a worker says without a session, and what anybody may ask a server: health, reflection.

use std::time::Duration;

use scheduler_core::outcome::AttemptOutcome;
use scheduler_grpc::server::GrpcConfig;
use scheduler_proto::worker as wire;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::worker_service_client::WorkerServiceClient;
use tonic::Code;

use crate::fake::{Server, request};
use crate::sessions::{held, hello, report};

#[tokio::test]
async fn a_worker_without_a_session_polls_reports_and_extends() {
    let server = Server::start().await;
    let mut client = WorkerServiceClient::new(server.channel().await);
    let (application, pipeline, worker_id) = (String::from("myname"), String::from("ocr"), hello().worker_id);
    let poll = wire::PollRequest {
        application: application.clone(),
        pipeline: pipeline.clone(),
        worker_id: worker_id.clone(),
        limit: 0,
        wait_ms: 200,
    };
    let answer = client.poll(request(poll.clone())).await.unwrap().into_inner();
    assert_eq!(
        (answer.heartbeat_ms, &answer.definition[..]),
        (10_000, &b"{}"[..])
    );
    assert_eq!(answer.leases[0].r#ref, Some(held(3)));

    let reports = vec![
        report(3, Outcome::Succeeded("x".into())),
        report(4, Outcome::Rejected("no".into())),
    ];
    let said = wire::ReportRequest {
        application: application.clone(),
        pipeline: pipeline.clone(),
        worker_id: worker_id.clone(),
        reports,
    };
    assert_eq!(
        client
            .report(request(said.clone()))
            .await
            .unwrap()
            .into_inner()
            .taken,
        [true, false]
    );
    let kept = server.fake.reports.lock().unwrap().clone();
    assert_eq!(kept[1].outcome, AttemptOutcome::Rejected { error: "no".into() });

    let alive = wire::ExtendRequest {
        application: application.clone(),
        pipeline: pipeline.clone(),
        worker_id: worker_id.clone(),
        refs: vec![held(3), held(4)],
    };
    assert_eq!(
        client
            .extend(request(alive.clone()))
            .await
            .unwrap()
            .into_inner()
            .held,
        [true, false]
    );
    let where_is = wire::LocateRequest {
        application,
        pipeline,
    };
    let located = client
        .locate(request(where_is.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(located.locations[0].address, "127.0.0.1:1");

    macro_rules! refused {
        ($rpc:ident($message:expr), $field:expr) => {
            let status = client.$rpc(request($message)).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(
                status.message().starts_with(concat!($field, ": ")),
                "{status:?}"
            );
        };
    }
    refused!(
        poll(wire::PollRequest {
            worker_id: vec![].into(),
            ..poll.clone()
        }),
        "worker_id"
    );
    refused!(
        poll(wire::PollRequest {
            limit: 1001,
            ..poll.clone()
        }),
        "limit"
    );
    refused!(
        poll(wire::PollRequest {
            wait_ms: 60_001,
            ..poll.clone()
        }),
        "wait_ms"
    );
    refused!(
        report(wire::ReportRequest {
            reports: vec![wire::Report::default()],
            ..said
        }),
        "reports[0].ref"
    );
    refused!(
        extend(wire::ExtendRequest {
            refs: vec![wire::LeaseRef::default()],
            ..alive
        }),
        "refs[0].attempt"
    );
    refused!(
        locate(wire::LocateRequest {
            pipeline: "?".into(),
            ..where_is
        }),
        "pipeline"
    );

    // A poll waits no longer than its caller does.
    let mut hurried = request(wire::PollRequest {
        wait_ms: 60_000,
        ..poll
    });
    hurried.set_timeout(Duration::from_secs(20));
    client.poll(hurried).await.unwrap();
    let patience = *server.fake.patiences.lock().unwrap().last().unwrap();
    assert!(
        patience < Duration::from_secs(20) && patience > Duration::ZERO,
        "{patience:?}"
    );
}

#[tokio::test]
async fn health_follows_readiness_and_reflection_knows_the_services() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let config = GrpcConfig {
        health_interval: Duration::from_millis(10),
        ..GrpcConfig::default()
    };
    let server = Server::with(config, |_| {}).await;
    let mut health = HealthClient::new(server.channel().await);
    let node = HealthCheckRequest {
        service: String::new(),
    };
    let mut changes = health.watch(node.clone()).await.unwrap().into_inner();
    assert_eq!(
        changes.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    server.fake.ready.send_replace(false);
    assert_eq!(
        changes.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    let now = health.check(node).await.unwrap().into_inner();
    assert_eq!(now.status(), ServingStatus::NotServing);
    let unknown = HealthCheckRequest {
        service: "nobody".into(),
    };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let question = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(server.channel().await)
        .server_reflection_info(futures::stream::iter([question]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in [
        "scheduler.worker.v1.WorkerService",
        "scheduler.api.v1.TaskService",
        "scheduler.api.v1.AdminService",
    ] {
        assert!(names.iter().any(|name| name == service), "{names:?}");
    }
}
