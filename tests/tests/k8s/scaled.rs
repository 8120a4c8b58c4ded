//! Pods scaled by KEDA, which asks the server how many there are to be.

use std::time::Instant;

use serde_json::json;

use crate::pods::{ready, until_rollout, world};
use crate::world::{PIPELINES, World, eventually};

/// How long a task takes, and how many there are: more than one worker gets done in the time that is wanted.
const TASK_SECONDS: u32 = 4;
const TASKS: u32 = 24;
const MOST: u64 = 4;

#[tokio::test]
async fn in_pods_keda_brings_workers_from_none_to_many_and_back_by_the_work_that_waits() {
    let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("charts");
    let mut world = world(&[("--chart-root", chart.to_str().unwrap())]).await;
    let new = json!({"name": "slow", "chart": chart.join("pipeline"), "replicas": {"min": 0, "max": MOST}, "values": {
        "pipeline": [{"executor": "sleep", "commands": [format!("sleep {TASK_SECONDS}")]}],
        "executors": [{"name": "sleep", "image": "workload-scheduler/busybox:0.1.0"}],
        "autoscaling": {"enabled": true, "targetSeconds": 5, "taskSeconds": TASK_SECONDS,
            "cooldownSeconds": 5, "pollingIntervalSeconds": 2},
        "nodeSelector": {"type": "real"}}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    // A deployment begins with one pod; without work KEDA takes it away.
    until_rollout(&world, "slow", ready(0)).await;

    let begun = Instant::now();
    let seconds = |since: Instant| since.elapsed().as_secs_f64();
    for _ in 0..TASKS {
        let task = world
            .api()
            .post(&World::pipeline("slow"), &json!({}))
            .await
            .unwrap();
        assert_eq!(task.status, 202, "{}", task.body);
    }
    until_rollout(&world, "slow", |rollout| rollout["wanted"] != 0).await;
    println!("keda: a worker wanted after {:.1} s", seconds(begun));
    until_rollout(&world, "slow", |rollout| rollout["ready"] != 0).await;
    println!("keda: a worker ready after {:.1} s", seconds(begun));
    until_rollout(&world, "slow", ready(MOST)).await;
    println!("keda: {MOST} workers ready after {:.1} s", seconds(begun));
    eventually(async || {
        let path = format!("{}/tasks?state=succeeded&limit=100", World::pipeline("slow"));
        let tasks = world.api().get(&path).await.unwrap();
        let count = tasks.body["items"].as_array().map_or(0, Vec::len);
        if count == TASKS as usize {
            Ok(())
        } else {
            Err(format!("{count} tasks succeeded: {}", tasks.body))
        }
    })
    .await;
    println!(
        "keda: {TASKS} tasks of {TASK_SECONDS} s done after {:.1} s",
        seconds(begun)
    );
    let idle = Instant::now();
    until_rollout(&world, "slow", ready(0)).await;
    println!(
        "keda: no worker wanted {:.1} s after the last task",
        seconds(idle)
    );

    // The work of a second time finds a worker too.
    let path = format!("{}?wait=60s", World::pipeline("slow"));
    let again = Instant::now();
    let task = world.api().post(&path, &json!({})).await.unwrap();
    assert_eq!(task.body["state"], "succeeded", "{}", task.body);
    println!(
        "keda: from none, a task of {TASK_SECONDS} s took {:.1} s",
        seconds(again)
    );
    let deleted = world.api().delete(&World::pipeline("slow")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}
