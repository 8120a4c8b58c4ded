//! Which pods go when there are to be fewer: those that have nothing to do.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api as Kube, ListParams};
use scheduler_examples::Answer;
use serde_json::{Value, json};

use crate::pods::{ready, until_rollout, world};
use crate::world::{PIPELINES, World, eventually};

/// Says in which pod it is, and takes as long as the task says.
const STEP: &str = "echo at $(hostname); sleep {{seconds}}";

async fn created(values: Value, replicas: Value) -> World {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("charts");
    let world = world(&[("--chart-root", charts.to_str().unwrap())]).await;
    let mut new = json!({"name": "slow", "chart": charts.join("pipeline"), "replicas": replicas, "values": {
        "pipeline": [{"executor": "sleep", "commands": [STEP]}],
        "params": {"required": ["seconds"], "properties": {"seconds": {"type": "integer"}}},
        "executors": [{"name": "sleep", "image": "workload-scheduler/busybox:0.1.0"}],
        "nodeSelector": {"type": "real"}}});
    for (name, value) in values.as_object().unwrap() {
        new["values"][name] = value.clone();
    }
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    world
}

async fn submit(world: &World, seconds: u32) -> String {
    let task: Answer = world
        .api()
        .post(&World::pipeline("slow"), &json!({"seconds": seconds}))
        .await
        .unwrap();
    assert_eq!(task.status, 202, "{}", task.body);
    let id = task.body["id"].as_str().unwrap();
    format!("{}/tasks/{id}", World::pipeline("slow"))
}

async fn until_state(world: &World, task: &str, state: &str) -> Value {
    eventually(async || {
        let shown = world.api().get(task).await.unwrap().body;
        if shown["state"] == state {
            Ok(shown)
        } else {
            Err(format!("not {state}: {shown}: {}", world.log()))
        }
    })
    .await
}

/// Names of the pods that are not on their way out.
async fn pods(world: &World) -> BTreeSet<String> {
    let pods: Kube<Pod> = Kube::namespaced(world.client(), &world.name());
    let all = pods.list(&ListParams::default()).await.unwrap().items;
    let there = all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    there.map(kube::ResourceExt::name_any).collect()
}

/// Pods that are marked as busy.
async fn marked(world: &World) -> BTreeSet<String> {
    let pods: Kube<Pod> = Kube::namespaced(world.client(), &world.name());
    let all = pods.list(&ListParams::default()).await.unwrap().items;
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let marked = all.iter().filter(|pod| pod.annotations().contains_key(cost));
    marked.map(kube::ResourceExt::name_any).collect()
}

/// Where a task was done, and that it was done at once.
fn pod_of(task: &Value) -> String {
    assert_eq!(task["attempts"], 1, "{task}");
    let said = task["output"]["1:sleep"][0].as_str().unwrap();
    said.trim().strip_prefix("at ").unwrap().to_owned()
}

async fn end(mut world: World) {
    let deleted = world.api().delete(&World::pipeline("slow")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}

#[tokio::test]
async fn in_pods_idle_ones_go_and_the_busy_one_stays_when_there_are_to_be_fewer() {
    let bounds = |workers: u32| json!({"min": workers, "max": workers});
    let world = created(json!({}), bounds(4)).await;
    let scale = async |workers: u32| {
        let change = json!({"replicas": bounds(workers)});
        let scaled = world.patch(&World::pipeline("slow"), &change).await.unwrap();
        assert_eq!(scaled.status, 200, "{}", scaled.body);
    };
    for round in 0..2 {
        scale(4).await;
        until_rollout(&world, "slow", ready(4)).await;
        assert_eq!(marked(&world).await, BTreeSet::new(), "nobody is to go");
        // All have a task, and the last gets one that is long: of its own accord Kubernetes would take the youngest pods first.
        let mut short = Vec::new();
        for _ in 0..3 {
            short.push(submit(&world, 2).await);
        }
        let long = submit(&world, 40).await;
        until_state(&world, &long, "running").await;
        for task in &short {
            until_state(&world, task, "succeeded").await;
        }
        let begun = Instant::now();
        scale(1).await;
        eventually(async || match pods(&world).await {
            left if left.len() == 1 => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        let left = pods(&world).await;
        println!(
            "spared: one pod is left after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        assert_eq!(marked(&world).await.intersection(&left).count(), 1);
        let ended = until_state(&world, &long, "succeeded").await;
        assert_eq!(left, BTreeSet::from([pod_of(&ended)]), "round {round}");
        // It is idle now, and as good as any other once there are to be fewer again.
        if round == 0 {
            scale(2).await;
            until_rollout(&world, "slow", ready(2)).await;
            scale(1).await;
            eventually(async || match marked(&world).await {
                marked if marked.is_empty() => Ok(()),
                marked => Err(format!("{marked:?} are idle")),
            })
            .await;
        }
    }
    end(world).await;
}

#[tokio::test]
async fn in_pods_idle_ones_go_and_the_busy_one_stays_when_keda_takes_some_away() {
    let autoscaling = json!({"autoscaling": {"enabled": true, "targetSeconds": 60, "taskSeconds": 60,
        "cooldownSeconds": 5, "pollingIntervalSeconds": 2}});
    let world = created(autoscaling, json!({"min": 0, "max": 4})).await;
    until_rollout(&world, "slow", ready(0)).await;
    // Four workers are wanted for four tasks, and each gets one; the long one is for the last that comes.
    let mut short = Vec::new();
    for _ in 0..3 {
        short.push(submit(&world, 30).await);
    }
    let long = submit(&world, 80).await;
    until_rollout(&world, "slow", ready(4)).await;
    for task in &short {
        until_state(&world, task, "succeeded").await;
    }
    let begun = Instant::now();
    eventually(async || match pods(&world).await {
        left if left.len() == 1 => Ok(()),
        left => Err(format!("{left:?}: {}", world.log())),
    })
    .await;
    println!(
        "spared: KEDA has left one pod after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let left = pods(&world).await;
    let ended = until_state(&world, &long, "succeeded").await;
    assert_eq!(left, BTreeSet::from([pod_of(&ended)]));
    end(world).await;
}
