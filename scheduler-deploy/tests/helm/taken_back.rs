//! What does not get ready is taken back. Here the test says of pods what a controller would say; with real controllers it is tested where there
//! are nodes.

use bytes::Bytes;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use scheduler_core::port::deploy::{Deployer as _, RolloutPhase, Wanted};
use scheduler_deploy::helm::HelmDeployer;
use serde_json::{Value, json};

use crate::charts::FILES;
use crate::deploy::{has_image, releases, statuses, until_image};
use crate::world::{World, eventually, until};

const REASON: &str = "container agent: ImagePullBackOff: Back-off pulling image \"worker:2\"";

/// Has a controller say of the deployment how it fares.
async fn say(world: &World, status: Value) {
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), &world.namespace());
    let generation = deployments.get("ocr").await.unwrap().metadata.generation;
    let mut status = status;
    status["observedGeneration"] = json!(generation);
    let patch = Patch::Merge(json!({"status": status}));
    deployments
        .patch_status("ocr", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// All of its workers are there.
async fn say_ready(world: &World) {
    let progressing = json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]);
    let (count, nothing) = (json!(4), Value::Null);
    say(
        world,
        json!({"replicas": count, "readyReplicas": count, "updatedReplicas": count, "availableReplicas": count,
            "unavailableReplicas": nothing, "conditions": progressing}),
    )
    .await;
}

/// Its time is over; what was there before is still ready.
async fn say_given_up(world: &World) {
    let progressing = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet \"ocr-2\" has timed out progressing."}]);
    say(
        world,
        json!({"replicas": 2, "readyReplicas": 0, "availableReplicas": 0, "updatedReplicas": 1, "conditions": progressing}),
    )
    .await;
}

/// A pod of the deployment that has no image.
async fn pod_without_image(world: &World, wanted: &Wanted) {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace());
    let label = format!("p{}", wanted.pipeline.0);
    let pod = json!({"metadata": {"name": "ocr-2-x", "labels": {"workload-scheduler/pipeline-id": label}},
        "spec": {"containers": [{"name": "agent", "image": "worker:2"}]}});
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let waiting = json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image \"worker:2\""});
    let status = json!({"containerStatuses": [{"name": "agent", "image": "worker:2", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": waiting}}]});
    let patch = Patch::Merge(json!({"status": status}));
    pods.patch_status("ocr-2-x", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

async fn remove_pod(world: &World) {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace());
    let parameters = DeleteParams::default().grace_period(0);
    pods.delete("ocr-2-x", &parameters).await.unwrap();
}

fn with_image(wanted: &Wanted, version: u64, image: &str) -> Wanted {
    let mut next = Wanted {
        version,
        ..wanted.clone()
    };
    next.deployment.values = Bytes::from(json!({"image": image}).to_string());
    next
}

/// Waits until it is remembered that its workers were ready.
async fn until_proven(world: &World) {
    eventually(async || {
        let labels = releases(world).await.pop().unwrap().labels().clone();
        if labels["workload-scheduler/ready"] == labels["workload-scheduler/wanted"] {
            Ok(())
        } else {
            Err(format!("{labels:?}"))
        }
    })
    .await;
}

/// Waits until what is wanted has failed and `worker:1` is there in its place.
async fn until_taken_back(world: &World, deployer: &HelmDeployer, wanted: &Wanted) {
    let failed = until(deployer, wanted.pipeline, "the end of it", |rollout| {
        rollout.phase == RolloutPhase::Failed && rollout.problem.ends_with("what was there before runs again")
    })
    .await;
    assert!(failed.problem.contains(REASON), "{}", failed.problem);
    assert!(has_image(world, "worker:1").await);
    assert_eq!(statuses(world).await.last().unwrap(), "deployed");
}

/// Deploys `worker:1`, whose workers get ready.
async fn prove(world: &World, deployer: &HelmDeployer, first: &Wanted) {
    deployer.apply(first.clone()).await.unwrap();
    until_image(world, deployer, first, "worker:1").await;
    say_ready(world).await;
    until_proven(world).await;
}

#[tokio::test]
async fn an_upgrade_that_kubernetes_gives_up_is_taken_back_and_tried_again_only_after_something_else() {
    let world = World::new().await;
    let chart = world.chart("ocr", &FILES);
    let deployer = world.deployer().await;
    let first = world.wanted("ocr", &chart);
    prove(&world, &deployer, &first).await;

    let second = with_image(&first, 2, "worker:2");
    deployer.apply(second.clone()).await.unwrap();
    until_image(&world, &deployer, &second, "worker:2").await;
    pod_without_image(&world, &second).await;
    say_given_up(&world).await;
    until_taken_back(&world, &deployer, &second).await;
    // It is scaled as if nothing had been.
    deployer.scale(second.pipeline, 3).await.unwrap();
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 3);
    remove_pod(&world).await;
    say_ready(&world).await;
    let revisions = statuses(&world).await;
    deployer.shutdown().await;
    drop(deployer);

    // Another process knows it, and needs no chart for it.
    let away = world.directory.path().join("away");
    std::fs::rename(&chart, &away).unwrap();
    let deployer = world.deployer().await;
    deployer.apply(second.clone()).await.unwrap();
    until_taken_back(&world, &deployer, &second).await;
    assert_eq!(statuses(&world).await, revisions, "nothing was tried");
    let worker = world.object("apps/v1", "Deployment", "ocr").await;
    assert_eq!(worker.data["spec"]["replicas"], 3);
    std::fs::rename(&away, &chart).unwrap();

    // What was there before is wanted again: nothing is done for that, but what failed may be tried again.
    let third = with_image(&first, 3, "worker:2");
    let back = Wanted {
        version: 3,
        ..first.clone()
    };
    deployer.apply(back.clone()).await.unwrap();
    until(&deployer, back.pipeline, "what was before", |rollout| {
        rollout.phase == RolloutPhase::Ready
    })
    .await;
    assert_eq!(statuses(&world).await, revisions);
    let third = Wanted { version: 4, ..third };
    deployer.apply(third.clone()).await.unwrap();
    until_image(&world, &deployer, &third, "worker:2").await;
    say_ready(&world).await;
    until_proven(&world).await;
    let ready = until(&deployer, third.pipeline, "its workers", |rollout| {
        rollout.phase == RolloutPhase::Ready
    })
    .await;
    assert_eq!(ready.problem, "");
    deployer.remove(third.pipeline, &third.path).await.unwrap();
}

#[tokio::test]
async fn a_first_installation_that_does_not_get_ready_stays_and_so_does_what_replaces_it() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let mut wanted = world.wanted("ocr", &world.chart("ocr", &FILES));
    deployer.apply(wanted.clone()).await.unwrap();
    until_image(&world, &deployer, &wanted, "worker:1").await;
    for version in [2, 3] {
        say_given_up(&world).await;
        until(&deployer, wanted.pipeline, "the end of it", |rollout| {
            rollout.phase == RolloutPhase::Failed && rollout.problem.contains("timed out progressing")
        })
        .await;
        // Nothing was ready before it.
        wanted = with_image(&wanted, version, &format!("worker:{version}"));
        deployer.apply(wanted.clone()).await.unwrap();
        until_image(&world, &deployer, &wanted, &format!("worker:{version}")).await;
    }
    say_ready(&world).await;
    until_proven(&world).await;
    assert_eq!(statuses(&world).await, ["superseded", "superseded", "deployed"]);
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
}

#[tokio::test]
async fn a_rollback_that_was_interrupted_is_begun_anew_without_what_helm_keeps_of_it() {
    let world = World::new().await;
    let chart = world.chart("ocr", &FILES);
    // The upgrade has more than what was there before: it must be gone.
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: of-two}\n";
    let larger = world.chart(
        "larger/ocr",
        &[&FILES[..], &[("templates/more.yaml", more)]].concat(),
    );
    let deployer = world.deployer().await;
    let first = world.wanted("ocr", &chart);
    prove(&world, &deployer, &first).await;
    let mut second = with_image(&first, 2, "worker:2");
    second.deployment.chart = larger;
    deployer.apply(second.clone()).await.unwrap();
    until_image(&world, &deployer, &second, "worker:2").await;
    assert!(
        world
            .names("v1", "ConfigMap")
            .await
            .contains(&"of-two".to_owned())
    );
    deployer.shutdown().await;
    drop(deployer);

    // What a process leaves that was killed while helm took the second back: the word against it, and helm's record of what it had begun.
    let all = releases(&world).await;
    let wanted_of = |index: usize| all[index].labels()["workload-scheduler/wanted"].clone();
    let secrets: Api<k8s_openapi::api::core::v1::Secret> =
        Api::namespaced(world.client.clone(), &world.namespace());
    let word = json!({"metadata": {"labels": {"workload-scheduler/refused": wanted_of(1)},
        "annotations": {"workload-scheduler/problem": REASON}}});
    let parameters = PatchParams::default();
    secrets
        .patch(&all[0].name_any(), &parameters, &Patch::Merge(word))
        .await
        .unwrap();
    let mut begun = secrets.get(&all[0].name_any()).await.unwrap();
    begun.metadata = kube::core::ObjectMeta {
        name: Some("sh.helm.release.v1.ocr.v3".to_owned()),
        labels: begun.metadata.labels,
        ..Default::default()
    };
    let labels = begun.labels_mut();
    labels.insert("version".to_owned(), "3".to_owned());
    labels.insert("status".to_owned(), "pending-rollback".to_owned());
    begun.type_ = Some("helm.sh/release.v1".to_owned());
    secrets.create(&PostParams::default(), &begun).await.unwrap();

    let deployer = world.deployer().await;
    deployer.apply(second.clone()).await.unwrap();
    until_taken_back(&world, &deployer, &second).await;
    let maps = world.names("v1", "ConfigMap").await;
    assert!(!maps.contains(&"of-two".to_owned()), "{maps:?}");
    assert_eq!(statuses(&world).await, ["superseded", "superseded", "deployed"]);
    deployer.remove(second.pipeline, &second.path).await.unwrap();
}
