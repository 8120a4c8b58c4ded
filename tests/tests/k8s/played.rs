//! Charts deployed on nodes that are played: pods are scheduled, counted against quotas and said to run, and nothing runs in them.

use serde_json::{Value, json};

use crate::world::{PIPELINES, WORKER, World, eventually};

/// Only nodes that are played take these pods.
const SELECTED: &str = "      nodeSelector: {type: kwok}\n      containers:\n";

async fn until_rollout(world: &World, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(async || {
        let shown = world.api().get(&World::pipeline("ocr")).await.unwrap();
        let rollout = shown.body["rollout"].clone();
        if holds(&rollout) {
            Ok(rollout)
        } else {
            Err(rollout.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn on_played_nodes_workers_get_ready_are_scaled_and_are_gone_with_their_pipeline() {
    let mut world = World::start().await;
    let worker = WORKER.replace("      containers:\n", SELECTED);
    let chart = world.chart("ocr", &[("templates/worker.yaml", &worker)]);
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 2, "max": 5}, "values": {"image": "worker:1"}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let ready = |count: u64| {
        move |rollout: &Value| {
            rollout["phase"] == "ready" && rollout["ready"] == count && rollout["wanted"] == count
        }
    };
    until_rollout(&world, ready(2)).await;
    for count in [5, 2] {
        let bounds = json!({"replicas": {"min": count, "max": count}});
        let scaled = world.patch(&World::pipeline("ocr"), &bounds).await.unwrap();
        assert_eq!(scaled.status, 200, "{}", scaled.body);
        until_rollout(&world, ready(count)).await;
    }
    let changed = world
        .patch(&World::pipeline("ocr"), &json!({"values": {"image": "worker:2"}}))
        .await
        .unwrap();
    assert_eq!(changed.status, 200, "{}", changed.body);
    world.until_image("worker:2").await;
    until_rollout(&world, ready(2)).await;

    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    assert!(world.deployments().await.is_empty());
    world.until_gone().await;
    world.stop().await;
}

#[tokio::test]
async fn on_played_nodes_a_quota_that_is_used_up_is_told_as_the_reason() {
    let mut world = World::start_with("quota: {pods: \"1\"}\n").await;
    let worker = WORKER.replace("      containers:\n", SELECTED);
    let chart = world.chart("ocr", &[("templates/worker.yaml", &worker)]);
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 2, "max": 2}, "values": {"image": "worker:1"}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let failed = until_rollout(&world, |rollout| rollout["phase"] == "failed").await;
    assert!(
        failed["problem"].as_str().unwrap().contains("exceeded quota"),
        "{failed}"
    );
    assert_eq!((&failed["wanted"], &failed["ready"]), (&json!(2), &json!(1)));
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}

#[tokio::test]
async fn on_played_nodes_a_pod_that_no_node_takes_is_told_as_the_reason() {
    let mut world = World::start().await;
    let worker = WORKER.replace(
        "      containers:\n",
        "      nodeSelector: {type: none}\n      containers:\n",
    );
    let chart = world.chart("ocr", &[("templates/worker.yaml", &worker)]);
    let new = json!({"name": "ocr", "chart": chart, "values": {"image": "worker:1"}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let told = until_rollout(&world, |rollout| {
        rollout["problem"]
            .as_str()
            .is_some_and(|problem| problem.contains("nodes are available"))
    })
    .await;
    assert_eq!(told["phase"], "deploying");
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.stop().await;
}
