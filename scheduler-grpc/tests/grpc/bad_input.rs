//! Bad input for every call: the status names the field.

use scheduler_grpc::client::{CreatePipelineRequest, UpdatePipelineRequest};
use scheduler_proto::api as wire;
use scheduler_proto::api::admin_service_client::AdminServiceClient;
use scheduler_proto::api::task_service_client::TaskServiceClient;
use tonic::Code;

use crate::fake::{Server, request};
use crate::tasks::pipeline;

/// Every rpc with something wrong in it: the status names the field.
#[tokio::test]
async fn bad_input_is_refused_by_the_name_of_its_field() {
    let server = Server::start().await;
    let mut tasks = TaskServiceClient::new(server.channel().await);
    let mut admin = AdminServiceClient::new(server.channel().await);
    let (app, pipe) = ("myname".to_owned(), "ocr".to_owned());
    let submit = |tasks: Vec<wire::NewTask>| wire::SubmitRequest {
        application: "myname".into(),
        pipeline: "ocr".into(),
        tasks,
    };
    let task_ref = |id: &str| wire::TaskRef {
        application: "myname".into(),
        pipeline: "ocr".into(),
        id: id.into(),
    };
    let plain = wire::NewTask::default;
    let selection = wire::DeadLetterSelection {
        application: app.clone(),
        pipeline: pipe.clone(),
        ..Default::default()
    };
    let list = wire::ListTasksRequest {
        application: app.clone(),
        pipeline: pipe.clone(),
        ..Default::default()
    };
    let new = CreatePipelineRequest {
        application: app.clone(),
        name: pipe.clone(),
        ..Default::default()
    };

    macro_rules! refused {
        ($client:ident.$rpc:ident($message:expr), $field:expr) => {
            let status = $client
                .$rpc(request($message))
                .await
                .map(|_| ())
                .unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(
                status.message().starts_with(concat!($field, ": ")),
                "{status:?}"
            );
        };
    }
    refused!(tasks.submit(submit(vec![])), "tasks");
    refused!(tasks.submit(submit(vec![plain(); 10_001])), "tasks");
    refused!(
        tasks.submit(submit(vec![
            plain(),
            wire::NewTask {
                priority: Some(10),
                ..plain()
            }
        ])),
        "tasks[1].priority"
    );
    refused!(
        tasks.submit(wire::SubmitRequest {
            application: "A".into(),
            ..submit(vec![plain()])
        }),
        "application"
    );
    refused!(
        tasks.submit(wire::SubmitRequest {
            pipeline: "-".into(),
            ..submit(vec![plain()])
        }),
        "pipeline"
    );
    refused!(tasks.get_task(wire::GetTaskRequest::default()), "application");
    refused!(
        tasks.get_task(wire::GetTaskRequest {
            task: Some(task_ref("x")),
            wait_ms: 0
        }),
        "id"
    );
    refused!(tasks.cancel_task(task_ref("")), "id");
    refused!(tasks.retry_task(task_ref("t1")), "id");
    refused!(
        tasks.list_tasks(wire::ListTasksRequest {
            cursor: "1".into(),
            ..list.clone()
        }),
        "cursor"
    );
    refused!(
        tasks.list_tasks(wire::ListTasksRequest {
            limit: 1001,
            ..list.clone()
        }),
        "limit"
    );
    refused!(
        tasks.list_tasks(wire::ListTasksRequest {
            states: vec![0],
            ..list.clone()
        }),
        "states[0]"
    );
    refused!(
        tasks.list_tasks(wire::ListTasksRequest {
            states: vec![1, 99],
            ..list.clone()
        }),
        "states[1]"
    );
    refused!(
        tasks.watch_tasks(wire::WatchTasksRequest {
            application: app.clone(),
            pipeline: pipe.clone(),
            id: "x".into()
        }),
        "id"
    );
    refused!(
        tasks.list_dead_letters(wire::ListDeadLettersRequest {
            application: app.clone(),
            pipeline: pipe.clone(),
            cursor: "x.y".into(),
            limit: 0
        }),
        "cursor"
    );
    refused!(tasks.redrive_dead_letters(selection.clone()), "ids");
    refused!(
        tasks.purge_dead_letters(wire::DeadLetterSelection {
            ids: vec!["t1-0-1".into()],
            all: true,
            ..selection.clone()
        }),
        "all"
    );
    refused!(
        tasks.purge_dead_letters(wire::DeadLetterSelection {
            ids: vec!["t1-0-1".into(), "?".into()],
            ..selection
        }),
        "ids[1]"
    );
    refused!(
        admin.create_application(wire::ApplicationRef {
            application: "No".into()
        }),
        "application"
    );
    refused!(
        admin.get_application(wire::ApplicationRef {
            application: String::new()
        }),
        "application"
    );
    refused!(
        admin.delete_application(wire::ApplicationRef {
            application: "a_b".into()
        }),
        "application"
    );
    refused!(
        admin.list_pipelines(wire::ApplicationRef {
            application: "a/b".into()
        }),
        "application"
    );
    refused!(
        admin.create_pipeline(CreatePipelineRequest {
            name: "No".into(),
            ..new.clone()
        }),
        "name"
    );
    refused!(
        admin.create_pipeline(CreatePipelineRequest {
            max_replicas: Some(1),
            ..new.clone()
        }),
        "max_replicas"
    );
    refused!(
        admin.create_pipeline(CreatePipelineRequest {
            policy: Some(wire::Policy {
                max_attempts: Some(0),
                ..Default::default()
            }),
            ..new
        }),
        "policy.max_attempts"
    );
    refused!(
        admin.update_pipeline(UpdatePipelineRequest {
            application: app.clone(),
            name: pipe.clone(),
            chart: Some(String::new()),
            ..Default::default()
        }),
        "chart"
    );
    refused!(admin.get_pipeline(pipeline("myname", "O")), "pipeline");
    refused!(admin.pause_pipeline(pipeline("", "ocr")), "application");
    refused!(admin.resume_pipeline(pipeline("", "ocr")), "application");
    refused!(admin.delete_pipeline(pipeline("myname", "")), "pipeline");
    refused!(
        admin.scale_pipeline(wire::ScalePipelineRequest {
            application: app,
            pipeline: String::new(),
            workers: 1
        }),
        "pipeline"
    );
}
