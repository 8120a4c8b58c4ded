//! Many tasks in one request: what becomes of each line.

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use scheduler_core::task::Priority;
use serde_json::json;

use crate::client::World;
use crate::fake::Call;

#[tokio::test]
async fn a_bulk_submission_is_answered_line_by_line() {
    let world = World::new();
    let long = "x".repeat(400);
    let body = format!(
        "{{\"n\":1}}\n\n[]\n{{\"n\":2}}\r\n{{\"refuse\":1}}\n{{\"n\":\n{{\"n\":\"{long}\"}}\n{{\"n\":3}}\n{{\"n\":\"\u{fc}\"}}"
    );
    let answer = world.bulk("?priority=9", Body::from(body)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines = answer.lines();
    let short: Vec<_> = lines
        .iter()
        .map(|line| match line.get("error") {
            None => line["id"].to_string(),
            Some(error) => format!(
                "{} {} {}",
                error["line"],
                error["type"].as_str().unwrap().rsplit(':').next().unwrap(),
                error["field"]
            ),
        })
        .collect();
    assert_eq!(
        short,
        [
            "\"t1-0-0\"",
            "3 invalid-field \"params\"",
            "\"t1-0-1\"",
            "5 invalid-field \"refuse\"",
            "6 malformed-json \"params\"",
            "7 body-too-large null",
            "\"t1-0-2\"",
            "\"t1-0-3\"",
        ]
    );
    for call in world.gateway.take_calls() {
        let Call::Submit(_, tasks) = call else {
            panic!("{call:?}")
        };
        assert!(tasks.iter().all(|task| task.priority == Priority::MAX));
    }
}

#[tokio::test]
async fn every_line_is_answered_whichever_are_refused() {
    for refused in 0..16u32 {
        let world = World::new();
        let is_refused = |n: u32| refused & (1 << n) != 0;
        let name = |n| if is_refused(n) { "refuse" } else { "n" };
        let line = |n| format!("{{\"{}\":{n}}}\n", name(n));
        let answer = world
            .bulk("", Body::from((0..4).map(line).collect::<String>()))
            .await;
        for (n, answer) in (0..4).zip(answer.lines()) {
            let id = answer["id"].as_str().unwrap_or_default();
            let params = world.gateway.taken.lock().unwrap().remove(id);
            let expected = (!is_refused(n)).then(|| Bytes::from(format!("{{\"n\":{n}}}")));
            assert_eq!(params, expected, "{refused:b}");
            assert_eq!(answer["error"]["field"].is_string(), is_refused(n), "{refused:b}");
        }
        assert!(world.gateway.taken.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_envelope_has_options_of_its_own() {
    let world = World::new();
    let body = concat!(
        r#"{"params": {"n":1} , "priority":9,"idempotency_key":"a"}"#,
        "\n",
        r#"{"params":{"n":2}}"#,
        "\n",
        r#"{"params":{"n":3},"priority":10}"#,
        "\n",
        r#"{"params":3}"#,
        "\n",
        r#"{"param":{}}"#,
        "\n",
    );
    let answer = world.bulk("?envelope=true&priority=1", Body::from(body)).await;
    let fields: Vec<_> = answer
        .lines()
        .iter()
        .map(|line| line["error"]["field"].clone())
        .collect();
    assert_eq!(
        fields,
        [
            json!(null),
            json!(null),
            json!("priority"),
            json!("params"),
            json!("param")
        ]
    );
    let calls = world.gateway.take_calls();
    let [Call::Submit(_, tasks)] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_eq!(tasks[0].params, "{\"n\":1}");
    assert_eq!(tasks[0].priority, Priority::MAX);
    assert_eq!(
        tasks[0].options.as_ref().unwrap().idempotency_key.as_deref(),
        Some(&b"a"[..])
    );
    assert_eq!(tasks[1].priority, Priority::new(1).unwrap());
}

#[tokio::test]
async fn a_client_that_does_not_read_can_ask_for_errors_only() {
    let world = World::new();
    let answer = world.bulk("?answer=errors", Body::from("{}\n{}\n7\n{}")).await;
    let lines = answer.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["error"]["line"], 3);
    assert_eq!(lines[1], json!({"accepted": 3, "refused": 1}));
    let empty = world.bulk("", Body::empty()).await;
    assert_eq!((empty.status, empty.body.len()), (StatusCode::OK, 0));
}
