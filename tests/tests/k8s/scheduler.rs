//! The scheduler itself, installed by its chart as a user installs it: one node with a volume.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use kube::api::{Api as Kube, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use scheduler_examples::Api;
use serde_json::json;
use tempfile::TempDir;

use crate::forward::Forward;
use crate::installed::Installed;
use crate::pods::node;
use crate::sources::{chart, run};
use crate::web::Web;
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

async fn administrator() -> Client {
    let read = Kubeconfig::read_from(led_to("SCHEDULER_TEST_KUBECONFIG")).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// Nobody makes volumes here: one that is made by hand, which the pod's user may write to.
struct Disk {
    volumes: Kube<PersistentVolume>,
    name: String,
    _directory: TempDir,
}

impl Disk {
    /// For the pod of the chart that is installed into this namespace.
    async fn of(client: &Client, place: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let volumes: Kube<PersistentVolume> = Kube::all(client.clone());
        let volume = json!({"metadata": {"name": place}, "spec": {
            "storageClassName": "by-hand", "capacity": {"storage": "8Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": place, "name": format!("data-{place}-workload-scheduler-0")},
            "hostPath": {"path": directory.path(), "type": "Directory"}}});
        let volume = serde_json::from_value(volume).unwrap();
        volumes.create(&PostParams::default(), &volume).await.unwrap();
        Self {
            volumes,
            name: place.to_owned(),
            _directory: directory,
        }
    }

    async fn remove(self) {
        let parameters = DeleteParams::default();
        self.volumes.delete(&self.name, &parameters).await.unwrap();
    }
}

async fn remove_namespace(client: &Client, name: &str) {
    let namespaces: Kube<Namespace> = Kube::all(client.clone());
    namespaces.delete(name, &DeleteParams::default()).await.unwrap();
    until_no_namespace(client, name).await;
}

async fn until_no_namespace(client: &Client, name: &str) {
    let namespaces: Kube<Namespace> = Kube::all(client.clone());
    eventually(async || match namespaces.get_opt(name).await.unwrap() {
        None => Ok(()),
        Some(namespace) => Err(format!("{:?}", namespace.status)),
    })
    .await;
}

#[tokio::test]
async fn in_pods_the_scheduler_is_installed_and_keeps_its_tasks_when_its_pod_is_replaced() {
    let client = administrator().await;
    let begun = Instant::now();
    let installed = Installed::new(&["nodeSelector.type=real", "storage.storageClass=by-hand"]);
    let place = installed.name().to_owned();
    let disk = Disk::of(&client, &place).await;
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
    remove_namespace(&client, &place).await;
    disk.remove().await;
}

#[tokio::test]
async fn in_pods_the_scheduler_deploys_from_its_own_pod_with_its_own_account_and_a_task_is_done() {
    let client = administrator().await;
    // What it takes a chart from, and where workers find it: services have no addresses here.
    let files = tempfile::tempdir().unwrap();
    let chart = chart(files.path());
    let helm = led_to("SCHEDULER_TEST_HELM");
    run(&helm, files.path(), &["package", chart.to_str().unwrap()]);
    std::fs::write(files.path().join("page"), "to be or not to be\n").unwrap();
    let web = Web::serve(files.path(), &node()).await;
    let service = Forward::at(&node()).await;

    let begun = Instant::now();
    let values = [
        ("nodeSelector.type", "real".to_owned()),
        ("storage.storageClass", "by-hand".to_owned()),
        ("deployer", "helm".to_owned()),
        ("env.SCHEDULER_CHART_SOURCES", web.url("")),
        ("env.SCHEDULER_CHART_PRIVATE_HOSTS", web.host()),
        ("env.SCHEDULER_WORKER_URL", service.url()),
        ("env.SCHEDULER_ADVERTISE", service.url()),
    ];
    let values = values.map(|(name, value)| format!("{name}={value}"));
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let installed = Installed::new(&values);
    let place = installed.name().to_owned();
    let disk = Disk::of(&client, &place).await;
    let pods: Kube<Pod> = Kube::namespaced(client.clone(), &place);
    let (_, address) = ready(&pods, &format!("{place}-workload-scheduler-0"), None).await;
    service.lead_to(format!("{address}:50050").parse().unwrap());
    let api = Api::over([format!("http://{address}:8080")]);
    let application = format!("/api/applications/{place}/pipelines");
    let pipeline = format!("{application}/words");

    let new = json!({"name": "words", "chart": web.url("words-0.1.0.tgz")});
    let created = api.post(&application, &new).await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    eventually(async || {
        let shown = api.get(&pipeline).await.unwrap().body;
        let rollout = &shown["rollout"];
        if rollout["phase"] == "ready" && rollout["ready"] == 1 {
            Ok(())
        } else {
            Err(rollout.to_string())
        }
    })
    .await;
    let path = format!("{pipeline}?wait=60s");
    let task = api
        .post(&path, &json!({"url": web.url("page")}))
        .await
        .unwrap()
        .body;
    assert_eq!(task["output"]["2:count"], json!(["6\n"]), "{task}");
    println!(
        "scheduler: installed, and a task done by what it deploys, after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    // It may do that in applications' namespaces alone.
    let account = installed.account().await;
    assert!(!account.may("apps", "deployments", "create").await);

    let deleted = api.delete(&pipeline).await.unwrap();
    assert!(deleted.status.is_success(), "{}", deleted.body);
    until_no_namespace(&client, &format!("ws-default-{place}")).await;
    installed.remove();
    remove_namespace(&client, &place).await;
    disk.remove().await;
}
