//! Why a task does not run: told by whoever would have it run.

use serde_json::{Value, json};

use crate::worker::LedgerWorker;
use crate::world::{Pipeline, World, run};

/// Asks until it is told this reason; what else was said.
async fn told(pipeline: &Pipeline, id: &str, reason: &str) -> Value {
    loop {
        let mut task = pipeline.task(id).await;
        if task["waiting"]["reason"] == reason {
            return task["waiting"].take();
        }
    }
}

#[test]
fn who_asks_for_a_task_that_waits_is_told_why() {
    run(async {
        let mut world = World::start().await;
        // All in one partition, so that they stand in one queue; a window that is full soon.
        let more = json!({"partitions": 1, "policy": {"window": {"max_tasks": 4}}});
        let pipeline = world.pipeline("waits", more).await;
        let urgent = pipeline.submit_with("?priority=9", json!({})).await;
        told(&pipeline, &urgent, "no_worker").await;
        let later = pipeline.submit_with("?delay=1h", json!({})).await;
        told(&pipeline, &later, "not_due").await;
        pipeline.post("/pause", &json!({})).await;
        let paused = told(&pipeline, &urgent, "paused").await;
        assert!(paused["detail"].as_str().unwrap().contains("resume"), "{paused}");

        pipeline.post("/resume", &json!({})).await;
        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 1);
        pipeline.ended(&urgent).await;
        let running = pipeline.submit(json!({"hold": true})).await;
        worker.says("start").await;
        assert_eq!(pipeline.task(&running).await["waiting"], Value::Null);
        let next = pipeline.submit(json!({})).await;
        assert_eq!(told(&pipeline, &next, "behind_others").await["ahead"], 0);
        let after = pipeline.submit(json!({})).await;
        assert_eq!(told(&pipeline, &after, "behind_others").await["ahead"], 1);
        let ids = pipeline.submit_all((0..4).map(|n| json!({"n": n}))).await;
        let last = told(&pipeline, &ids[3], "in_log").await;
        assert!(
            last["ahead"]
                .as_u64()
                .is_some_and(|ahead| (1..=3).contains(&ahead)),
            "{last}"
        );
        pipeline
            .post(&format!("/tasks/{running}/cancel"), &json!({}))
            .await;
        for id in [&next, &after, &ids[3]] {
            let ended = pipeline.ended(id).await;
            assert_eq!(
                (&ended["state"], &ended["waiting"]),
                (&json!("succeeded"), &Value::Null)
            );
        }
        world.stop().await;
    });
}
