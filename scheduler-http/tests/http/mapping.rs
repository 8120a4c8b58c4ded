//! What each endpoint asks of the gateway, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use scheduler_core::id::{Offset, Partition};
use scheduler_core::name::PipelinePath;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{
    DeadSelection, NewDeployment, NewPipeline, PageCursor, PipelineChange, TaskFilter, TaskState,
};
use scheduler_core::port::log::TopicSettings;
use scheduler_core::task::{Priority, TaskSpec};
use serde_json::json;

use crate::client::{OCR, World};
use crate::fake::{Call, id};

fn ocr() -> PipelinePath {
    PipelinePath {
        client: "me".parse().unwrap(),
        application: "myname".parse().unwrap(),
        pipeline: "ocr".parse().unwrap(),
    }
}

#[tokio::test]
async fn applications_are_created_listed_and_deleted() {
    let world = World::new();
    let created = world.post("/api/applications", r#"{"name":"myname"}"#).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(created.header("location"), "/api/applications/myname");
    let body = json!({"name": "myname", "created_at": "1970-01-01T00:00:01.000Z"});
    assert_eq!(created.json(), body);
    assert_eq!(world.get("/api/applications/myname").await.json(), body);
    assert_eq!(
        world.get("/api/applications").await.json()["items"][0]["name"],
        "ocr"
    );
    let deleted = world.call(Method::DELETE, "/api/applications/myname").await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    let name: scheduler_core::name::Name = "myname".parse().unwrap();
    assert_eq!(
        world.gateway.take_calls(),
        [
            Call::CreateApplication("me".parse().unwrap(), name.clone()),
            Call::DeleteApplication(name)
        ]
    );
}

#[tokio::test]
async fn a_pipeline_is_created_from_a_chart() {
    let world = World::new();
    let created = world
        .post(
            "/api/applications/myname/pipelines",
            r#"{"name":"ocr","chart":"https://github.com/x/chart"}"#,
        )
        .await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(created.header("location"), OCR);
    let body = created.json();
    assert_eq!(body["name"], "ocr");
    assert_eq!(body["application"], "myname");
    assert_eq!(body["replicas"], json!({"min": 1, "max": 4}));
    assert_eq!(body["values"], json!({"a": 1}));
    assert_eq!(body["definition"]["pipeline"][0]["executor"], "wget");
    assert_eq!(body["policy"]["timeouts"]["run"], "1h");
    assert_eq!(body["rollout"]["phase"], "ready");
    assert_eq!(body["problems"], json!(["partition 2: 3 records are missing"]));
    let new = NewPipeline {
        name: "ocr".parse().unwrap(),
        deployment: Some(NewDeployment {
            chart: "https://github.com/x/chart".into(),
            values: Bytes::new(),
            min_replicas: None,
            max_replicas: None,
        }),
        definition: None,
        partitions: None,
        topic: None,
        policy: None,
    };
    assert_eq!(
        world.gateway.take_calls(),
        [Call::CreatePipeline("myname".parse().unwrap(), new)]
    );
}

#[tokio::test]
async fn everything_about_a_pipeline_can_be_said_when_it_is_created() {
    let world = World::new();
    let body = r#"{"name":"ocr","chart":"charts/ocr","values":{"b": 2},"replicas":{"min":0,"max":9},"partitions":8,
        "replication":3,"topic_settings":{"min.insync.replicas":"2"},
        "pipeline":[{"executor":"wget", "commands":["wget {{url}}"]}],"params":{"url":{"type":"string"}},
        "policy":{"retry":{"max_attempts":3},"timeouts":{"run":"1h30m","total":"2h"},"window":{"max_bytes":"1MiB"}}}"#;
    let created = world.post("/api/applications/myname/pipelines", body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body);
    let mut policy = PipelinePolicy::default();
    policy.retry.max_attempts = 3;
    policy.timeouts.run = Duration::from_mins(90);
    policy.timeouts.total = Some(Duration::from_hours(2));
    policy.window.max_bytes = 1 << 20;
    let new = NewPipeline {
        name: "ocr".parse().unwrap(),
        deployment: Some(NewDeployment {
            chart: "charts/ocr".into(),
            values: Bytes::from_static(b"{\"b\": 2}"),
            min_replicas: Some(0),
            max_replicas: Some(9),
        }),
        definition: Some(Bytes::from_static(
            br#"{"pipeline":[{"executor":"wget", "commands":["wget {{url}}"]}],"params":{"url":{"type":"string"}}}"#,
        )),
        partitions: Some(8),
        topic: Some(TopicSettings {
            replication: Some(3),
            settings: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
        }),
        policy: Some(policy),
    };
    assert_eq!(
        world.gateway.take_calls(),
        [Call::CreatePipeline("myname".parse().unwrap(), new)]
    );
}

#[tokio::test]
async fn the_agents_spelling_of_a_definition_is_passed_on() {
    let world = World::new();
    let body = r#"{"name":"ocr","commands":[{"executorName":"wget","commandLines":["a"]}]}"#;
    world.post("/api/applications/myname/pipelines", body).await;
    let calls = world.gateway.take_calls();
    let [Call::CreatePipeline(_, new)] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(
        new.definition.as_deref(),
        Some(&br#"{"commands":[{"executorName":"wget","commandLines":["a"]}]}"#[..])
    );
    assert_eq!(new.deployment, None);
}

#[tokio::test]
async fn pipelines_are_read_paused_scaled_and_deleted() {
    let world = World::new();
    assert_eq!(world.get(OCR).await.json()["version"], 3);
    let list = world.get("/api/applications/myname/pipelines").await.json();
    assert_eq!(list["items"][0]["name"], "ocr");
    for (path, body) in [("pause", ""), ("resume", ""), ("scale", r#"{"workers":3}"#)] {
        let answer = world.post(&format!("{OCR}/{path}"), body).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["name"], "ocr");
    }
    let deleted = world.call(Method::DELETE, OCR).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let paused = |paused| PipelineChange {
        paused: Some(paused),
        ..PipelineChange::default()
    };
    assert_eq!(
        world.gateway.take_calls(),
        [
            Call::Change(ocr(), paused(true)),
            Call::Change(ocr(), paused(false)),
            Call::Scale(ocr(), 3),
            Call::DeletePipeline(ocr()),
        ]
    );
}

#[tokio::test]
async fn a_change_keeps_what_it_does_not_name() {
    let world = World::new();
    let mut policy = PipelinePolicy::default();
    policy.retry.max_attempts = 10;
    let deployment = |chart: &str, values: &'static [u8], min, max| {
        Some(NewDeployment {
            chart: chart.into(),
            values: Bytes::from_static(values),
            min_replicas: min,
            max_replicas: max,
        })
    };
    let none = PipelineChange::default;
    for (body, change) in [
        (
            r#"{"policy":{"retry":{"max_attempts":10}}}"#,
            PipelineChange {
                policy: Some(policy),
                ..none()
            },
        ),
        (
            r#"{"values":{"b":2}}"#,
            PipelineChange {
                deployment: deployment("charts/old", b"{\"b\":2}", Some(1), Some(4)),
                ..none()
            },
        ),
        (
            r#"{"chart":"charts/new"}"#,
            PipelineChange {
                deployment: deployment("charts/new", b"{\"a\":1}", None, None),
                ..none()
            },
        ),
        (
            r#"{"replicas":{"max":8},"partitions":16,"paused":true}"#,
            PipelineChange {
                max_replicas: Some(8),
                partitions: Some(16),
                paused: Some(true),
                ..none()
            },
        ),
    ] {
        let answer = world.json(Method::PATCH, OCR, body.as_bytes(), &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        assert_eq!(
            world.gateway.take_calls(),
            [Call::Change(ocr(), change)],
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_task_is_submitted_with_its_params_untouched() {
    let world = World::new();
    let params = "{ \"url\":\"https://x/pic.png\",\n \"url\": 1.0e2 }";
    let answer = world.post(OCR, params).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.header("location"), format!("{OCR}/tasks/t1-0-0"));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json(), json!({"id": "t1-0-0"}));
    assert_eq!(
        world.gateway.take_calls(),
        [Call::Submit(ocr(), vec![TaskSpec::new(params)])]
    );
}

#[tokio::test]
async fn options_are_read_from_the_query_and_the_headers() {
    let world = World::new();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = world
        .post_with(
            &format!("{OCR}?priority=7&not_before=2999-01-01T00:00:00Z&deadline=2999-01-02T00:00:00Z"),
            "{}",
            &[("idempotency-key", "order-4711"), ("traceparent", trace)],
        )
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
    let calls = world.gateway.take_calls();
    let [Call::Submit(_, tasks)] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(tasks[0].priority, Priority::new(7).unwrap());
    let options = tasks[0].options.as_ref().unwrap();
    let day = 24 * 60 * 60 * 1_000;
    assert_eq!(
        options.deadline.unwrap().since(options.not_before.unwrap()),
        Duration::from_millis(day)
    );
    assert_eq!(options.idempotency_key.as_deref(), Some(&b"order-4711"[..]));
    assert_eq!(options.traceparent.as_deref(), Some(trace.as_bytes()));
}

#[tokio::test]
async fn a_trace_context_that_is_none_is_ignored() {
    let world = World::new();
    let answer = world.post_with(OCR, "{}", &[("traceparent", "nonsense")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(
        world.gateway.take_calls(),
        [Call::Submit(ocr(), vec![TaskSpec::new("{}")])]
    );
}

#[tokio::test]
async fn waiting_answers_200_when_the_task_has_ended_and_202_when_not() {
    let world = World::new();
    let url = format!("{OCR}?wait=30s");
    let ended = world.post(&url, "{}").await;
    assert_eq!(ended.status, StatusCode::OK);
    assert_eq!(ended.header("location"), format!("{OCR}/tasks/t1-0-0"));
    let body = ended.json();
    assert_eq!(body["state"], "succeeded");
    assert_eq!(body["output"], json!({"1:wget": [""]}));
    assert_eq!(body["progress"], "half \"way\"");
    assert_eq!(body["params"], "data:application/octet-stream;base64,/w==");
    let running = world.post(&url, "{}").await;
    assert_eq!(running.status, StatusCode::ACCEPTED);
    assert_eq!(running.json()["state"], "running");
    assert_eq!(running.header("location"), format!("{OCR}/tasks/t1-0-1"));
    let waits: Vec<Call> = world
        .gateway
        .take_calls()
        .into_iter()
        .filter(|call| matches!(call, Call::Wait(..)))
        .collect();
    let patience = Duration::from_secs(30);
    assert_eq!(waits, [Call::Wait(id(0), patience), Call::Wait(id(1), patience)]);
}

#[tokio::test]
async fn a_wait_that_fails_does_not_hide_that_the_task_is_accepted() {
    let world = World::new();
    let answer = world
        .post("/api/applications/lost/pipelines/ocr?wait=1s", "{}")
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json(), json!({"id": "t1-0-0"}));
}

#[tokio::test]
async fn a_task_is_read_cancelled_and_retried() {
    let world = World::new();
    let task = format!("{OCR}/tasks/t1-0-4");
    assert_eq!(world.get(&task).await.json()["state"], "running");
    assert_eq!(
        world.get(&format!("{task}?wait=5s")).await.json()["state"],
        "succeeded"
    );
    assert_eq!(
        world.post(&format!("{task}/cancel"), "").await.json()["state"],
        "cancelled"
    );
    let queued = world.post(&format!("{task}/retry"), "").await.json();
    assert_eq!(queued["state"], "queued");
    assert_eq!(
        queued["waiting"],
        json!({"reason": "behind_others", "detail": "12 tasks of its shard are before it", "ahead": 12})
    );
    assert_eq!(
        world.gateway.take_calls(),
        [
            Call::Wait(id(4), Duration::from_secs(5)),
            Call::Cancel(id(4)),
            Call::Retry(id(4))
        ]
    );
}

#[tokio::test]
async fn lists_have_pages() {
    let world = World::new();
    let first = world
        .get(&format!("{OCR}/tasks?state=running,queued&limit=5"))
        .await
        .json();
    assert_eq!(first["items"][0]["dead_reason"], "rejected");
    let cursor = first["next"].as_str().unwrap();
    let last = world.get(&format!("{OCR}/tasks?cursor={cursor}")).await.json();
    assert!(last.get("next").is_none());
    let dead = world.get(&format!("{OCR}/dead-letters?limit=2")).await.json();
    assert_eq!(dead["items"][0]["id"], "t1-0-7");
    assert_eq!(dead["items"][0]["reason"], "attempts_exhausted");
    assert_eq!(dead["items"][0]["params"], json!({"url": "x"}));
    let at = Some(PageCursor {
        partition: Partition(2),
        offset: Offset(7),
    });
    let states = vec![TaskState::Running, TaskState::Queued];
    assert_eq!(
        world.gateway.take_calls(),
        [
            Call::Tasks(
                TaskFilter {
                    states,
                    partition: None
                },
                None,
                5
            ),
            Call::Tasks(TaskFilter::default(), at, 50),
            Call::Dead(None, 2),
        ]
    );
}

#[tokio::test]
async fn dead_letters_are_redriven_and_purged() {
    let world = World::new();
    let redriven = world
        .post(
            &format!("{OCR}/dead-letters/redrive"),
            r#"{"ids":["t1-0-1","t1-0-2"]}"#,
        )
        .await;
    assert_eq!(redriven.json(), json!({"redriven": 12}));
    let purged = world
        .post(&format!("{OCR}/dead-letters/purge"), r#"{"all":true}"#)
        .await;
    assert_eq!(purged.json(), json!({"purged": 13}));
    assert_eq!(
        world.gateway.take_calls(),
        [
            Call::Redrive(DeadSelection::Ids(vec![id(1), id(2)])),
            Call::Purge(DeadSelection::All)
        ]
    );
}

#[tokio::test]
async fn probes_and_documents_need_no_key() {
    let world = World::new();
    for (path, media_type) in [
        ("/healthz", "application/json"),
        ("/ready", "application/json"),
        ("/api/openapi.json", "application/json"),
        ("/api/docs/", "text/html"),
        ("/api/docs/swagger-initializer.js", "text/javascript"),
        ("/api/docs/swagger-ui.css", "text/css"),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = world.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("content-type"), media_type, "{path}");
        assert!(!answer.body.is_empty(), "{path}");
    }
    let initializer = world.get("/api/docs/swagger-initializer.js").await;
    assert!(String::from_utf8_lossy(&initializer.body).contains("/api/openapi.json"));
    assert_eq!(world.get("/api/docs").await.header("location"), "/api/docs/");
}

#[tokio::test]
async fn the_dashboard_loads_nothing_but_its_own_files() {
    let world = World::new();
    for path in ["/", "/dashboard"] {
        assert_eq!(world.get(path).await.header("location"), "/dashboard/", "{path}");
    }
    let mut wanted = vec![String::new()];
    let mut seen = BTreeSet::new();
    while let Some(file) = wanted.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        // Whoever opens it has no key yet.
        let request = Request::get(format!("/dashboard/{file}"))
            .body(Body::empty())
            .unwrap();
        let answer = world.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'none'; script-src 'self';"),
            "{file}"
        );
        let media_type = match file.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), media_type, "{file}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains("innerHTML"), "{file} makes markup of texts");
        let named = text.split('"').filter(|text| {
            text.rsplit_once('.')
                .is_some_and(|(name, end)| !name.contains(' ') && ["js", "css"].contains(&end))
        });
        wanted.extend(named.map(|name| name.trim_start_matches("./").to_owned()));
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[tokio::test]
async fn a_key_may_come_in_its_own_header() {
    let world = World::new();
    let request = Request::get(OCR)
        .header("x-api-key", crate::fake::KEY)
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(request).await.status, StatusCode::OK);
}
