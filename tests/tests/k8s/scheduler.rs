//! The scheduler itself, installed by its chart as a user installs it: one node with a volume.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use kube::api::{Api as Kube, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use scheduler_examples::Api;
use serde_json::json;

use crate::installed::Installed;
use crate::world::{PIPELINES, World, eventually, led_to};

/// Where the pod is, once it is ready. `other_than` is one that was there before.
async fn ready(pods: &Kube<Pod>, name: &str, other_than: Option<&str>) -> (String, String) {
    eventually(async || {
        let pod = pods.get_opt(name).await.unwrap();
        let found = pod.as_ref().and_then(|pod| {
            let status = pod.status.as_ref()?;
            let is_ready = status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            let id = pod.metadata.uid.clone()?;
            let is_it = is_ready && other_than != Some(&id);
            is_it.then(|| Some((id, status.pod_ip.clone()?)))?
        });
        found.ok_or_else(|| format!("{:?}", pod.and_then(|pod| pod.status)))
    })
    .await
}

#[tokio::test]
async fn in_pods_the_scheduler_is_installed_and_keeps_its_tasks_when_its_pod_is_replaced() {
    let read = Kubeconfig::read_from(led_to("SCHEDULER_TEST_KUBECONFIG")).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    let begun = Instant::now();
    let installed = Installed::new(&["nodeSelector.type=real", "storage.storageClass=by-hand"]);
    let place = installed.name().to_owned();
    // Nobody makes volumes here: one that is made by hand, which the pod's user may write to.
    let disk = tempfile::tempdir().unwrap();
    std::fs::set_permissions(disk.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let volumes: Kube<PersistentVolume> = Kube::all(client.clone());
    let volume = json!({"metadata": {"name": place}, "spec": {
        "storageClassName": "by-hand", "capacity": {"storage": "8Gi"}, "accessModes": ["ReadWriteOnce"],
        "claimRef": {"namespace": place, "name": format!("data-{place}-workload-scheduler-0")},
        "hostPath": {"path": disk.path(), "type": "Directory"}}});
    let volume = serde_json::from_value(volume).unwrap();
    volumes.create(&PostParams::default(), &volume).await.unwrap();

    let pods: Kube<Pod> = Kube::namespaced(client.clone(), &place);
    let name = format!("{place}-workload-scheduler-0");
    let (id, address) = ready(&pods, &name, None).await;
    println!("scheduler: ready after {:.1} s", begun.elapsed().as_secs_f64());
    let api = Api::over([format!("http://{address}:8080")]);
    let new = json!({"name": "words", "pipeline": [{"executor": "shell", "commands": ["true"]}]});
    let created = api.post(PIPELINES, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    let task = api
        .post(&World::pipeline("words"), &json!({"n": 1}))
        .await
        .unwrap();
    assert_eq!(task.status, 202, "{}", task.body);
    let metrics = reqwest::get(format!("http://{address}:9464/metrics"))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("server_scheduler_queue_length"), "{metrics}");

    let replaced = Instant::now();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    let (_, address) = ready(&pods, &name, Some(&id)).await;
    println!("scheduler: replaced in {:.1} s", replaced.elapsed().as_secs_f64());
    let api = Api::over([format!("http://{address}:8080")]);
    let path = format!(
        "{}/tasks/{}",
        World::pipeline("words"),
        task.body["id"].as_str().unwrap()
    );
    let kept = api.get(&path).await.unwrap();
    assert_eq!(
        (kept.status.as_u16(), &kept.body["params"]),
        (200, &json!({"n": 1})),
        "{}",
        kept.body
    );

    installed.remove();
    let namespaces: Kube<Namespace> = Kube::all(client);
    namespaces.delete(&place, &DeleteParams::default()).await.unwrap();
    eventually(async || match namespaces.get_opt(&place).await.unwrap() {
        None => Ok(()),
        Some(namespace) => Err(format!("{:?}", namespace.status)),
    })
    .await;
    volumes.delete(&place, &DeleteParams::default()).await.unwrap();
}
