//! Which pods are to go last when there are to be fewer: Kubernetes takes those whose deletion costs least.
//!
//! Pods are not told all the time who is busy, only when there are going to be fewer of them; what was said before stays until then.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use scheduler_core::id::PipelineId;
use scheduler_core::port::deploy::{BusyWorker, DeployError};
use serde_json::{Value, json};

use super::cluster::{self, of_kube};

/// What Kubernetes goes by. Pods without it cost nothing.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Says that the cost is ours: one that a chart sets stays.
const SPARED: &str = "workload-scheduler/spared";
/// Pods that are told at once.
const AT_ONCE: usize = 8;

/// Has those of a pipeline's pods that are called like a busy worker cost as much as they have tasks, and all others nothing.
pub(super) async fn spare(
    client: &Client,
    namespace: &str,
    pipeline: PipelineId,
    busy: &[BusyWorker],
) -> Result<(), DeployError> {
    let tasks: BTreeMap<&str, u64> = busy
        .iter()
        .map(|worker| (worker.name.as_str(), worker.tasks))
        .collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = format!("{}={}", cluster::PIPELINE, cluster::label(pipeline));
    let found = pods
        .list_metadata(&ListParams::default().labels(&selector))
        .await
        .map_err(of_kube)?;
    let changes: Vec<_> = found
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| {
            let name = pod.name_any();
            let tasks = tasks.get(name.as_str()).copied().unwrap_or(0);
            Some((name, change(pod.annotations(), tasks)?))
        })
        .collect();
    let told = changes.into_iter().map(|(name, change)| {
        let pods = pods.clone();
        async move {
            let patch = Patch::Merge(json!({"metadata": {"annotations": change}}));
            match pods.patch_metadata(&name, &PatchParams::default(), &patch).await {
                // It has gone meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop).map_err(of_kube),
            }
        }
    });
    stream::iter(told).buffer_unordered(AT_ONCE).try_collect().await
}

/// What is to change about a pod's annotations, if anything is.
fn change(annotations: &BTreeMap<String, String>, tasks: u64) -> Option<Value> {
    let is_ours = annotations.contains_key(SPARED);
    let cost = annotations.get(COST);
    if cost.is_some() && !is_ours {
        return None;
    }
    if tasks == 0 {
        return is_ours.then(|| json!({COST: null, SPARED: null}));
    }
    // Kubernetes takes a number of 32 bits.
    let wanted = i32::try_from(tasks).unwrap_or(i32::MAX).to_string();
    (cost != Some(&wanted)).then(|| json!({COST: wanted, SPARED: "true"}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = of
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn a_pod_costs_as_much_as_it_has_tasks_and_is_told_only_what_changes() {
        let idle = annotations(&[("other", "1")]);
        let busy = annotations(&[(COST, "2"), (SPARED, "true"), ("other", "1")]);
        assert_eq!(change(&idle, 0), None);
        assert_eq!(change(&idle, 2), Some(json!({COST: "2", SPARED: "true"})));
        assert_eq!(change(&busy, 2), None);
        assert_eq!(change(&busy, 1), Some(json!({COST: "1", SPARED: "true"})));
        assert_eq!(change(&busy, 0), Some(json!({COST: null, SPARED: null})));
        assert_eq!(change(&idle, u64::MAX).unwrap()[COST], "2147483647");
    }

    #[test]
    fn a_cost_that_a_chart_sets_stays() {
        let own = annotations(&[(COST, "100")]);
        assert_eq!((change(&own, 3), change(&own, 0)), (None, None));
    }
}
