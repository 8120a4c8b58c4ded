//! Workers that really run: the images of agent and executor in pods of a real node, and real tasks through them.

use std::path::Path;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api as Kube, DeleteParams, ListParams};
use scheduler_examples::Pictures;
use serde_json::{Value, json};

use crate::web::Web;
use crate::world::{PIPELINES, World, eventually, led_to};

/// This machine, as pods reach it.
pub(crate) fn node() -> String {
    led_to("SCHEDULER_TEST_NODE")
}

/// A server that pods reach.
pub(crate) async fn world(more: &[(&str, &str)]) -> World {
    let grpc = format!("{}:0", node());
    let mut arguments = vec![("--grpc", grpc.as_str())];
    arguments.extend(more);
    World::start_as("", &arguments).await
}

/// Waits until the rollout of a pipeline is as it is to be.
pub(crate) async fn until_rollout(world: &World, pipeline: &str, holds: impl Fn(&Value) -> bool) {
    eventually(async || {
        let shown = world.api().get(&World::pipeline(pipeline)).await.unwrap();
        let rollout = &shown.body["rollout"];
        if holds(rollout) {
            Ok(())
        } else {
            Err(format!("{pipeline}: {rollout}: {}", world.log()))
        }
    })
    .await;
}

pub(crate) fn ready(count: u64) -> impl Fn(&Value) -> bool {
    move |rollout| rollout["phase"] == "ready" && rollout["ready"] == count && rollout["wanted"] == count
}

/// Has a task done, and gives it as it ended.
pub(crate) async fn done(world: &World, pipeline: &str, params: &Value) -> Value {
    let path = format!("{}?wait=60s", World::pipeline(pipeline));
    let task = world.api().post(&path, params).await.unwrap();
    assert_eq!(task.body["state"], "succeeded", "{}: {}", task.body, world.log());
    task.body
}

#[tokio::test]
async fn in_pods_the_example_of_ocr_reads_pictures() {
    let charts = scheduler_examples::directory().join("charts");
    let mut world = world(&[("--chart-root", charts.to_str().unwrap())]).await;
    let pictures = Web::serve(&scheduler_examples::directory().join("pictures"), &node()).await;
    let begun = Instant::now();
    let new = json!({"name": "ocr", "chart": charts.join("ocr"), "replicas": {"min": 1, "max": 3},
        "values": {"nodeSelector": {"type": "real"}}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    until_rollout(&world, "ocr", ready(1)).await;
    println!("ocr: ready after {:.1} s", begun.elapsed().as_secs_f64());
    for name in Pictures::names().unwrap() {
        let begun = Instant::now();
        let task = done(
            &world,
            "ocr",
            &json!({"url": pictures.url(&format!("{name}.png"))}),
        )
        .await;
        println!("ocr: {name} read in {:.1} s", begun.elapsed().as_secs_f64());
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let outputs = task["output"]["2:tesseract"].as_array().unwrap();
        let read = outputs.iter().any(|output| {
            words(output.as_str().unwrap_or_default()) == words(&Pictures::text(&name).unwrap())
        });
        assert!(read, "{task}");
    }
    let refused = world
        .api()
        .post(&World::pipeline("ocr"), &json!({"url": "file:///etc/passwd"}))
        .await
        .unwrap();
    assert_eq!(refused.status, 400, "{}", refused.body);

    let more = json!({"replicas": {"min": 2, "max": 3}});
    let scaled = world.patch(&World::pipeline("ocr"), &more).await.unwrap();
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    until_rollout(&world, "ocr", ready(2)).await;
    let begun = Instant::now();
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    println!("ocr: removed in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(world.deployments().await.is_empty());
    world.until_gone().await;
    world.stop().await;
}

#[tokio::test]
async fn in_pods_one_that_is_to_go_ends_its_task_first() {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("charts");
    let mut world = world(&[("--chart-root", charts.to_str().unwrap())]).await;
    let new = json!({"name": "slow", "chart": charts.join("pipeline"), "replicas": {"min": 1, "max": 1}, "values": {
        "pipeline": [{"executor": "sleep", "commands": ["sleep 8", "echo slept"]}],
        "executors": [{"name": "sleep", "image": "workload-scheduler/busybox:0.1.0"}],
        "nodeSelector": {"type": "real"}}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    until_rollout(&world, "slow", ready(1)).await;
    let task = world
        .api()
        .post(&World::pipeline("slow"), &json!({}))
        .await
        .unwrap();
    let task = format!(
        "{}/tasks/{}",
        World::pipeline("slow"),
        task.body["id"].as_str().unwrap()
    );
    let until = async |state: &str| {
        eventually(async || {
            let shown = world.api().get(&task).await.unwrap().body;
            if shown["state"] == state {
                Ok(shown)
            } else {
                Err(format!("not {state}: {shown}: {}", world.log()))
            }
        })
        .await
    };
    until("running").await;
    let pods: Kube<Pod> = Kube::namespaced(world.client(), &world.name());
    let all = pods.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), 1);
    pods.delete(&all[0].name_any(), &DeleteParams::default())
        .await
        .unwrap();
    let ended = until("succeeded").await;
    assert_eq!(ended["attempts"], 1, "{ended}");
    assert_eq!(ended["output"]["1:sleep"], json!(["", "slept\n"]), "{ended}");
    let deleted = world.api().delete(&World::pipeline("slow")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}
