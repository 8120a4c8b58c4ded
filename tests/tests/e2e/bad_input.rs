//! Bad input for every endpoint of the real server: a problem that names the field, never a server error.

use reqwest::{Method, StatusCode};
use scheduler_examples::Answer;
use serde_json::{Value, json};

use crate::world::{World, run};

const PIPELINES: &str = "/api/applications/myname/pipelines";

/// Every endpoint that takes a body, below the pipeline `real` where there is no slash, and a body that is right.
const BODIES: [(&str, &str, &str); 8] = [
    ("POST", "/api/applications", r#"{"name":"other"}"#),
    ("POST", PIPELINES, r#"{"name":"other"}"#),
    ("PATCH", "", r#"{"paused":false}"#),
    ("POST", "", "{}"),
    ("POST", "scale", r#"{"workers":1}"#),
    ("POST", "dead-letters/redrive", r#"{"all":true}"#),
    ("POST", "dead-letters/purge", r#"{"all":true}"#),
    ("POST", "tasks/bulk", "{}\n"),
];

/// Every endpoint without one.
const OTHERS: [(&str, &str); 12] = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "pause"),
    ("POST", "resume"),
    ("GET", "events"),
    ("GET", "tasks"),
    ("GET", "tasks/ID"),
    ("POST", "tasks/ID/cancel"),
    ("POST", "tasks/ID/retry"),
    ("GET", "tasks/ID/events"),
    ("GET", "dead-letters"),
    ("GET", "../../../myname"),
];

fn path(below: &str, pipeline: &str) -> String {
    if below.starts_with('/') {
        below.to_owned()
    } else if below.starts_with("..") {
        "/api/applications/myname".to_owned()
    } else {
        format!("{PIPELINES}/{pipeline}/{below}")
            .trim_end_matches('/')
            .to_owned()
    }
}

struct Asker {
    world: World,
    asked: usize,
}

impl Asker {
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self
            .world
            .api()
            .request(method, path)
            .header("content-type", media_type)
            .body(body);
        self.asked += 1;
        Answer::of(request.send().await.unwrap()).await.unwrap()
    }

    /// It is refused, with a problem that says why, and names this field if one is given.
    async fn refused(&mut self, method: &str, path: &str, media_type: &str, body: Vec<u8>, field: &str) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let what = format!("{method} {path} {media_type} {shown}");
        let answer = self.ask(method, path, media_type, body).await;
        assert!(
            answer.status.is_client_error(),
            "{what}: {} {}",
            answer.status,
            answer.body
        );
        assert_eq!(answer.media_type, "application/problem+json", "{what}");
        assert_eq!(answer.body["status"], answer.status.as_u16(), "{what}");
        assert!(
            !answer.body["detail"].as_str().unwrap_or_default().is_empty(),
            "{what}: {}",
            answer.body
        );
        if !field.is_empty() {
            assert_eq!(answer.body["field"], field, "{what}: {}", answer.body);
        }
    }

    async fn refused_json(&mut self, method: &str, path: &str, body: &Value, field: &str) {
        self.refused(method, path, "application/json", body.to_string().into(), field)
            .await;
    }
}

#[test]
fn bad_input_is_refused_by_every_endpoint_and_harms_nothing() {
    run(async {
        let world = World::start().await;
        let real = world.pipeline("real", json!({})).await;
        let id = real.submit(json!({"n": 1})).await;
        let mut asker = Asker { world, asked: 0 };

        names(&mut asker).await;
        bodies(&mut asker).await;
        definitions(&mut asker).await;
        queries(&mut asker).await;

        let ready = asker.world.api().get("/ready").await.unwrap();
        assert_eq!(ready.status, StatusCode::OK);
        assert_eq!(
            real.task(&id).await["state"],
            "queued",
            "after {} bad requests",
            asker.asked
        );
        assert_eq!(real.list("", 10).await.len(), 1, "nothing of it was taken");
        asker.world.stop().await;
    });
}

async fn names(asker: &mut Asker) {
    let long = "a".repeat(64);
    let endless = "a".repeat(5_000);
    let bad = [
        "Upper",
        "-dash",
        "dash-",
        "1st",
        "a_b",
        "a.b",
        "%00",
        "%ff",
        "a%2Fb",
        "%E4%B8%AD",
        &long,
        &endless,
    ];
    let all = OTHERS.iter().map(|(method, below)| (*method, *below, ""));
    let all: Vec<_> = all
        .chain(BODIES)
        .filter(|(_, below, _)| !below.starts_with(['/', '.']))
        .collect();
    for (method, below, body) in all {
        let media_type = if below.ends_with("bulk") {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        for name in bad {
            let path = path(below, name).replace("ID", "t1-0-0");
            asker.refused(method, &path, media_type, body.into(), "").await;
        }
        for id in [
            "1",
            "t",
            "t1",
            "t1-0",
            "t1-0-",
            "t-1-0",
            "t1-0-zzzzzzzzzzzzzzzzzzzz",
            "t1-0-0-0",
            "%00",
            "T1-0-0",
            "t99-0-0",
            "t1-99-0",
            "t1-0-zzzz",
        ] {
            if below.contains("ID") {
                let path = path(below, "real").replace("ID", id);
                asker.refused(method, &path, media_type, body.into(), "").await;
            }
        }
        let path = path(below, "missing").replace("ID", "t1-0-0");
        let answer = asker.ask(method, &path, media_type, body).await;
        assert_eq!(
            answer.status,
            StatusCode::NOT_FOUND,
            "{method} {path}: {}",
            answer.body
        );
    }
    for path in [
        "/",
        "/api",
        "/api/",
        "/api/nothing",
        "/api/applications/myname/pipelines/real/nothing",
        "/api/docs/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
    ] {
        let answer = asker.ask("GET", path, "", "").await;
        assert!(
            answer.status.is_client_error() || answer.status.is_success(),
            "{path}: {}",
            answer.status
        );
        assert!(!answer.body.to_string().contains("root:"), "{path}");
    }
    for method in ["PUT", "TRACE", "NONSENSE", "PATCH"] {
        let answer = asker
            .ask(method, &format!("{PIPELINES}/real/tasks"), "", "")
            .await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

async fn bodies(asker: &mut Asker) {
    let deep = "[".repeat(100_000);
    let wide = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    let surrogate = r#"{"name":"\ud800"}"#;
    for (method, below, _) in BODIES {
        let path = path(below, "real");
        if below.ends_with("bulk") {
            continue;
        }
        let bad: [&[u8]; 14] = [
            b"",
            b"{",
            b"}",
            b"[]",
            b"null",
            b"7",
            b"\"text\"",
            b"\xff\xfe",
            b"{\"a\":1}{}",
            b"{'a':1}",
            b"{\"a\":NaN}",
            deep.as_bytes(),
            wide.as_bytes(),
            surrogate.as_bytes(),
        ];
        for body in bad {
            // Params are JSON that the worker reads; its grammar has such strings.
            if (method, below, body) == ("POST", "", surrogate.as_bytes()) {
                continue;
            }
            asker
                .refused(method, &path, "application/json", body.to_vec(), "")
                .await;
        }
        for media_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "a/b; c=\u{e4}",
        ] {
            asker
                .refused(method, &path, media_type, b"{}".to_vec(), "Content-Type")
                .await;
        }
    }
    let bulk = path("tasks/bulk", "real");
    let text = format!(
        "{{\nnull\n[]\n{{\"a\":1}}{{}}\n\"x\"\n{deep}\n{{\"a\":\"{}\"}}\n",
        "x".repeat(600 << 10)
    );
    let answer = asker.ask("POST", &bulk, "application/x-ndjson", text).await;
    let lines = answer
        .body
        .as_str()
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    assert_eq!(lines.len(), 7, "{lines:?}");
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(line["error"]["line"], number, "{line}");
    }
}

async fn definitions(asker: &mut Asker) {
    let step = |commands: Value| json!({"name": "x", "pipeline": [{"executor": "e", "commands": commands}]});
    for (body, field) in [
        (json!({"name": "x", "chart": "/nonexistent"}), "chart"),
        (json!({"name": "x", "replication": 0}), "replication"),
        (json!({"name": "x", "replication": 999}), "replication"),
        (
            json!({"name": "x", "topic_settings": {"retention.ms": "1"}}),
            "topic_settings.retention.ms",
        ),
        (json!({"name": "x", "chart": "/etc/passwd"}), "chart"),
        (json!({"name": "x", "chart": "../../../etc"}), "chart"),
        (json!({"name": "x", "chart": "oci://registry/chart"}), "chart"),
        (
            json!({"name": "x", "chart": "https://127.0.0.1:1/chart.tgz"}),
            "chart",
        ),
        (json!({"name": "x", "chart": ""}), "chart"),
        (json!({"name": "x", "pipeline": {}}), "pipeline"),
        (json!({"name": "x", "pipeline": []}), ""),
        (json!({"name": "x", "pipeline": [{}]}), ""),
        (
            json!({"name": "x", "pipeline": [{"executor": "", "commands": ["a"]}]}),
            "",
        ),
        (json!({"name": "x", "pipeline": [7]}), ""),
        (step(json!([])), ""),
        (step(json!("echo")), ""),
        (step(json!([7])), ""),
        (step(json!(["echo {{"])), ""),
        (step(json!(["echo {{}}"])), ""),
        (step(json!(["echo '{{x}}"])), ""),
        (step(json!(["a\u{0}b"])), ""),
        (step(json!(["x".repeat(900_000)])), ""),
        (json!({"name": "x", "partitions": 1_000_000}), "partitions"),
        (json!({"name": "x", "partitions": 1e99}), "partitions"),
        (
            json!({"name": "x", "policy": {"timeouts": {"heartbeat": "1ms"}}}),
            "policy.timeouts.heartbeat",
        ),
        (
            json!({"name": "x", "policy": {"timeouts": {"run": "0s"}}}),
            "policy.timeouts.run",
        ),
        (
            json!({"name": "x", "policy": {"retry": {"max_attempts": 0}}}),
            "policy.retry.max_attempts",
        ),
        (
            json!({"name": "x", "policy": {"retry": {"max_attempts": 1e20}}}),
            "policy.retry.max_attempts",
        ),
        (
            json!({"name": "x", "policy": {"retry": {"factor": 0.1}}}),
            "policy.retry.factor",
        ),
        (
            json!({"name": "x", "policy": {"window": {"max_tasks": 0}}}),
            "policy.window.max_tasks",
        ),
        (
            json!({"name": "x", "policy": {"window": {"max_tasks": 4_000_000_000_u32, "max_span": 4_000_000_000_u32}}}),
            "policy.window.max_tasks",
        ),
        (
            json!({"name": "x", "policy": {"window": {"max_bytes": 1}}}),
            "policy.window.max_bytes",
        ),
    ] {
        asker.refused_json("POST", PIPELINES, &body, field).await;
    }
    let scale = path("scale", "real");
    for workers in [
        json!(-1),
        json!(1.5),
        json!("2"),
        json!(null),
        json!(1e12),
        json!(1),
    ] {
        asker
            .refused_json("POST", &scale, &json!({"workers": workers}), "")
            .await;
    }
    let patch = path("", "real");
    for body in [
        json!({"partitions": 0}),
        json!({"name": "y"}),
        json!({"replicas": {"min": 1}}),
        json!({"chart": "/nonexistent"}),
    ] {
        asker.refused_json("PATCH", &patch, &body, "").await;
    }
}

async fn queries(asker: &mut Asker) {
    let far = "deadline=999999999999999999999d";
    for (method, below, query, field) in [
        ("POST", "", "priority=10", "priority"),
        ("POST", "", "priority=-1", "priority"),
        ("POST", "", "delay=-1s", "delay"),
        ("POST", "", "delay=99999999999999999999y", "delay"),
        ("POST", "", "not_before=2026-13-40T99:00:00Z", "not_before"),
        ("POST", "", "deadline=2001-01-01T00:00:00Z", "deadline"),
        ("POST", "", far, "deadline"),
        ("POST", "", "wait=1000000s", "wait"),
        ("POST", "", "fairness_key=", "fairness_key"),
        ("POST", "", "unknown=1", "unknown"),
        ("POST", "", "%ff=%00", ""),
        ("GET", "tasks", "limit=0", "limit"),
        ("GET", "tasks", "limit=100000000000000000000", "limit"),
        ("GET", "tasks", "state=everything", "state"),
        ("GET", "tasks", "cursor=%00%ff", "cursor"),
        (
            "GET",
            "tasks",
            "cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "cursor",
        ),
        ("GET", "dead-letters", "limit=-5", "limit"),
        ("GET", "dead-letters", "cursor=zzzz", "cursor"),
        ("GET", "tasks/t1-0-0", "wait=never", "wait"),
    ] {
        let path = format!("{}?{query}", path(below, "real"));
        asker
            .refused(method, &path, "application/json", b"{}".to_vec(), field)
            .await;
    }
}
