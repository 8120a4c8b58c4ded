//! Upgrades whose pods do not get ready, with real controllers, which say so: what was there before comes back.

use std::time::Instant;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api as Kube, ListParams};
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::pods::{ready, until_rollout, world};
use crate::registry::Registry;
use crate::world::{WORKER, World, eventually};

/// What is said at the end of it.
const BACK: &str = "what was there before runs again";

/// A worker that says on which nodes it may be, and how long it may take to get ready.
fn worker(seconds: u32) -> String {
    let deadline = format!("spec:\n  progressDeadlineSeconds: {seconds}\n  selector");
    let placed = "      nodeSelector: {type: {{ .Values.node }}}\n      terminationGracePeriodSeconds: 0\n      containers:\n";
    WORKER
        .replacen("spec:\n  selector", &deadline, 1)
        .replace("      containers:\n", placed)
}

/// Waits until it is remembered that workers of what is deployed were ready.
async fn until_proven(world: &World) {
    let secrets: Kube<Secret> = Kube::namespaced(world.client(), &world.name());
    eventually(async || {
        let of_helm = ListParams::default().labels("owner=helm,status=deployed");
        let deployed = secrets.list(&of_helm).await.unwrap().items;
        let label = |secret: &Secret, name: &str| secret.labels().get(name).cloned();
        let is_proven = |secret: &Secret| {
            label(secret, "workload-scheduler/ready") == label(secret, "workload-scheduler/wanted")
        };
        if deployed.iter().any(is_proven) {
            Ok(())
        } else {
            Err(format!("{deployed:?}: {}", world.log()))
        }
    })
    .await;
}

async fn until_back(world: &World) -> Value {
    eventually(async || {
        let shown = world.api().get(&World::pipeline("ocr")).await.unwrap();
        let (rollout, image) = (shown.body["rollout"].clone(), world.image().await);
        let is_said = rollout["problem"]
            .as_str()
            .is_some_and(|problem| problem.ends_with(BACK));
        let is_back = rollout["phase"] == "failed" && rollout["ready"] == 1;
        if is_said && is_back && image.as_deref() == Some("worker:1") {
            Ok(rollout)
        } else {
            Err(format!("{image:?}, {rollout}: {}", world.log()))
        }
    })
    .await
}

/// The pods of what comes later are for nodes that there are not.
#[tokio::test]
async fn on_played_nodes_an_upgrade_that_does_not_get_ready_is_taken_back_wherever_the_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    // What it is remembered in, and what is taken back.
    let gate = Gate::before(World::admin().await, &kubeconfig, &["secrets", "deployments"]).await;
    let arguments = [
        ("--worker-url", "http://scheduler:50050"),
        ("--kubeconfig", kubeconfig.to_str().unwrap()),
    ];
    let mut world = World::start_as("", &arguments).await;
    let chart = world.chart("ocr", &[("templates/worker.yaml", &worker(3))]);
    let pipeline = World::pipeline("ocr");
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 1, "max": 1},
        "values": {"image": "worker:1", "node": "kwok"}});
    let created = world.api().post(&world.pipelines(), &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    until_proven(&world).await;
    let mut kills = 0;
    for steps in 0.. {
        let image = format!("worker:of-{steps}");
        let change = json!({"values": {"image": image, "node": "none"}});
        let changed = world.patch(&pipeline, &change).await.unwrap();
        assert_eq!(changed.status, 200, "{}", changed.body);
        eventually(async || {
            let (found, statuses) = (world.image().await, world.statuses().await);
            if found.as_ref() == Some(&image) && statuses.last().is_some_and(|last| last == "deployed") {
                Ok(())
            } else {
                Err(format!("{found:?}, {statuses:?}: {}", world.log()))
            }
        })
        .await;
        // All that is changed from here on is for taking it back.
        gate.hold_after(steps);
        let is_held = tokio::select! {
            () = gate.held() => true,
            _ = until_back(&world) => false,
        };
        if is_held {
            world.kill().await;
            world.restart().await;
            kills += 1;
        }
        gate.open();
        let back = until_back(&world).await;
        let problem = back["problem"].as_str().unwrap();
        assert!(problem.contains("nodes are available"), "{back}");
        assert_eq!(world.statuses().await.last().unwrap(), "deployed");
        if !is_held {
            break;
        }
    }
    println!("taken back: the server was killed at each of {kills} steps");
    assert!(kills > 3, "{kills}");

    // Nobody tries it again, and what is changed is another matter.
    let revisions = world.statuses().await;
    world.kill().await;
    world.restart().await;
    until_back(&world).await;
    assert_eq!(world.statuses().await, revisions);
    let change = json!({"values": {"image": "worker:3", "node": "kwok"}});
    let changed = world.patch(&pipeline, &change).await.unwrap();
    assert_eq!(changed.status, 200, "{}", changed.body);
    world.until_image("worker:3").await;
    until_rollout(&world, "ocr", ready(1)).await;
    let deleted = world.api().delete(&pipeline).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}

/// Kubernetes takes what was changed while there were no pods for complete, and waits for them as long as it takes.
#[tokio::test]
async fn on_played_nodes_an_upgrade_while_no_worker_is_wanted_is_taken_back_when_its_first_one_does_not_come()
{
    let mut world = World::start().await;
    let chart = world.chart("ocr", &[("templates/worker.yaml", &worker(3))]);
    let pipeline = World::pipeline("ocr");
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 0, "max": 1},
        "values": {"image": "worker:1", "node": "kwok"}});
    let created = world.api().post(&world.pipelines(), &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let scale = async |workers: u32| {
        let path = format!("{pipeline}/scale");
        let scaled = world
            .api()
            .post(&path, &json!({"workers": workers}))
            .await
            .unwrap();
        assert_eq!(scaled.status, 200, "{}", scaled.body);
    };
    until_rollout(&world, "ocr", ready(0)).await;
    scale(1).await;
    until_rollout(&world, "ocr", ready(1)).await;
    until_proven(&world).await;
    scale(0).await;
    until_rollout(&world, "ocr", ready(0)).await;

    let change = json!({"values": {"image": "worker:2", "node": "none"}});
    let changed = world.patch(&pipeline, &change).await.unwrap();
    assert_eq!(changed.status, 200, "{}", changed.body);
    world.until_image("worker:2").await;
    until_rollout(&world, "ocr", ready(0)).await;
    scale(1).await;
    let back = until_back(&world).await;
    assert!(
        back["problem"].as_str().unwrap().contains("nodes are available"),
        "{back}"
    );
    let deleted = world.api().delete(&pipeline).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}

#[tokio::test]
async fn in_pods_a_missing_image_is_told_waited_for_at_first_and_taken_back_after_an_upgrade() {
    let registry = Registry::of_tests();
    let mut world = world(&[]).await;
    let chart = world.chart("ocr", &[("templates/worker.yaml", &worker(5))]);
    let image = |name: &str| registry.image(&format!("of-tests-{name}-{}", world.name()));
    let (late, missing) = (image("late"), image("missing"));
    let new = json!({"name": "ocr", "chart": chart, "replicas": {"min": 1, "max": 1},
        "values": {"image": late.name(), "node": "real"}});
    let created = world.api().post(&world.pipelines(), &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let tells = |image: &str, phase: &'static str| {
        let image = image.to_owned();
        move |rollout: &Value| {
            let problem = rollout["problem"].as_str().unwrap_or_default();
            let reasons = ["ErrImagePull", "ImagePullBackOff"];
            let is_told = reasons.iter().any(|reason| problem.contains(reason));
            is_told
                && problem.contains(&image)
                && problem.contains("container agent")
                && rollout["phase"] == phase
        }
    };
    let begun = Instant::now();
    until_rollout(&world, "ocr", tells(late.name(), "deploying")).await;
    println!(
        "image: its absence is told after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    // There is nothing before it: it stays as it is, and gets ready when the image comes.
    until_rollout(&world, "ocr", tells(late.name(), "failed")).await;
    println!("image: given up after {:.1} s", begun.elapsed().as_secs_f64());
    late.push().await;
    until_rollout(&world, "ocr", ready(1)).await;
    println!("image: ready after {:.1} s", begun.elapsed().as_secs_f64());
    until_proven(&world).await;

    let change = json!({"values": {"image": missing.name(), "node": "real"}});
    let begun = Instant::now();
    let changed = world.patch(&World::pipeline("ocr"), &change).await.unwrap();
    assert_eq!(changed.status, 200, "{}", changed.body);
    until_rollout(&world, "ocr", tells(missing.name(), "deploying")).await;
    world.kill().await;
    world.restart().await;
    let is_told = tells(missing.name(), "failed");
    until_rollout(&world, "ocr", |rollout| {
        let problem = rollout["problem"].as_str().unwrap_or_default();
        is_told(rollout) && problem.ends_with(BACK) && rollout["ready"] == 1
    })
    .await;
    println!("image: taken back after {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(world.image().await.as_deref(), Some(late.name()));
    let deleted = world.api().delete(&World::pipeline("ocr")).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    world.until_gone().await;
    world.stop().await;
}
