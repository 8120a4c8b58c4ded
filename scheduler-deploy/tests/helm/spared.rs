//! Pods that are to go last.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};
use scheduler_core::id::PipelineId;
use scheduler_core::port::deploy::{BusyWorker, Deployer as _};
use serde_json::json;

use crate::charts::FILES;
use crate::world::{World, until_deployed};

/// What a pod of the deployment is like, if somebody were there to make it.
async fn pod(world: &World, name: &str, pipeline: PipelineId, annotations: &serde_json::Value) {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace());
    let pod = json!({
        "metadata": {"name": name, "labels": {"workload-scheduler/pipeline-id": format!("p{}", pipeline.0)}, "annotations": annotations},
        "spec": {"containers": [{"name": "agent", "image": "worker:1"}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
}

#[tokio::test]
async fn pods_of_busy_workers_cost_what_they_have_once_there_are_going_to_be_fewer() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let wanted = world.wanted("ocr", &world.chart("ocr", &FILES));
    deployer.apply(wanted.clone()).await.unwrap();
    until_deployed(&deployer, wanted.pipeline).await;
    assert!(!deployer.is_scaled_by_others(wanted.pipeline));
    deployer.scale(wanted.pipeline, 3).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace());
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    for name in ["ocr-a", "ocr-b"] {
        pod(&world, name, wanted.pipeline, &json!({"theirs": "1"})).await;
    }
    pod(&world, "ocr-c", wanted.pipeline, &json!({cost: "7"})).await;
    pod(&world, "ocr-d", PipelineId(wanted.pipeline.0 + 1_000), &json!({})).await;
    let costs = async || {
        let mut costs = Vec::new();
        for name in ["ocr-a", "ocr-b", "ocr-c", "ocr-d"] {
            let pod = pods.get(name).await.unwrap();
            costs.push(pod.annotations().get(cost).cloned().unwrap_or_default());
        }
        costs
    };
    let busy = |names: &[&str]| -> Vec<BusyWorker> {
        let all = names.iter().map(|name| BusyWorker {
            name: (*name).to_owned(),
            tasks: 2,
        });
        all.collect()
    };
    // As many are wanted as there are: nobody is told anything.
    let all = busy(&["ocr-a", "ocr-c", "ocr-d", "elsewhere"]);
    deployer.spare(wanted.pipeline, 3, &all).await.unwrap();
    assert_eq!(costs().await, ["", "", "7", ""]);
    // What a chart says of its pods stays, and another pipeline's are not this one's.
    deployer.spare(wanted.pipeline, 2, &all).await.unwrap();
    assert_eq!(costs().await, ["2", "", "7", ""]);
    let version = pods.get("ocr-a").await.unwrap().metadata.resource_version;
    deployer.spare(wanted.pipeline, 2, &all).await.unwrap();
    let again = pods.get("ocr-a").await.unwrap().metadata.resource_version;
    assert_eq!(again, version, "what is so already is not said again");
    deployer
        .spare(wanted.pipeline, 1, &busy(&["ocr-b"]))
        .await
        .unwrap();
    assert_eq!(costs().await, ["", "2", "7", ""]);
    let told = pods.get("ocr-a").await.unwrap();
    assert_eq!(told.annotations()["theirs"], "1");
    assert!(!told.annotations().contains_key("workload-scheduler/spared"));
    let parameters = DeleteParams::default().grace_period(0);
    for name in ["ocr-a", "ocr-b", "ocr-c", "ocr-d"] {
        pods.delete(name, &parameters).await.unwrap();
    }
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
}
