//! What is added to the objects of a chart that was found good: labels, and what workers must know.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::application::{KEY, KEY_SECRET};
use super::cluster::{PIPELINE, WORKER};
use super::manifest::Object;

/// By it a container is known as a worker.
const AGENT: &str = "PIPELINE_AGENT__NAME";

/// What workers are told.
#[derive(Clone, Debug)]
pub(super) struct Told<'a> {
    /// The value of the pipeline's label.
    pub(super) label: &'a str,
    /// Variables of the environment.
    pub(super) environment: &'a [(&'a str, String)],
    /// Whether there is a secret with an API key.
    pub(super) has_key: bool,
}

/// Adds it. A number of replicas is taken away where the scheduler is to choose it.
pub(super) fn prepare(objects: &mut [Object], told: &Told<'_>) {
    let scaled = scaled_by_others(objects);
    let workers = workers(objects);
    for object in objects {
        label(&mut object.value["metadata"], PIPELINE, told.label);
        if let Some(pod) = object.pod_mut() {
            label(&mut pod["metadata"], PIPELINE, told.label);
            for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
                tell(container, told);
            }
        }
        if object.kind() == "Deployment" && workers.contains(object.name()) {
            if scaled.contains(object.name()) {
                label(&mut object.value["metadata"], WORKER, "autoscaled");
            } else {
                label(&mut object.value["metadata"], WORKER, "true");
                if let Some(spec) = object.value["spec"].as_object_mut() {
                    spec.remove("replicas");
                }
            }
        }
    }
}

fn label(metadata: &mut Value, name: &str, value: &str) {
    if !metadata.is_object() {
        *metadata = json!({});
    }
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][name] = value.into();
}

/// Names of deployments that an autoscaler of the chart scales.
fn scaled_by_others(objects: &[Object]) -> BTreeSet<String> {
    objects
        .iter()
        .filter(|object| matches!(object.kind(), "ScaledObject" | "HorizontalPodAutoscaler"))
        .filter_map(|object| {
            let target = &object.value["spec"]["scaleTargetRef"];
            let is_deployment = target["kind"].as_str().unwrap_or("Deployment") == "Deployment";
            is_deployment.then(|| target["name"].as_str().map(str::to_owned))?
        })
        .collect()
}

/// Names of the deployments whose pods are workers: those with an agent, or the only one.
fn workers(objects: &[Object]) -> BTreeSet<String> {
    let deployments: Vec<&Object> = objects
        .iter()
        .filter(|object| object.kind() == "Deployment")
        .collect();
    let with_agent: BTreeSet<String> = deployments
        .iter()
        .filter(|object| {
            let pod = object.pod();
            let containers = pod.and_then(|pod| pod["spec"]["containers"].as_array());
            containers.into_iter().flatten().any(is_agent)
        })
        .map(|object| object.name().to_owned())
        .collect();
    match (with_agent.is_empty(), deployments.as_slice()) {
        (true, [only]) => BTreeSet::from([only.name().to_owned()]),
        _ => with_agent,
    }
}

fn is_agent(container: &Value) -> bool {
    has_variable(container, AGENT)
}

fn has_variable(container: &Value, name: &str) -> bool {
    let environment = container["env"].as_array();
    environment
        .into_iter()
        .flatten()
        .any(|variable| variable["name"] == name)
}

/// Tells a worker where the scheduler is, unless its chart says so itself.
fn tell(container: &mut Value, told: &Told<'_>) {
    if !is_agent(container) {
        return;
    }
    let mut added = Vec::new();
    for (name, value) in told.environment {
        if !has_variable(container, name) {
            added.push(json!({"name": name, "value": value}));
        }
    }
    if told.has_key && !has_variable(container, "SCHEDULER_API_KEY") {
        let from = json!({"secretKeyRef": {"name": KEY_SECRET, "key": KEY}});
        added.push(json!({"name": "SCHEDULER_API_KEY", "valueFrom": from}));
    }
    if let Some(environment) = container["env"].as_array_mut() {
        environment.extend(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helm::manifest::parse;

    const TWO: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: worker}\nspec:\n  replicas: 3\n  template:\n    spec:\n      \
        containers:\n      - {name: agent, env: [{name: PIPELINE_AGENT__NAME, value: a}, {name: SCHEDULER_URL, value: own}]}\n      \
        - {name: tool}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cache, labels: {a: b}}\nspec: {replicas: 2, template: {spec: {containers: []}}}\n";

    fn prepared(rendered: &str) -> Vec<Object> {
        let mut objects = parse(rendered, 10).unwrap();
        let environment = [
            ("SCHEDULER_URL", "http://s".to_owned()),
            ("SCHEDULER_PIPELINE", "ocr".to_owned()),
        ];
        let told = Told {
            label: "p7",
            environment: &environment,
            has_key: true,
        };
        prepare(&mut objects, &told);
        objects
    }

    #[test]
    fn workers_are_told_what_their_chart_does_not_say() {
        let objects = prepared(TWO);
        let containers = &objects[0].value["spec"]["template"]["spec"]["containers"];
        let names: Vec<_> = containers[0]["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "PIPELINE_AGENT__NAME",
                "SCHEDULER_URL",
                "SCHEDULER_PIPELINE",
                "SCHEDULER_API_KEY"
            ]
        );
        assert_eq!(containers[0]["env"][1]["value"], "own");
        assert!(containers[1]["env"].is_null());
    }

    #[test]
    fn the_scheduler_chooses_the_number_of_workers_alone() {
        let objects = prepared(TWO);
        let worker = &objects[0].value;
        assert_eq!(
            worker["metadata"]["labels"],
            json!({PIPELINE: "p7", WORKER: "true"})
        );
        assert!(worker["spec"]["replicas"].is_null());
        assert_eq!(worker["spec"]["template"]["metadata"]["labels"][PIPELINE], "p7");
        let cache = &objects[1].value;
        assert_eq!(cache["metadata"]["labels"], json!({PIPELINE: "p7", "a": "b"}));
        assert_eq!(cache["spec"]["replicas"], 2);
    }

    #[test]
    fn what_an_autoscaler_of_the_chart_scales_is_left_to_it() {
        let scaled = format!(
            "{TWO}---\napiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: s}}\nspec: {{scaleTargetRef: {{name: worker}}}}\n"
        );
        let objects = prepared(&scaled);
        assert_eq!(objects[0].value["metadata"]["labels"][WORKER], "autoscaled");
        assert_eq!(objects[0].value["spec"]["replicas"], 3);
    }
}
