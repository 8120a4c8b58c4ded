//! How a deployment fares in the cluster: how many workers there are to be, how many are ready, and what keeps the others.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Client, ResourceExt as _};
use scheduler_core::id::PipelineId;
use scheduler_core::port::deploy::DeployError;

use super::cluster;

/// How long Kubernetes gives a deployment to get its pods ready, unless its chart says something else.
const PATIENCE: Duration = Duration::from_mins(10);
/// Why Kubernetes has given a deployment up after that.
const TIME_IS_OVER: &str = "ProgressDeadlineExceeded";

/// What was seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) wanted: u32,
    pub(super) ready: u32,
    /// Every worker is of what was deployed last.
    pub(super) is_current: bool,
    /// It does not come up as it is.
    pub(super) is_failed: bool,
    /// Kubernetes has said so: pods did not get ready in the time that the chart gives them.
    pub(super) is_given_up: bool,
    /// That time.
    pub(super) patience: Duration,
    /// What is wrong, for people.
    pub(super) problem: String,
    /// The same, if it is a pod that says it.
    pub(super) told: Option<String>,
}

impl Seen {
    /// As many workers as are wanted are ready, of what was deployed last.
    pub(super) fn is_up(&self) -> bool {
        self.is_current && self.ready >= self.wanted
    }
}

/// Looks at the deployments of a pipeline, and at its pods if not all is well.
pub(super) async fn look(
    client: &Client,
    namespace: &str,
    pipeline: PipelineId,
) -> Result<Seen, DeployError> {
    let deployments = cluster::worker_deployments(client, namespace, pipeline).await?;
    let mut seen = of_deployments(&deployments);
    if !seen.is_up() {
        let pods = cluster::pods(client, namespace, pipeline).await?;
        let told = pods.iter().find_map(of_pod);
        seen.told.clone_from(&told);
        // Every pod is not ready for a while.
        let unready = || pods.iter().find_map(unready).filter(|_| seen.is_given_up);
        if let Some(problem) = told.or_else(unready) {
            seen.problem = problem;
        }
    }
    Ok(seen)
}

fn of_deployments(deployments: &[Deployment]) -> Seen {
    let mut seen = Seen {
        is_current: true,
        ..Seen::default()
    };
    let count = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    for deployment in deployments {
        let spec = deployment.spec.as_ref();
        let wanted = count(spec.and_then(|spec| spec.replicas)).unwrap_or(1);
        seen.wanted += wanted;
        let patience = count(spec.and_then(|spec| spec.progress_deadline_seconds));
        let patience = patience.map_or(PATIENCE, |seconds| Duration::from_secs(seconds.into()));
        seen.patience = seen.patience.max(patience);
        let Some(status) = &deployment.status else {
            seen.is_current &= wanted == 0;
            continue;
        };
        let is_observed = status.observed_generation >= deployment.metadata.generation;
        let updated = count(status.updated_replicas).unwrap_or(0);
        // While pods of before are there, it is they that may be ready.
        let is_alone = count(status.replicas).unwrap_or(0) <= updated;
        seen.is_current &= is_observed && is_alone && updated >= wanted;
        seen.ready += count(status.ready_replicas).unwrap_or(0).min(wanted);
        // What is said of it is of something else until the controller has seen the change.
        for condition in status.conditions.iter().flatten().filter(|_| is_observed) {
            let is = (condition.type_.as_str(), condition.status.as_str());
            if matches!(is, ("Progressing", "False") | ("ReplicaFailure", "True")) {
                seen.is_failed = true;
                let is_over = condition.reason.as_deref() == Some(TIME_IS_OVER);
                seen.is_given_up |= is_over;
                let message = condition.message.as_deref().unwrap_or_default();
                seen.problem = format!("{}: {message}", deployment.name_any());
            }
        }
    }
    seen
}

/// What keeps a pod from running, if something does.
fn of_pod(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let of_containers = [&status.init_container_statuses, &status.container_statuses];
    let waiting = of_containers
        .into_iter()
        .flatten()
        .flatten()
        .find_map(of_container);
    if let Some(problem) = waiting {
        return Some(format!("pod {name}: {problem}"));
    }
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let message = condition.message.as_deref().unwrap_or("it is not scheduled");
    Some(format!("pod {name}: {message}"))
}

/// Which containers of a pod are not ready, though nothing is known to keep them.
fn unready(pod: &Pod) -> Option<String> {
    let conditions = &pod.status.as_ref()?.conditions;
    let condition = conditions.iter().flatten().find(|condition| {
        condition.type_ == "Ready" && condition.status == "False" && condition.message.is_some()
    })?;
    Some(format!(
        "pod {}: {}",
        pod.name_any(),
        condition.message.as_deref()?
    ))
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let ended = |state: &k8s_openapi::api::core::v1::ContainerState| {
        let ended = state.terminated.as_ref()?;
        let reason = ended.reason.as_deref().unwrap_or("ended");
        Some(format!("{reason} (exit code {})", ended.exit_code))
    };
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    // What every container goes through.
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    let last = container.last_state.as_ref().and_then(ended);
    let last = last.map(|last| format!("; before: {last}")).unwrap_or_default();
    Some(format!("container {}: {reason}: {message}{last}", container.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(status: &Value) -> Deployment {
        let whole = json!({"metadata": {"name": "worker", "generation": 2}, "spec": {"replicas": 3,
            "selector": {}, "template": {}}, "status": status});
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn workers_are_counted_and_old_ones_are_not_current() {
        let seen = of_deployments(&[deployment(
            &json!({"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 3}),
        )]);
        assert_eq!((seen.wanted, seen.ready, seen.is_current), (3, 3, true));
        let seen = of_deployments(&[deployment(
            &json!({"observedGeneration": 1, "readyReplicas": 3, "updatedReplicas": 3}),
        )]);
        assert!(!seen.is_current);
        let seen = of_deployments(&[deployment(&json!({}))]);
        assert_eq!((seen.wanted, seen.ready, seen.is_current), (3, 0, false));
        // Three are new and none of them is ready: those of before are.
        let seen = of_deployments(&[deployment(
            &json!({"observedGeneration": 2, "replicas": 6, "readyReplicas": 3, "updatedReplicas": 3}),
        )]);
        assert!(!seen.is_current && !seen.is_up());
    }

    #[test]
    fn what_kubernetes_gives_up_is_known_once_it_has_seen_the_change() {
        let status = |observed: u32| {
            json!({"observedGeneration": observed, "readyReplicas": 1, "conditions": [{"type": "Progressing", "status": "False",
                "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"worker-2\" has timed out progressing."}]})
        };
        let seen = of_deployments(&[deployment(&status(1))]);
        assert_eq!((seen.is_failed, seen.is_given_up), (false, false));
        assert_eq!(seen.patience, PATIENCE);
        let mut given_up = deployment(&status(2));
        given_up.spec.as_mut().unwrap().progress_deadline_seconds = Some(5);
        let seen = of_deployments(&[given_up]);
        assert_eq!((seen.is_given_up, seen.patience), (true, Duration::from_secs(5)));
        assert!(seen.problem.contains("timed out progressing"), "{}", seen.problem);
    }

    #[test]
    fn a_quota_that_is_used_up_is_a_failure_with_its_reason() {
        let seen = of_deployments(&[deployment(
            &json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True",
            "reason": "FailedCreate", "message": "exceeded quota: pods=1"}]}),
        )]);
        assert!(seen.is_failed && !seen.is_given_up);
        assert_eq!(seen.problem, "worker: exceeded quota: pods=1");
    }

    #[test]
    fn a_pod_tells_what_its_containers_wait_for() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "w-1"}, "status": {"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ContainerCreating"}}},
            {"name": "b", "image": "", "imageID": "", "ready": false, "restartCount": 4,
             "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
             "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}}),
        )
        .unwrap();
        assert_eq!(
            of_pod(&pod).unwrap(),
            "pod w-1: container b: CrashLoopBackOff: back-off 40s; before: OOMKilled (exit code 137)"
        );
    }

    #[test]
    fn a_pod_that_runs_and_is_not_ready_tells_which_containers() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "w-1"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "False", "message": "containers with unready status: [agent]"}]}}))
        .unwrap();
        assert_eq!(of_pod(&pod), None);
        assert_eq!(
            unready(&pod).unwrap(),
            "pod w-1: containers with unready status: [agent]"
        );
    }
}
