//! What an operator looks with: audits of a running system, and recordings that are replayed and explained.

use std::path::Path;
use std::process::Output;

use futures::TryStreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::worker::LedgerWorker;
use crate::world::{Pipeline, World, run};

/// Runs the `scheduler` program.
async fn scheduler(arguments: &[&str]) -> Output {
    let program = scheduler_examples::binaries().unwrap().join("scheduler");
    let mut command = Command::new(program);
    command.args(arguments).env_remove("SCHEDULER_API_KEY");
    command.output().await.unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

/// Of each partition: how many offsets, results, dead letters, in memory or parked. All must add up.
async fn audit(pipeline: &Pipeline) -> [u64; 4] {
    let audits = pipeline
        .api
        .get(&format!("{}/audit", pipeline.path))
        .await
        .unwrap()
        .ok()
        .unwrap();
    let of = |name: &str| {
        audits
            .as_array()
            .unwrap()
            .iter()
            .map(|audit| audit[name].as_u64().unwrap())
            .sum()
    };
    assert!(
        audits
            .as_array()
            .unwrap()
            .iter()
            .all(|audit| audit["adds_up"] == true),
        "{audits}"
    );
    assert_eq!([of("absent"), of("lost")], [0, 0]);
    let left: u64 = of("live") + of("parked");
    [of("offsets"), of("finished"), of("dead"), left]
}

#[test]
fn an_audit_accounts_for_every_task_while_it_runs_and_after_a_crash() {
    run(async {
        let mut world = World::start_with(&["--grace-seconds", "1"]).await;
        let policy = json!({"partitions": 3, "policy": {"retry": {"max_attempts": 1}}});
        let pipeline = world.pipeline("counted", policy).await;
        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 10);
        let good = pipeline.submit_all((0..60).map(|n| json!({"n": n}))).await;
        let held = pipeline
            .submit_all((0..5).map(|n| json!({"n": n, "hold": true})))
            .await;
        let later = pipeline.submit_with("?delay=3600s", json!({"later": true})).await;
        for id in &good {
            pipeline.ended(id).await;
        }
        for id in &held {
            pipeline.until_state(id, "running").await;
        }
        assert_eq!(audit(&pipeline).await, [66, 60, 0, 6]);

        let url = world.server().http().to_owned();
        let output = scheduler(&["audit", &url]).await;
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("1 pipelines, 3 partitions: every offset is accounted for"),
            "{}",
            said(&output)
        );

        world.kill().await;
        world.restart().await;
        worker.release().await;
        for id in &held {
            assert_eq!(pipeline.ended(id).await["state"], "succeeded");
        }
        pipeline
            .post(&format!("/tasks/{later}/cancel"), &Value::Null)
            .await;
        pipeline.ended(&later).await;
        // The command waits for shards that come up; the audit after it finds them up.
        let output = scheduler(&["audit", &url, "--application", "myname", "--pipeline", "counted"]).await;
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(audit(&pipeline).await, [66, 66, 0, 0]);

        let output = scheduler(&["audit", &url, "--application", "myname", "--pipeline", "none"]).await;
        assert!(
            !output.status.success() && said(&output).contains("no pipeline myname/none"),
            "{}",
            said(&output)
        );
        world.stop().await;
        let output = scheduler(&["audit", &url]).await;
        assert!(
            !output.status.success() && said(&output).contains("does not answer"),
            "{}",
            said(&output)
        );
    });
}

/// Writes a recording of `bytes` bytes into a file, from when the shard has begun to record.
async fn record(pipeline: &Pipeline, bytes: usize, file: &Path) -> impl Future<Output = ()> + use<> {
    let path = format!("{}/recording?bytes={bytes}", pipeline.path);
    let response = pipeline.api.request(Method::POST, &path).send().await.unwrap();
    assert!(response.status().is_success());
    let mut file = tokio::fs::File::create(file).await.unwrap();
    async move {
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.try_next().await.unwrap() {
            file.write_all(&piece).await.unwrap();
        }
        file.flush().await.unwrap();
    }
}

#[test]
fn a_recording_of_a_running_shard_replays_bit_for_bit_and_explains_a_task() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("recorded", json!({})).await;
        let _worker = LedgerWorker::start(&world, &pipeline, "worker", 4);
        let before = pipeline.submit(json!({"n": 0})).await;
        pipeline.ended(&before).await;

        let file = world.path().join("shard.tape");
        let name = file.to_str().unwrap();
        let recording = tokio::spawn(record(&pipeline, 20_000, &file).await);
        let first = pipeline.submit(json!({"n": 1})).await;
        pipeline.ended(&first).await;
        // It ends by itself when it is as long as was asked for.
        while !recording.is_finished() {
            let ids = pipeline.submit_all((0..50).map(|n| json!({"n": n}))).await;
            for id in &ids {
                pipeline.ended(id).await;
            }
        }
        recording.await.unwrap();

        let output = scheduler(&["replay", name]).await;
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("every decision is as it was recorded"),
            "{}",
            said(&output)
        );
        let output = scheduler(&["replay", name, "--task", &first]).await;
        assert!(output.status.success(), "{}", said(&output));
        for step in ["arrives ", "lease ", "succeeded with", "save checkpoint"] {
            assert!(said(&output).contains(step), "no {step:?} in {}", said(&output));
        }
        let output = scheduler(&["replay", name, "--task", "t999-0-0"]).await;
        assert!(
            !output.status.success() && said(&output).contains("this is a recording of"),
            "{}",
            said(&output)
        );

        // A task with other params than were recorded is not what was leased.
        let mut bytes = std::fs::read(&file).unwrap();
        let params = br#"{"n":1}"#;
        let at = bytes
            .windows(params.len())
            .position(|window| window == params)
            .unwrap();
        bytes[at + 5] = b'2';
        std::fs::write(&file, bytes).unwrap();
        let output = scheduler(&["replay", name, "--quiet"]).await;
        assert!(
            !output.status.success() && said(&output).contains("OTHERWISE"),
            "{}",
            said(&output)
        );

        // The shard goes on as if nothing had been.
        let last = pipeline.submit(json!({"n": 2})).await;
        assert_eq!(pipeline.ended(&last).await["state"], "succeeded");
        assert_eq!(audit(&pipeline).await[3], 0);
        world.stop().await;
    });
}
