//! A client sees, names, leases and spends only what is its own.

use reqwest::{Method, StatusCode};
use scheduler_proto::api::admin_service_client::AdminServiceClient;
use scheduler_proto::api::task_service_client::TaskServiceClient;
use scheduler_proto::api::{
    ApplicationRef, ListApplicationsRequest, NewTask, PipelineRef, SubmitRequest, TaskRef,
};
use scheduler_proto::worker::worker_service_client::WorkerServiceClient;
use scheduler_proto::worker::{LocateRequest, PollRequest, ReportRequest};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::worker::LedgerWorker;
use crate::world::{APPLICATION, Pipeline, World, run};

const KEYS: [&str; 4] = [
    "--api-key",
    "alice=alices-secret",
    "--api-key",
    "bob=bobs-secret-key",
];

/// Every request about a pipeline and a task of it.
fn everything_of(hers: &Pipeline, task: &str) -> Vec<(Method, String, Value)> {
    vec![
        (
            Method::GET,
            format!("/api/applications/{APPLICATION}"),
            Value::Null,
        ),
        (
            Method::DELETE,
            format!("/api/applications/{APPLICATION}"),
            Value::Null,
        ),
        (Method::GET, hers.path.clone(), Value::Null),
        (Method::PATCH, hers.path.clone(), json!({"paused": true})),
        (Method::DELETE, hers.path.clone(), Value::Null),
        (Method::POST, hers.path.clone(), json!({"whose": "bob"})),
        (Method::POST, format!("{}/pause", hers.path), Value::Null),
        (Method::POST, format!("{}/resume", hers.path), Value::Null),
        (
            Method::POST,
            format!("{}/scale", hers.path),
            json!({"workers": 1}),
        ),
        (Method::GET, format!("{}/events", hers.path), Value::Null),
        (Method::GET, format!("{}/tasks", hers.path), Value::Null),
        (Method::GET, hers.task_path(task), Value::Null),
        (
            Method::POST,
            format!("{}/cancel", hers.task_path(task)),
            Value::Null,
        ),
        (
            Method::POST,
            format!("{}/retry", hers.task_path(task)),
            Value::Null,
        ),
        (
            Method::GET,
            format!("{}/events", hers.task_path(task)),
            Value::Null,
        ),
        (Method::GET, format!("{}/dead-letters", hers.path), Value::Null),
        (
            Method::POST,
            format!("{}/dead-letters/redrive", hers.path),
            json!({"all": true}),
        ),
        (
            Method::POST,
            format!("{}/dead-letters/purge", hers.path),
            json!({"all": true}),
        ),
    ]
}

#[test]
fn one_client_cannot_reach_anothers_things_over_http() {
    run(async {
        let mut world = World::start_with(&KEYS).await;
        let (alice, bob) = (
            world.api().with_key("alices-secret"),
            world.api().with_key("bobs-secret-key"),
        );
        let hers = Pipeline::create(&alice, "same", json!({})).await;
        let task = hers.submit(json!({"whose": "alice"})).await;

        // Whatever Bob says about Alice's things, it is as if there were none.
        let all = everything_of(&hers, &task);
        let ask = async |api: &scheduler_examples::Api| {
            let mut statuses = Vec::new();
            for (method, path, body) in &all {
                let answer = api.send(method.clone(), path, body).await.unwrap();
                statuses.push((format!("{method} {path}"), answer.status));
            }
            statuses
        };
        for (what, status) in ask(&bob).await {
            assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
        }
        for (what, status) in ask(&world.api())
            .await
            .into_iter()
            .chain(ask(&world.api().with_key("wrong-secret")).await)
        {
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
        }
        assert_eq!(
            bob.get("/api/applications").await.unwrap().ok().unwrap()["items"],
            json!([])
        );

        // The same names are other things, and an id of Alice's is none of Bob's.
        let his = Pipeline::create(&bob, "same", json!({})).await;
        assert_eq!(his.list("", 10).await, [] as [Value; 0]);
        assert_eq!(
            bob.get(&his.task_path(&task)).await.unwrap().status,
            StatusCode::NOT_FOUND
        );
        let cancel = bob
            .post(&format!("{}/cancel", his.task_path(&task)), &json!({}))
            .await
            .unwrap();
        assert_eq!(cancel.status, StatusCode::NOT_FOUND, "{}", cancel.body);
        assert_eq!(hers.task(&task).await["state"], "queued");

        // Each worker gets the tasks of its own client.
        let bobs = LedgerWorker::start_with(&world, &his, "bobs", 4, &["--api-key", "bobs-secret-key"]);
        let his_task = his.submit(json!({"whose": "bob"})).await;
        assert_eq!(his.output(&his_task).await, json!({"whose": "bob"}));
        assert_eq!(hers.task(&task).await["state"], "queued");
        let _alices = LedgerWorker::start_with(&world, &hers, "alices", 4, &["--api-key", "alices-secret"]);
        assert_eq!(hers.output(&task).await, json!({"whose": "alice"}));
        assert_eq!(bobs.ledger().started.len(), 1);
        world.stop().await;
    });
}

#[test]
fn a_key_stays_one_until_it_is_revoked_and_then_is_none_for_good() {
    run(async {
        let mut world = World::start_with(&["--api-key", "alice=alices-secret"]).await;
        let statuses = async |world: &World| {
            let mut statuses = Vec::new();
            for key in ["alices-secret", "alices-second-secret"] {
                // Each node is asked.
                for _ in 0..2 {
                    let api = world.api().with_key(key);
                    statuses.push(api.get("/api/applications").await.unwrap().status.as_u16());
                }
            }
            statuses
        };
        assert_eq!(statuses(&world).await, [200, 200, 401, 401]);
        for (keys, revoked, expected) in [
            ("alice=alices-second-secret", &[][..], [200, 200, 200, 200]),
            (
                "alice=alices-second-secret",
                &["alices-secret"],
                [401, 401, 200, 200],
            ),
            ("alice=alices-second-secret", &[], [401, 401, 200, 200]),
        ] {
            world.stop().await;
            world.give("--api-key", &[keys]);
            world.give("--revoke-api-key", revoked);
            world.restart().await;
            assert_eq!(statuses(&world).await, expected, "{keys} {revoked:?}");
        }
        world.stop().await;
    });
}

fn keyed<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    if !key.is_empty() {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

/// How every kind of call about Alice's pipeline and task ends with this key.
async fn codes(channel: &Channel, key: &str, task: &str) -> Vec<(&'static str, Code)> {
    let (application, pipeline) = (APPLICATION.to_owned(), "same".to_owned());
    let place = PipelineRef {
        application: application.clone(),
        pipeline: pipeline.clone(),
    };
    let reference = TaskRef {
        application: application.clone(),
        pipeline: pipeline.clone(),
        id: task.to_owned(),
    };
    let submit = SubmitRequest {
        application: application.clone(),
        pipeline: pipeline.clone(),
        tasks: vec![NewTask {
            params: "{}".into(),
            ..NewTask::default()
        }],
    };
    let worker_id = vec![7_u8; 16];
    let poll = PollRequest {
        application: application.clone(),
        pipeline: pipeline.clone(),
        worker_id: worker_id.clone().into(),
        limit: 1,
        wait_ms: 0,
    };
    let report = ReportRequest {
        application: application.clone(),
        pipeline: pipeline.clone(),
        worker_id: worker_id.into(),
        reports: Vec::new(),
    };
    let mut tasks = TaskServiceClient::new(channel.clone());
    let mut admin = AdminServiceClient::new(channel.clone());
    let mut workers = WorkerServiceClient::new(channel.clone());
    let code = |status: Option<tonic::Status>| status.map_or(Code::Ok, |status| status.code());
    vec![
        ("submit", code(tasks.submit(keyed(submit, key)).await.err())),
        (
            "cancel",
            code(tasks.cancel_task(keyed(reference.clone(), key)).await.err()),
        ),
        ("retry", code(tasks.retry_task(keyed(reference, key)).await.err())),
        (
            "get",
            code(admin.get_pipeline(keyed(place.clone(), key)).await.err()),
        ),
        (
            "pause",
            code(admin.pause_pipeline(keyed(place.clone(), key)).await.err()),
        ),
        (
            "delete",
            code(admin.delete_pipeline(keyed(place, key)).await.err()),
        ),
        (
            "application",
            code(
                admin
                    .get_application(keyed(ApplicationRef { application }, key))
                    .await
                    .err(),
            ),
        ),
        ("poll", code(workers.poll(keyed(poll, key)).await.err())),
        ("report", code(workers.report(keyed(report, key)).await.err())),
        (
            "locate",
            code(
                workers
                    .locate(keyed(
                        LocateRequest {
                            application: APPLICATION.into(),
                            pipeline,
                        },
                        key,
                    ))
                    .await
                    .err(),
            ),
        ),
    ]
}

#[test]
fn one_client_cannot_reach_anothers_things_over_grpc() {
    run(async {
        let mut world = World::start_with(&KEYS).await;
        let alice = world.api().with_key("alices-secret");
        let hers = Pipeline::create(&alice, "same", json!({})).await;
        let task = hers.submit(json!({})).await;
        let channel = Channel::from_shared(world.grpc().to_owned())
            .unwrap()
            .connect()
            .await
            .unwrap();
        for (what, code) in codes(&channel, "bobs-secret-key", &task).await {
            assert_eq!(code, Code::NotFound, "{what}");
        }
        for key in ["", "wrong-secret"] {
            for (what, code) in codes(&channel, key, &task).await {
                assert_eq!(code, Code::Unauthenticated, "{what}");
            }
        }
        let mut admin = AdminServiceClient::new(channel);
        let seen = admin
            .list_applications(keyed(ListApplicationsRequest {}, "bobs-secret-key"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(seen.applications, []);
        assert_eq!(hers.task(&task).await["state"], "queued");
        assert_eq!(hers.view().await["paused"], false);
        world.stop().await;
    });
}
