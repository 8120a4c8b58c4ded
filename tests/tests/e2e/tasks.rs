//! What can be done with tasks.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::worker::LedgerWorker;
use crate::world::{World, eventually, run};

#[test]
fn tasks_are_cancelled_while_they_wait_while_they_are_delayed_and_while_they_run() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("cancel", json!({})).await;
        let queued = pipeline.submit(json!({})).await;
        let delayed = pipeline.submit_with("?delay=1h", json!({})).await;
        let parked = pipeline.submit_with("?delay=30days", json!({})).await;
        pipeline.until_state(&delayed, "delayed").await;
        for id in [&queued, &delayed, &parked] {
            pipeline.post(&format!("/tasks/{id}/cancel"), &json!({})).await;
            assert_eq!(pipeline.ended(id).await["state"], "cancelled");
        }
        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 4);
        let running = pipeline.submit(json!({"hold": true})).await;
        worker.says("start").await;
        pipeline
            .post(&format!("/tasks/{running}/cancel"), &json!({}))
            .await;
        worker.says("cancelled").await;
        assert_eq!(pipeline.ended(&running).await["state"], "cancelled");
        let again = pipeline
            .post(&format!("/tasks/{running}/cancel"), &json!({}))
            .await;
        assert_eq!(again["state"], "cancelled", "it was, and is");
        let done = pipeline.submit(json!({"n": 1})).await;
        pipeline.output(&done).await;
        let late = format!("{}/cancel", pipeline.task_path(&done));
        let late = pipeline.api.post(&late, &json!({})).await.unwrap();
        assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.body);
        assert_eq!(
            worker.ledger().started.len(),
            2,
            "what was cancelled before did not run"
        );
        assert_eq!(pipeline.list("&state=cancelled", 10).await.len(), 4);
        world.stop().await;
    });
}

#[test]
fn commands_end_with_their_task_when_it_is_cancelled_and_when_its_time_is_over() {
    run(async {
        let mut world = World::start().await;
        let sleep = "touch started; sleep 1000 & sleep 1000; wait";
        let policy = json!({"timeouts": {"run": "1s"}, "retry": {"max_attempts": 1}});
        let pipeline = world.shell("ends", &[sleep], json!({"policy": policy})).await;
        let sleeps = || {
            world
                .worker_processes()
                .iter()
                .filter(|(_, name)| name == "sleep")
                .count()
        };

        let timed_out = pipeline.submit(json!({})).await;
        let task = pipeline.ended(&timed_out).await;
        assert_eq!(task["state"], "dead", "{task}");
        eventually("its commands are gone", || sleeps() == 0).await;

        let change = json!({"policy": {"timeouts": {"run": "1h"}}});
        let changed = pipeline.api.send(reqwest::Method::PATCH, &pipeline.path, &change);
        changed.await.unwrap().ok().unwrap();
        let cancelled = pipeline.submit(json!({})).await;
        eventually("its commands run", || sleeps() == 2).await;
        pipeline
            .post(&format!("/tasks/{cancelled}/cancel"), &json!({}))
            .await;
        assert_eq!(pipeline.ended(&cancelled).await["state"], "cancelled");
        eventually("its commands are gone", || sleeps() == 0).await;
        world.stop().await;
    });
}

#[test]
fn a_task_that_fails_is_tried_again_and_one_that_is_delayed_can_be_hurried() {
    run(async {
        let mut world = World::start().await;
        let policy = json!({"retry": {"initial_backoff": "5ms", "max_attempts": 4}});
        let pipeline = world.pipeline("retry", json!({"policy": policy})).await;
        let _worker = LedgerWorker::start(&world, &pipeline, "worker", 4);
        let id = pipeline.submit(json!({"succeed_at": 3})).await;
        let task = pipeline.ended(&id).await;
        assert_eq!(
            (&task["state"], &task["attempts"]),
            (&json!("succeeded"), &json!(3)),
            "{task}"
        );

        let delayed = pipeline.submit_with("?delay=1h", json!({"n": 1})).await;
        let task = pipeline.until_state(&delayed, "delayed").await;
        assert!(task["next_attempt_at"].is_string(), "{task}");
        pipeline
            .post(&format!("/tasks/{delayed}/retry"), &json!({}))
            .await;
        assert_eq!(pipeline.output(&delayed).await, json!({"n": 1}));
        let ended = pipeline
            .api
            .post(&format!("{}/retry", pipeline.task_path(&delayed)), &json!({}))
            .await
            .unwrap();
        assert_eq!(ended.status, StatusCode::CONFLICT, "{}", ended.body);
        world.stop().await;
    });
}

#[test]
fn a_task_does_not_begin_before_its_time_and_expires_at_its_deadline() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("times", json!({})).await;
        let late = pipeline.submit_with("?deadline=300ms", json!({})).await;
        let task = pipeline.ended(&late).await;
        assert_eq!(
            (&task["state"], &task["attempts"]),
            (&json!("expired"), &json!(0)),
            "{task}"
        );

        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 1);
        let before = now();
        let delayed = pipeline.submit_with("?delay=400ms", json!({"n": 1})).await;
        let at_once = pipeline.submit(json!({"n": 2})).await;
        pipeline.output(&at_once).await;
        let task = pipeline.ended(&delayed).await;
        let started = millis(task["started_at"].as_str().unwrap_or_else(|| panic!("{task}")));
        // At midnight the day begins anew.
        assert!(started >= before + 400 || started < before, "{before} {started}");

        // A deadline also ends what runs.
        let endless = pipeline
            .submit_with("?deadline=500ms", json!({"hold": true}))
            .await;
        worker.says("cancelled").await;
        assert_eq!(pipeline.ended(&endless).await["state"], "expired");
        world.stop().await;
    });
}

/// Milliseconds since midnight, UTC.
fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() % (24 * 60 * 60 * 1000)
}

/// The same of an RFC 3339 moment with milliseconds.
fn millis(moment: &str) -> u128 {
    let time = moment.split_once('T').unwrap().1.trim_end_matches('Z');
    let (time, millis) = time.split_once('.').unwrap_or((time, "0"));
    let seconds = time
        .split(':')
        .fold(0, |sum, part| sum * 60 + part.parse::<u128>().unwrap());
    seconds * 1000 + millis.parse::<u128>().unwrap()
}

#[test]
fn dead_letters_are_listed_redriven_and_purged() {
    run(async {
        let mut world = World::start().await;
        let policy = json!({"retry": {"initial_backoff": "5ms", "max_attempts": 2}});
        let pipeline = world.pipeline("dead", json!({"policy": policy})).await;
        let _worker = LedgerWorker::start(&world, &pipeline, "worker", 4);
        let exhausted = pipeline.submit(json!({"succeed_at": 3})).await;
        let rejected = pipeline.submit(json!({"reject": true})).await;
        for (id, reason, attempts) in [(&exhausted, "attempts_exhausted", 2), (&rejected, "rejected", 1)] {
            let task = pipeline.ended(id).await;
            assert_eq!(
                (&task["state"], &task["dead_reason"]),
                (&json!("dead"), &json!(reason)),
                "{task}"
            );
            assert_eq!(task["attempts"], attempts, "{task}");
        }
        pipeline
            .until_view("both are kept", |view| view["counts"]["dead"] == 2)
            .await;
        let letters = pipeline
            .api
            .get(&format!("{}/dead-letters", pipeline.path))
            .await
            .unwrap()
            .ok()
            .unwrap();
        let found: BTreeSet<_> = letters["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|letter| letter["id"].as_str().unwrap())
            .collect();
        assert_eq!(
            found,
            BTreeSet::from([exhausted.as_str(), rejected.as_str()]),
            "{letters}"
        );

        let one = pipeline
            .post("/dead-letters/redrive", &json!({"ids": [exhausted]}))
            .await;
        assert_eq!(one["redriven"], 1);
        // Attempts are counted on, so that this one succeeds.
        assert_eq!(pipeline.output(&exhausted).await, json!({"succeed_at": 3}));
        assert_eq!(
            pipeline
                .post("/dead-letters/purge", &json!({"ids": [rejected]}))
                .await["purged"],
            1
        );
        assert_eq!(
            pipeline.post("/dead-letters/purge", &json!({"all": true})).await["purged"],
            0
        );
        let letters = pipeline
            .api
            .get(&format!("{}/dead-letters", pipeline.path))
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(letters["items"], json!([]));
        let gone = pipeline.api.get(&pipeline.task_path(&rejected)).await.unwrap();
        assert_eq!(
            gone.status,
            StatusCode::NOT_FOUND,
            "a purged letter is gone for good"
        );
        world.stop().await;
    });
}

#[test]
fn lists_have_every_task_once_on_pages_of_any_size_and_in_any_state() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("list", json!({"partitions": 3})).await;
        let ids = pipeline.submit_all((0..1_200).map(|n| json!({"n": n}))).await;
        let expected: BTreeSet<String> = ids.iter().cloned().collect();
        let listed = async |states: &str, limit| {
            let tasks = pipeline.list(states, limit).await;
            let found: BTreeSet<String> = tasks
                .iter()
                .map(|task| task["id"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(found.len(), tasks.len(), "none twice");
            found
        };
        pipeline
            .until_view("all are known", |view| view["counts"]["ready"] == 1_200)
            .await;
        for limit in [7, 100, 1_000] {
            assert_eq!(listed("", limit).await, expected, "{limit}");
        }
        assert_eq!(listed("&state=queued", 500).await, expected);
        assert_eq!(listed("&state=succeeded,dead", 500).await, BTreeSet::new());

        let cancelled: BTreeSet<String> = ids.iter().step_by(100).cloned().collect();
        for id in &cancelled {
            pipeline.post(&format!("/tasks/{id}/cancel"), &json!({})).await;
        }
        let _worker = LedgerWorker::start(&world, &pipeline, "worker", 50);
        let rest = expected.len() - cancelled.len();
        pipeline
            .until_view("the rest is done", |view| view["counts"]["succeeded"] == rest)
            .await;
        assert_eq!(listed("&state=cancelled", 5).await, cancelled);
        assert_eq!(listed("&state=succeeded", 111).await.len(), rest);
        assert_eq!(listed("", 333).await, expected);
        world.stop().await;
    });
}

#[test]
fn events_show_a_task_from_the_queue_to_its_end() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("events", json!({})).await;
        let id = pipeline.submit(json!({"n": 1})).await;
        let mut events = pipeline
            .api
            .events(&format!("{}/events", pipeline.task_path(&id)))
            .await
            .unwrap();
        let mut all = pipeline
            .api
            .events(&format!("{}/events", pipeline.path))
            .await
            .unwrap();
        let mut states = Vec::new();
        let first = events.next().await.unwrap().unwrap();
        states.push(first.data["state"].clone());
        let _worker = LedgerWorker::start(&world, &pipeline, "worker", 1);
        let mut end = Value::Null;
        while let Some(event) = events.next().await.unwrap() {
            match event.name.as_str() {
                "task" => states.push(event.data["state"].clone()),
                _ => end = event.data,
            }
        }
        states.dedup();
        assert_eq!(states.first(), Some(&json!("queued")));
        assert_eq!(states.last(), Some(&json!("succeeded")));
        assert_eq!(end, json!({"reason": "finished"}));
        loop {
            let event = all.next().await.unwrap().expect("the pipeline's events go on");
            assert_eq!(event.data["id"], id.as_str());
            if event.data["state"] == "succeeded" {
                break;
            }
        }
        world.stop().await;
        assert_eq!(
            all.next().await.unwrap().unwrap().data,
            json!({"reason": "shutdown"})
        );
    });
}

#[test]
fn a_submission_can_wait_for_the_result_and_says_when_there_is_none_yet() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("wait", json!({})).await;
        let early = pipeline
            .api
            .post(&format!("{}?wait=50ms", pipeline.path), &json!({"n": 1}))
            .await
            .unwrap();
        assert_eq!(early.status, StatusCode::ACCEPTED);
        assert_eq!(early.body["state"], "queued", "{}", early.body);
        let _worker = LedgerWorker::start(&world, &pipeline, "worker", 1);
        let done = pipeline
            .api
            .post(&format!("{}?wait=60s", pipeline.path), &json!({"n": 2}))
            .await
            .unwrap();
        assert_eq!(
            (done.status, &done.body["output"]),
            (StatusCode::OK, &json!({"n": 2})),
            "{}",
            done.body
        );
        pipeline.output(early.body["id"].as_str().unwrap()).await;
        world.stop().await;
    });
}

#[test]
fn a_hundred_thousand_lines_are_a_hundred_thousand_tasks() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("bulk", json!({"partitions": 2})).await;
        let mut lines: Vec<String> = (0..100_000).map(|n| format!("{{\"n\":{n}}}")).collect();
        lines[77_776] = "{\"n\":".to_owned();
        let answers = pipeline.bulk("", lines).await;
        assert_eq!(answers.len(), 100_000);
        assert_eq!(answers[77_776]["error"]["line"], 77_777, "{}", answers[77_776]);
        let ids: BTreeSet<&str> = answers
            .iter()
            .filter_map(|answer| answer["id"].as_str())
            .collect();
        assert_eq!(ids.len(), 99_999);

        let workers: Vec<LedgerWorker> = (0..2)
            .map(|n| LedgerWorker::start(&world, &pipeline, &format!("worker-{n}"), 500))
            .collect();
        let mut last = Value::Null;
        for answer in answers
            .iter()
            .rev()
            .filter(|answer| answer["id"].is_string())
            .step_by(997)
        {
            last = pipeline.output(answer["id"].as_str().unwrap()).await;
        }
        assert!(last["n"].is_u64(), "{last}");
        let view = pipeline
            .until_view("all have ended", |view| view["counts"]["succeeded"] == 99_999)
            .await;
        assert_eq!(
            (&view["counts"]["ready"], &view["counts"]["running"]),
            (&json!(0), &json!(0)),
            "{view}"
        );
        let mut ledger = workers[0].ledger();
        ledger.add(workers[1].ledger());
        assert_eq!(ledger.ended.len(), 99_999);
        assert_eq!(ledger.repeated(), []);
        world.stop().await;
    });
}

#[test]
fn one_idempotency_key_is_one_task() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("keys", json!({})).await;
        let submit = async |n: u32| {
            let request = pipeline.api.request(reqwest::Method::POST, &pipeline.path);
            let answer = request
                .header("idempotency-key", "order-1")
                .json(&json!({"n": n}))
                .send()
                .await
                .unwrap();
            let answer = scheduler_examples::Answer::of(answer)
                .await
                .unwrap()
                .ok()
                .unwrap();
            answer["id"].as_str().unwrap().to_owned()
        };
        let first = submit(1).await;
        let second = submit(2).await;
        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 4);
        worker.says("end").await;
        let other = pipeline.submit(json!({"n": 3})).await;
        pipeline.output(&other).await;
        assert_eq!(worker.ledger().started.len(), 2, "{first} {second}");
        world.stop().await;
    });
}
