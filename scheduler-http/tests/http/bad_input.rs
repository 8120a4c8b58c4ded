//! Bad input for every endpoint: the status, the problem body, and the field that it names.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::Value;

use crate::client::{Answer, OCR, World, with_key};

const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The answer is a whole problem of this status; answers its body.
pub(crate) fn problem(answer: &Answer, status: u16, what: &str) -> Value {
    let shown = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status.as_u16(), status, "{what}: {shown}");
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{what}"
    );
    let body = answer.json();
    assert_eq!(body["status"], status, "{what}");
    assert!(
        body["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:workload-scheduler:problem:"),
        "{what}"
    );
    assert!(!body["title"].as_str().unwrap().is_empty(), "{what}");
    assert!(!body["detail"].as_str().unwrap().is_empty(), "{what}");
    assert!(!shown.contains("hunter2"), "{what}: {shown}");
    body
}

/// Every endpoint below `/api`: method, path below a pipeline's or an application's, and a body that is right.
fn endpoints(app: &str) -> Vec<(Method, String, &'static str)> {
    let ocr = format!("/api/applications/{app}/pipelines/ocr");
    let pipelines = format!("/api/applications/{app}/pipelines");
    let selection = r#"{"all":true}"#;
    vec![
        (Method::GET, format!("/api/applications/{app}"), ""),
        (Method::DELETE, format!("/api/applications/{app}"), ""),
        (Method::GET, pipelines.clone(), ""),
        (Method::POST, pipelines, r#"{"name":"ocr"}"#),
        (Method::GET, ocr.clone(), ""),
        (Method::PATCH, ocr.clone(), r#"{"paused":true}"#),
        (Method::DELETE, ocr.clone(), ""),
        (Method::POST, ocr.clone(), "{}"),
        (Method::POST, format!("{ocr}/pause"), ""),
        (Method::POST, format!("{ocr}/resume"), ""),
        (Method::POST, format!("{ocr}/scale"), r#"{"workers":1}"#),
        (Method::GET, format!("{ocr}/events"), ""),
        (Method::GET, format!("{ocr}/tasks"), ""),
        (Method::POST, format!("{ocr}/tasks/bulk"), "{}"),
        (Method::GET, format!("{ocr}/tasks/t1-0-1"), ""),
        (Method::POST, format!("{ocr}/tasks/t1-0-1/cancel"), ""),
        (Method::POST, format!("{ocr}/tasks/t1-0-1/retry"), ""),
        (Method::GET, format!("{ocr}/tasks/t1-0-1/events"), ""),
        (Method::GET, format!("{ocr}/dead-letters"), ""),
        (Method::POST, format!("{ocr}/dead-letters/redrive"), selection),
        (Method::POST, format!("{ocr}/dead-letters/purge"), selection),
    ]
}

async fn ask(world: &World, method: &Method, path: &str, body: &str) -> Answer {
    let media_type = if path.ends_with("/bulk") {
        "application/x-ndjson"
    } else {
        "application/json"
    };
    let request = with_key(method.clone(), path)
        .header("content-type", media_type)
        .body(Body::from(body.to_owned()))
        .unwrap();
    world.send(request).await
}

#[tokio::test]
async fn every_error_of_the_gateway_has_its_status_at_every_endpoint() {
    for (app, status) in [
        ("missing", 404),
        ("taken", 409),
        ("forbidden", 403),
        ("busy", 429),
        ("away", 503),
        ("broken", 500),
        ("panics", 500),
    ] {
        let world = World::new();
        for (method, path, body) in endpoints(app) {
            let answer = ask(&world, &method, &path, body).await;
            let what = format!("{method} {path}");
            let problem = problem(&answer, status, &what);
            let retry = if [429, 503].contains(&status) { "2" } else { "" };
            assert_eq!(answer.header("retry-after"), retry, "{what}");
            assert_eq!(problem.get("instance").is_some(), status == 500, "{what}");
        }
        assert_eq!(world.gateway.take_calls(), []);
    }
}

#[tokio::test]
async fn every_endpoint_wants_a_key_and_well_formed_names() {
    let world = World::new();
    let mut all = endpoints("myname");
    all.push((Method::GET, "/api/applications".to_owned(), ""));
    all.push((Method::POST, "/api/applications".to_owned(), r#"{"name":"a"}"#));
    for (method, path, body) in all {
        let what = format!("{method} {path}");
        for header in [
            None,
            Some("Bearer wrong"),
            Some("Basic c2VjcmV0"),
            Some("Bearer "),
            Some("\u{e4}"),
        ] {
            let mut request = Request::builder().method(method.clone()).uri(&path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let answer = world.send(request.body(Body::from(body)).unwrap()).await;
            problem(&answer, 401, &what);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        for (good, bad, field) in [
            ("myname", "Upper", "app"),
            ("myname", LONG, "app"),
            ("myname", "a%2Fb", "app"),
            ("myname", "%00", "app"),
            ("myname", "%ff", "path"),
            ("/ocr", "/-ocr", "name"),
            ("t1-0-1", "t1-0", "id"),
            ("t1-0-1", "1", "id"),
        ] {
            if path.contains(good) {
                let path = path.replace(good, bad);
                let answer = ask(&world, &method, &path, body).await;
                assert_eq!(problem(&answer, 400, &path)["field"], field, "{method} {path}");
            }
        }
    }
    assert_eq!(world.gateway.take_calls(), []);
}

#[tokio::test]
async fn a_pipeline_to_create_is_checked() {
    let world = World::new();
    let path = "/api/applications/myname/pipelines";
    for (body, field) in [
        (r#"{"chart":"a"}"#, "name"),
        (r#"{"name":"-"}"#, "name"),
        (r#"{"name":"ocr","chart":""}"#, "chart"),
        (r#"{"name":"ocr","chart":"a\u0000"}"#, "chart"),
        (r#"{"name":"ocr","charts":"a"}"#, "charts"),
        (r#"{"name":"ocr","values":{}}"#, "values"),
        (r#"{"name":"ocr","chart":"a","values":[]}"#, "values"),
        (r#"{"name":"ocr","replicas":{"min":1}}"#, "replicas"),
        (
            r#"{"name":"ocr","chart":"a","replicas":{"min":3,"max":2}}"#,
            "replicas.min",
        ),
        (
            r#"{"name":"ocr","chart":"a","replicas":{"max":0}}"#,
            "replicas.max",
        ),
        (
            r#"{"name":"ocr","chart":"a","replicas":{"mix":0}}"#,
            "replicas.mix",
        ),
        (r#"{"name":"ocr","partitions":0}"#, "partitions"),
        (r#"{"name":"ocr","replication":0}"#, "replication"),
        (r#"{"name":"ocr","replication":70000}"#, "replication"),
        (
            r#"{"name":"ocr","topic_settings":{"min.insync.replicas":2}}"#,
            "topic_settings.min.insync.replicas",
        ),
        (r#"{"name":"ocr","partitions":-1}"#, "partitions"),
        (r#"{"name":"ocr","pipeline":{}}"#, "pipeline"),
        (r#"{"name":"ocr","pipeline":[],"commands":[]}"#, "commands"),
        (r#"{"name":"ocr","params":{}}"#, "params"),
        (
            r#"{"name":"ocr","policy":{"retry":{"max_attempts":0}}}"#,
            "policy.retry.max_attempts",
        ),
        (
            r#"{"name":"ocr","policy":{"retry":{"jitter":2}}}"#,
            "policy.retry.jitter",
        ),
        (
            r#"{"name":"ocr","policy":{"retry":{"factor":0.5}}}"#,
            "policy.retry.factor",
        ),
        (
            r#"{"name":"ocr","policy":{"retry":{"initial_backoff":"1h"}}}"#,
            "policy.retry.initial_backoff",
        ),
        (
            r#"{"name":"ocr","policy":{"retry":{"max_backoff":30}}}"#,
            "policy.retry.max_backoff",
        ),
        (
            r#"{"name":"ocr","policy":{"timeouts":{"run":"soon"}}}"#,
            "policy.timeouts.run",
        ),
        (
            r#"{"name":"ocr","policy":{"timeouts":{"heartbeat":"0s"}}}"#,
            "policy.timeouts.heartbeat",
        ),
        (
            r#"{"name":"ocr","policy":{"timeouts":{"total":"0s"}}}"#,
            "policy.timeouts.total",
        ),
        (
            r#"{"name":"ocr","policy":{"window":{"max_bytes":"1 parsec"}}}"#,
            "policy.window.max_bytes",
        ),
        (
            r#"{"name":"ocr","policy":{"window":{"max_span":1}}}"#,
            "policy.window.max_span",
        ),
        (
            r#"{"name":"ocr","policy":{"retention":{"dead":"0s"}}}"#,
            "policy.retention.dead",
        ),
        (
            r#"{"name":"ocr","policy":{"checkpoint":{"max_ended":0}}}"#,
            "policy.checkpoint.max_ended",
        ),
        (r#"{"name":"ocr","policy":{"ageing":"1s"}}"#, "policy.ageing"),
    ] {
        let answer = world.post(path, body).await;
        assert_eq!(problem(&answer, 400, body)["field"], field, "{body}");
    }
    assert_eq!(world.gateway.take_calls(), []);
}

#[tokio::test]
async fn what_the_gateway_says_of_a_policy_names_the_field_of_the_request() {
    let world = World::new();
    let pipelines = "/api/applications/strict/pipelines";
    let answer = world.post(pipelines, r#"{"name":"ocr"}"#).await;
    assert_eq!(problem(&answer, 400, pipelines)["field"], "policy.retry.jitter");
    let path = format!("{pipelines}/ocr");
    let answer = world.json(Method::PATCH, &path, br#"{"paused":true}"#, &[]).await;
    assert_eq!(problem(&answer, 400, &path)["field"], "policy.retry.jitter");
}

#[tokio::test]
async fn every_other_body_is_checked() {
    let world = World::new();
    let redrive = format!("{OCR}/dead-letters/redrive");
    let purge = format!("{OCR}/dead-letters/purge");
    let scale = format!("{OCR}/scale");
    let change = |body: &'static str, field| (Method::PATCH, OCR, body, field);
    let submit = |body: &'static str, field| (Method::POST, OCR, body, field);
    for (method, path, body, field) in [
        (Method::POST, "/api/applications", "", "body"),
        (Method::POST, "/api/applications", "{\n\"name\":}", "body"),
        (Method::POST, "/api/applications", "{}", "name"),
        (Method::POST, "/api/applications", r#"{"name":"A"}"#, "name"),
        (Method::POST, "/api/applications", r#"{"name":7}"#, "name"),
        (Method::POST, "/api/applications", r#"{"name":"a","x":1}"#, "x"),
        change("{}", "body"),
        change("[", "body"),
        change(r#"{"name":"other"}"#, "name"),
        change(r#"{"paused":"yes"}"#, "paused"),
        change(r#"{"values":7}"#, "values"),
        change(
            r#"{"policy":{"timeouts":{"run":null,"x":1}}}"#,
            "policy.timeouts.x",
        ),
        submit("", "body"),
        submit("[]", "body"),
        submit("\"text\"", "body"),
        submit("{\"a\":1", "body"),
        submit("{\"a\":1}{}", "body"),
        submit(r#"{"refuse":1}"#, "refuse"),
        (Method::POST, &scale, "{}", "workers"),
        (Method::POST, &scale, r#"{"workers":-1}"#, "workers"),
        (Method::POST, &redrive, "{}", "all"),
        (Method::POST, &redrive, r#"{"all":false}"#, "all"),
        (Method::POST, &redrive, r#"{"all":true,"ids":["t1-0-1"]}"#, "all"),
        (Method::POST, &redrive, r#"{"ids":[]}"#, "ids"),
        (Method::POST, &purge, r#"{"ids":["t1-0-1","x"]}"#, "ids[1]"),
        (Method::POST, &purge, r#"{"ids":"t1-0-1"}"#, "ids"),
    ] {
        let what = format!("{method} {path} {body}");
        let answer = world.json(method, path, body.as_bytes(), &[]).await;
        assert_eq!(problem(&answer, 400, &what)["field"], field, "{what}");
    }
    assert_eq!(world.gateway.take_calls(), []);
}

#[tokio::test]
async fn every_query_is_checked() {
    let world = World::new();
    let past = "2001-01-01T00:00:00Z";
    for (method, path, query, field) in [
        (Method::POST, "", "priority=10".to_owned(), "priority"),
        (Method::POST, "", "priority=high".to_owned(), "priority"),
        (Method::POST, "", "priority=1&priority=2".to_owned(), "priority"),
        (Method::POST, "", "delay=10".to_owned(), "delay"),
        (
            Method::POST,
            "",
            "delay=1s&not_before=2999-01-01T00:00:00Z".to_owned(),
            "delay",
        ),
        (Method::POST, "", "not_before=tomorrow".to_owned(), "not_before"),
        (Method::POST, "", format!("deadline={past}"), "deadline"),
        (Method::POST, "", "deadline=never".to_owned(), "deadline"),
        (Method::POST, "", "delay=10s&deadline=5s".to_owned(), "deadline"),
        (Method::POST, "", "wait=61s".to_owned(), "wait"),
        (Method::POST, "", "wait=long".to_owned(), "wait"),
        (Method::POST, "", "prioritty=1".to_owned(), "prioritty"),
        (Method::GET, "/tasks", "state=running,stopped".to_owned(), "state"),
        (Method::GET, "/tasks", "state=".to_owned(), "state"),
        (Method::GET, "/tasks", "partition=".to_owned(), "partition"),
        (Method::GET, "/tasks", "partition=-1".to_owned(), "partition"),
        (Method::GET, "/tasks", "partition=%2B1".to_owned(), "partition"),
        (
            Method::GET,
            "/tasks",
            "partition=4294967296".to_owned(),
            "partition",
        ),
        (
            Method::GET,
            "/tasks",
            "partition=1&partition=1".to_owned(),
            "partition",
        ),
        (Method::GET, "/tasks", "limit=0".to_owned(), "limit"),
        (Method::GET, "/tasks", "limit=51".to_owned(), "limit"),
        (Method::GET, "/tasks", "limit=many".to_owned(), "limit"),
        (Method::GET, "/tasks", "cursor=x".to_owned(), "cursor"),
        (
            Method::GET,
            "/tasks",
            "cursor=AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            "cursor",
        ),
        (Method::GET, "/tasks", "page=2".to_owned(), "page"),
        (Method::GET, "/tasks/t1-0-1", "wait=61s".to_owned(), "wait"),
        (Method::GET, "/tasks/t1-0-1", "verbose".to_owned(), "verbose"),
        (Method::GET, "/dead-letters", "limit=-1".to_owned(), "limit"),
        (Method::GET, "/dead-letters", "cursor=%ff".to_owned(), "cursor"),
        (Method::GET, "/dead-letters", "state=dead".to_owned(), "state"),
        (Method::POST, "/tasks/bulk", "envelope=yes".to_owned(), "envelope"),
        (Method::POST, "/tasks/bulk", "answer=none".to_owned(), "answer"),
        (Method::POST, "/tasks/bulk", "wait=1s".to_owned(), "wait"),
        (Method::POST, "/tasks/bulk", "priority=x".to_owned(), "priority"),
    ] {
        let path = format!("{OCR}{path}?{query}");
        let answer = ask(&world, &method, &path, "{}").await;
        assert_eq!(problem(&answer, 400, &path)["field"], field, "{path}");
    }
    assert_eq!(world.gateway.take_calls(), []);
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let world = World::new();
    let page = world.get(&format!("{OCR}/tasks")).await.json();
    let cursor = page["next"].as_str().unwrap();
    for path in [
        format!("{OCR}/dead-letters"),
        "/api/applications/myname/pipelines/other/tasks".to_owned(),
    ] {
        let answer = world.get(&format!("{path}?cursor={cursor}")).await;
        assert_eq!(problem(&answer, 400, &path)["field"], "cursor");
    }
}

#[tokio::test]
async fn bodies_of_another_media_type_are_refused() {
    let world = World::new();
    for (method, path, body) in endpoints("myname") {
        if body.is_empty() {
            continue;
        }
        for media_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/\u{e4}+json",
        ] {
            let request = with_key(method.clone(), &path)
                .header("content-type", media_type)
                .body(Body::from(body))
                .unwrap();
            let answer = world.send(request).await;
            let what = format!("{method} {path} {media_type}");
            assert_eq!(problem(&answer, 415, &what)["field"], "Content-Type");
        }
    }
    assert_eq!(world.gateway.take_calls(), []);
    for media_type in ["Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        let request = with_key(Method::PATCH, OCR)
            .header("content-type", media_type)
            .body(Body::from(r#"{"paused":true}"#))
            .unwrap();
        assert_eq!(world.send(request).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn bodies_have_a_limit_announced_or_not() {
    let world = World::new();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(3_000));
    for path in [OCR, "/api/applications"] {
        let announced = world.post(path, &large).await;
        assert_eq!(problem(&announced, 413, path)["field"], "body");
        let chunks = vec![Ok::<_, std::io::Error>(large.clone())];
        let request = with_key(Method::POST, path)
            .header("content-type", "application/json")
            .body(Body::from_stream(futures::stream::iter(chunks)))
            .unwrap();
        let streamed = world.send(request).await;
        assert_eq!(problem(&streamed, 413, path)["field"], "body");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_not_utf8_is_refused() {
    let world = World::new();
    let chunks = vec![Ok("{"), Err(std::io::Error::other("gone"))];
    let request = with_key(Method::POST, OCR)
        .header("content-type", "application/json")
        .body(Body::from_stream(futures::stream::iter(chunks)))
        .unwrap();
    let broken = problem(&world.send(request).await, 400, "broken off");
    assert_eq!(broken["type"], "urn:workload-scheduler:problem:body-broken");
    for path in [OCR, "/api/applications"] {
        let answer = world.json(Method::POST, path, b"{\"name\":\"\xff\"}", &[]).await;
        assert_eq!(problem(&answer, 400, path)["field"], "body");
    }
    assert_eq!(world.gateway.take_calls(), []);
}

#[tokio::test]
async fn malformed_json_is_located() {
    let world = World::new();
    let answer = world.post("/api/applications", "{\n  \"name\": }").await;
    let detail = problem(&answer, 400, "")["detail"].to_string();
    assert!(detail.contains("line 2 column 11"), "{detail}");
}

#[tokio::test]
async fn headers_of_a_task_are_checked() {
    let world = World::new();
    for key in ["", &"k".repeat(256)] {
        let answer = world.post_with(OCR, "{}", &[("idempotency-key", key)]).await;
        assert_eq!(problem(&answer, 400, key)["field"], "Idempotency-Key");
    }
    let request = with_key(Method::POST, &format!("{OCR}/tasks/bulk"))
        .header("content-type", "application/x-ndjson")
        .header("idempotency-key", "one")
        .body(Body::from("{}"))
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!(problem(&answer, 400, "bulk")["field"], "Idempotency-Key");
}
