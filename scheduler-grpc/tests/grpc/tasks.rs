//! Tasks and administration, with the client and with bare requests.

use std::time::Duration;

use scheduler_grpc::client::{
    Client, ClientConfig, CreatePipelineRequest, DeadLetters, NewTask, PipelineRef, TaskQuery, TaskState,
    UpdatePipelineRequest,
};
use scheduler_grpc::server::GrpcConfig;
use scheduler_proto::api as wire;
use scheduler_proto::api::task_service_client::TaskServiceClient;
use tonic::Code;

use crate::fake::{Server, id, request};

fn ocr() -> PipelineRef {
    pipeline("myname", "ocr")
}

pub(crate) fn pipeline(application: &str, pipeline: &str) -> PipelineRef {
    PipelineRef {
        application: application.into(),
        pipeline: pipeline.into(),
    }
}

async fn client_with(server: &Server, config: ClientConfig) -> Client {
    Client::connect(server.address.clone(), config).await.unwrap()
}

async fn client(server: &Server) -> Client {
    let api_key = Some("good".into());
    client_with(
        server,
        ClientConfig {
            api_key,
            ..ClientConfig::default()
        },
    )
    .await
}

#[tokio::test]
async fn a_task_goes_in_and_is_seen() {
    let server = Server::start().await;
    let client = client(&server).await;
    let task = NewTask::json("{}")
        .priority(9)
        .not_before_ms(5)
        .idempotency_key("k");
    let submitted = client.submit(&ocr(), task).await.unwrap();
    assert_eq!(submitted, id(0).to_string());

    let spec = server.fake.submitted.lock().unwrap()[0].clone();
    assert_eq!((spec.priority.level(), &spec.params[..]), (9, &b"{}"[..]));
    let options = spec.options.unwrap();
    assert_eq!(options.not_before.unwrap().as_millis(), 5);
    assert_eq!(options.idempotency_key.as_deref(), Some(&b"k"[..]));

    let task = client.task(&ocr(), &submitted).await.unwrap();
    assert_eq!((task.state(), task.priority), (TaskState::Queued, Some(9)));
    assert_eq!(
        client.cancel(&ocr(), &submitted).await.unwrap().state(),
        TaskState::Cancelled
    );
    client.retry(&ocr(), &submitted).await.unwrap();
    let mut events = client.watch(&ocr(), Some(&submitted)).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().id, submitted);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let server = Server::start().await;
    let client = client(&server).await;
    client
        .submit_batch(&ocr(), vec![NewTask::json("{}"); 5])
        .await
        .unwrap();
    let mut query = TaskQuery {
        limit: 2,
        ..TaskQuery::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = client.list(&ocr(), query.clone()).await.unwrap();
        seen.extend(page.tasks.into_iter().map(|task| task.id));
        if page.next_cursor.is_empty() {
            break;
        }
        query.cursor = page.next_cursor;
    }
    let wanted: Vec<_> = (0..5).rev().map(|offset| id(offset).to_string()).collect();
    assert_eq!(seen, wanted);

    let states = vec![TaskState::Dead];
    let none = client
        .list(
            &ocr(),
            TaskQuery {
                states,
                ..TaskQuery::default()
            },
        )
        .await;
    assert_eq!(none.unwrap().tasks, []);
}

#[tokio::test]
async fn dead_letters_are_listed_redriven_and_purged() {
    let server = Server::start().await;
    let client = client(&server).await;
    let dead = client
        .dead_letters(&ocr(), TaskQuery::default())
        .await
        .unwrap()
        .tasks;
    assert_eq!(
        (dead[0].dead_reason.as_str(), dead[0].error.as_str()),
        ("rejected", "not a picture")
    );
    let one = DeadLetters::Ids(vec![dead[0].id.clone()]);
    assert_eq!(client.redrive(&ocr(), one).await.unwrap(), 1);
    assert_eq!(client.purge(&ocr(), DeadLetters::All).await.unwrap(), 42);
}

#[tokio::test]
async fn batches_of_a_stream_are_answered_in_order_and_bounded() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let server = Server::with(GrpcConfig::default(), |fake| fake.gate = Some(gate.clone())).await;
    let config = ClientConfig {
        api_key: Some("good".into()),
        submit_in_flight: 2,
        ..ClientConfig::default()
    };
    let mut submitter = client_with(&server, config)
        .await
        .submitter(&ocr())
        .await
        .unwrap();
    let first = submitter.send(vec![NewTask::json("{}"); 2]).await.unwrap();
    let second = submitter.send(vec![NewTask::json("{}")]).await.unwrap();
    // A third has no room until an answer has come.
    {
        let third = submitter.send(vec![NewTask::json("{}")]);
        tokio::pin!(third);
        assert!(futures::poll!(third.as_mut()).is_pending());
        gate.add_permits(2);
        third.await.unwrap();
    }
    assert_eq!(first.ids().await.unwrap(), [id(0).to_string(), id(1).to_string()]);
    assert_eq!(second.ids().await.unwrap(), [id(2).to_string()]);
}

#[tokio::test]
async fn a_refused_batch_ends_its_stream_and_says_why() {
    let server = Server::start().await;
    let mut submitter = client(&server).await.submitter(&ocr()).await.unwrap();
    let good = submitter.send(vec![NewTask::json("{}")]).await.unwrap();
    let bad = vec![NewTask::json("{}"), NewTask::json("bad")];
    let bad = submitter.send(bad).await.unwrap();
    assert_eq!(good.ids().await.unwrap().len(), 1);
    let error = bad.ids().await.unwrap_err();
    assert_eq!(
        (error.code(), error.field()),
        (Code::InvalidArgument, Some("tasks[1].params"))
    );
    let later = submitter.send(vec![NewTask::json("{}")]).await.unwrap_err();
    assert_eq!(later.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_took_and_says_so() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let server = Server::with(GrpcConfig::default(), |fake| fake.gate = Some(gate.clone())).await;
    let mut submitter = client(&server).await.submitter(&ocr()).await.unwrap();
    let taken = submitter.send(vec![NewTask::json("{}")]).await.unwrap();
    // The gateway has it once the gate is waited for; a permit that comes later lets it through.
    server.fake.entered.notified().await;
    server.stop.cancel();
    gate.add_permits(1);
    assert_eq!(taken.ids().await.unwrap().len(), 1);
    let later = loop {
        match submitter.send(vec![NewTask::json("{}")]).await {
            Ok(receipt) => match receipt.ids().await {
                Ok(_) => gate.add_permits(1),
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert_eq!(later.code(), Code::Unavailable);
}

#[tokio::test]
async fn applications_and_pipelines_are_managed() {
    let server = Server::start().await;
    let client = client(&server).await;
    assert_eq!(client.create_application("other").await.unwrap().name, "other");
    let taken = client.create_application("myname").await.unwrap_err();
    assert_eq!(taken.code(), Code::FailedPrecondition);
    assert_eq!(client.applications().await.unwrap().len(), 1);
    assert_eq!(client.pipelines("myname").await.unwrap().len(), 1);
    client.delete_application("myname").await.unwrap_err();

    let new = CreatePipelineRequest {
        application: "myname".into(),
        name: "ocr".into(),
        chart: "/charts/ocr".into(),
        max_replicas: Some(2),
        ..CreatePipelineRequest::default()
    };
    assert_eq!(client.create_pipeline(new).await.unwrap().chart, "/charts/ocr");
    let created = server.fake.created.lock().unwrap()[0].clone();
    assert_eq!(created.deployment.unwrap().max_replicas, Some(2));
    assert_eq!((created.definition, created.policy), (None, None));

    assert!(client.pause(&ocr()).await.unwrap().paused);
    assert!(!client.resume(&ocr()).await.unwrap().paused);
    client.scale(&ocr(), 3).await.unwrap();
    assert_eq!(
        client.scale(&ocr(), 4).await.unwrap_err().field(),
        Some("workers")
    );

    // A new chart keeps the values; what is not said about the policy stays.
    let change = UpdatePipelineRequest {
        application: "myname".into(),
        name: "ocr".into(),
        chart: Some("/charts/new".into()),
        policy: Some(wire::Policy {
            max_attempts: Some(9),
            ..wire::Policy::default()
        }),
        ..UpdatePipelineRequest::default()
    };
    client.update_pipeline(change).await.unwrap();
    let change = server.fake.changes.lock().unwrap().last().cloned().unwrap();
    let deployment = change.deployment.unwrap();
    assert_eq!(
        (deployment.chart.as_str(), &deployment.values[..]),
        ("/charts/new", &b"{\"a\":1}"[..])
    );
    assert_eq!(change.policy.unwrap().retry.max_attempts, 9);
    client.delete_pipeline(&ocr()).await.unwrap();
    assert_eq!(
        client
            .pipeline(&pipeline("myname", "no"))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_wait_is_a_little_shorter_than_the_callers_deadline() {
    let server = Server::start().await;
    client(&server)
        .await
        .submit(&ocr(), NewTask::json("{}"))
        .await
        .unwrap();
    let mut tasks = TaskServiceClient::new(server.channel().await);
    let wait = |wait_ms| wire::GetTaskRequest {
        task: Some(wire::TaskRef {
            application: "myname".into(),
            pipeline: "ocr".into(),
            id: id(0).to_string(),
        }),
        wait_ms,
    };
    let mut hurried = request(wait(60_000));
    hurried.set_timeout(Duration::from_secs(20));
    tasks.get_task(hurried).await.unwrap();
    tasks.get_task(request(wait(1_500))).await.unwrap();

    let patiences = server.fake.patiences.lock().unwrap().clone();
    assert!(patiences[0] < Duration::from_secs(20), "{patiences:?}");
    assert!(patiences[0] > Duration::ZERO, "{patiences:?}");
    assert_eq!(patiences[1], Duration::from_millis(1_500));

    let status = tasks.get_task(request(wait(60_001))).await.unwrap_err();
    assert_eq!(status.message(), "wait_ms: must be at most 60000");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_unread() {
    let config = GrpcConfig {
        max_message_bytes: 1000,
        ..GrpcConfig::default()
    };
    let server = Server::with(config, |_| {}).await;
    let client = client(&server).await;
    let error = client
        .submit(&ocr(), NewTask::json(vec![b'x'; 1001]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");
    client
        .submit(&ocr(), NewTask::json(vec![b'x'; 500]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_its_deadline() {
    let server = Server::start().await;
    let mut tasks = TaskServiceClient::new(server.channel().await);
    let mut watch = request(wire::WatchTasksRequest {
        application: "myname".into(),
        pipeline: "ocr".into(),
        id: String::new(),
    });
    // The server's own clock counts: the client's is not asked.
    watch
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let mut events = tasks.watch_tasks(watch).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_key_is_wanted_and_must_be_known() {
    let server = Server::start().await;
    for api_key in [None, Some("wrong".to_owned())] {
        let client = client_with(
            &server,
            ClientConfig {
                api_key,
                ..ClientConfig::default()
            },
        )
        .await;
        let error = client.submit(&ocr(), NewTask::json("{}")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        assert_eq!(
            client.submitter(&ocr()).await.err().map(|e| e.code()),
            Some(Code::Unauthenticated)
        );
    }
    let bad = ClientConfig {
        api_key: Some("line\nbreak".into()),
        ..ClientConfig::default()
    };
    let error = Client::connect(server.address.clone(), bad).await.unwrap_err();
    assert!(error.to_string().starts_with("api_key: "));
    for address in ["https://127.0.0.1:50050", "127.0.0.1:50050"] {
        let error = Client::connect(address, ClientConfig::default())
            .await
            .unwrap_err();
        assert!(
            error.to_string().starts_with("address: must be http://host:port"),
            "{error}"
        );
    }
}
