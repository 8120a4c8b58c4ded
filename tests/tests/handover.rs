//! A deployment goes from one node of a cluster to another: real servers on Kafka and TiDB, the real helm, a real API server.
#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

#[path = "e2e_cluster/storage.rs"]
#[expect(dead_code, reason = "this is for other tests as well")]
mod storage;
#[path = "helm/world.rs"]
#[expect(dead_code, reason = "this is for other tests as well")]
mod world;

use std::process::{Child, Command, Stdio};

use serde_json::json;
use storage::Storage;
use world::{Another, PIPELINES, WORKER, World, eventually, led_to};

const DEPLOYED: &str = "the chart is deployed";
const TAKEN_BACK: &str = "takes back what helm had begun";

/// Two nodes, and a pipeline whose chart is deployed by the one that the world is about.
async fn deployed(storage: &Storage) -> (World, Another) {
    let arguments = storage.arguments();
    let mut more = vec![("--worker-url", "http://scheduler:50050")];
    more.extend(
        arguments
            .chunks_exact(2)
            .map(|pair| (pair[0].as_str(), pair[1].as_str())),
    );
    let mut world = World::start_as("", &more).await;
    let mut other = world.another().await;
    let chart = world.chart("ocr", &[("templates/worker.yaml", WORKER)]);
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 1, "max": 4}, "values": {"image": "worker:1"}});
    let created = world.api().post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    world.until_image("worker:1").await;
    world.until_replicas(1).await;
    until_deployed(&world).await;
    if !world.log().contains(DEPLOYED) {
        world.swap(&mut other);
    }
    assert!(world.log().contains(DEPLOYED), "{}", world.log());
    (world, other)
}

/// Waits until helm has come to an end.
async fn until_deployed(world: &World) {
    eventually(async || {
        let statuses = world.statuses().await;
        match statuses.last() {
            Some(last) if last == "deployed" => Ok(()),
            _ => Err(format!("{statuses:?}: {}", world.log())),
        }
    })
    .await;
}

/// Asks for so many workers until it is known who has the pipeline, and waits until there are to be so many.
async fn scale(world: &World, workers: i32) {
    let path = format!("{}/scale", World::pipeline("ocr"));
    eventually(async || {
        let scaled = world
            .api()
            .post(&path, &json!({"workers": workers}))
            .await
            .unwrap();
        match scaled.status.as_u16() {
            200 => Ok(()),
            503 => Err(format!("{}: {}", scaled.body, world.log())),
            other => panic!("{other}: {}", scaled.body),
        }
    })
    .await;
    world.until_replicas(workers).await;
}

/// Helm as a node runs it, which is not done before pods are ready: here that is never.
fn helm_that_goes_on(world: &World) -> Child {
    let mut helm = Command::new(led_to("SCHEDULER_TEST_HELM"));
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(name, world.directory().join("helm-of-the-dead"));
    }
    helm.args(["upgrade", "ocr"])
        .arg(world.directory().join("ocr"))
        .args([
            "--namespace",
            &world.name(),
            "--set",
            "image=worker:half",
            "--wait",
            "--kubeconfig",
        ])
        .arg(led_to("SCHEDULER_TEST_KUBECONFIG"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_node_takes_over_what_a_killed_one_had_deployed_and_had_begun_to_deploy() {
    let storage = Storage::new().await;
    let (mut world, mut other) = deployed(&storage).await;
    scale(&world, 3).await;
    let mut helm = helm_that_goes_on(&world);
    eventually(async || match world.statuses().await.pop() {
        Some(last) if last == "pending-upgrade" => Ok(()),
        last => Err(format!("{last:?}")),
    })
    .await;
    world.until_image("worker:half").await;
    // The node and what it had started are gone with their machine.
    world.kill().await;
    helm.kill().unwrap();
    helm.wait().unwrap();
    world.swap(&mut other);
    assert!(!world.log().contains(DEPLOYED), "{}", world.log());

    let change = json!({"values": {"image": "worker:2"}});
    let changed = world.patch(&World::pipeline("ocr"), &change).await.unwrap();
    assert_eq!(changed.status, 200, "{}", changed.body);
    world.until_image("worker:2").await;
    until_deployed(&world).await;
    assert!(world.log().contains(TAKEN_BACK), "{}", world.log());
    scale(&world, 2).await;

    // The one that was killed comes back, and the other leaves in order: nothing is installed for that.
    world.swap(&mut other);
    world.restart().await;
    world.swap(&mut other);
    let revisions = world.statuses().await;
    world.stop().await;
    world.swap(&mut other);
    scale(&world, 4).await;
    assert_eq!(world.statuses().await, revisions);
    world.until_image("worker:2").await;

    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    assert!(world.deployments().await.is_empty());
    assert!(world.namespace().await.is_none());
    world.stop().await;
}
