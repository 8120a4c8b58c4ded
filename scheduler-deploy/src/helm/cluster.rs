//! The cluster's API: who we are there, and deployments.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use scheduler_core::id::PipelineId;
use scheduler_core::port::deploy::DeployError;
use serde_json::json;

use super::application::ACCOUNT;

/// Whose something is: every object, pod and release of a pipeline has it.
pub(super) const PIPELINE: &str = "workload-scheduler/pipeline-id";
/// Deployments whose pods are workers: `true` if the scheduler says how many, `autoscaled` if something of the chart does.
pub(super) const WORKER: &str = "workload-scheduler/worker";

/// The value of [`PIPELINE`].
pub(super) fn label(pipeline: PipelineId) -> String {
    format!("p{}", pipeline.0)
}

/// The account of an application, as it is called.
pub(super) fn account(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{ACCOUNT}")
}

/// What may pass, and what the cluster will always refuse.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands in the place of a function for `map_err`"
)]
pub(super) fn of_kube(error: kube::Error) -> DeployError {
    let problem = match &error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    };
    DeployError::Unavailable(format!("the Kubernetes API: {problem}").into())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A cluster.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    config: Config,
}

impl Cluster {
    /// Finds out where it is. It need not answer yet.
    pub(super) async fn open(kubeconfig: Option<&Path>) -> Result<Self, DeployError> {
        let unusable = |problem: String| {
            let problem = format!(
                "which cluster to deploy to is unknown: {problem}; say it by --kubeconfig or KUBECONFIG"
            );
            DeployError::Unavailable(problem.into())
        };
        let config = match kubeconfig {
            None => Config::infer().await.map_err(|error| unusable(chain(&error)))?,
            Some(path) => {
                let read = Kubeconfig::read_from(path).map_err(|error| unusable(chain(&error)))?;
                Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| unusable(chain(&error)))?
            }
        };
        Ok(Self { config })
    }

    /// As this server.
    pub(super) fn client(&self) -> Result<Client, DeployError> {
        Client::try_from(self.config.clone()).map_err(of_kube)
    }

    /// As the account of an application, with no more rights than it has.
    pub(super) fn client_of(&self, namespace: &str) -> Result<Client, DeployError> {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(account(namespace));
        config.auth_info.impersonate_groups = None;
        Client::try_from(config).map_err(of_kube)
    }

    /// The version of the API server, as `v1.34.4`.
    pub(super) async fn version(&self) -> Result<String, DeployError> {
        let version = self.client()?.apiserver_version().await.map_err(of_kube)?;
        Ok(version.git_version)
    }
}

/// The deployments of a pipeline whose pods are workers.
pub(super) async fn worker_deployments(
    client: &Client,
    namespace: &str,
    pipeline: PipelineId,
) -> Result<Vec<Deployment>, DeployError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let selector = format!("{PIPELINE}={},{WORKER}", label(pipeline));
    let found = deployments
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(of_kube)?;
    Ok(found.items)
}

/// Whether something of the chart says how many pods a worker deployment has.
pub(super) fn is_autoscaled(deployment: &Deployment) -> bool {
    deployment.labels().get(WORKER).map(String::as_str) != Some("true")
}

/// Has each of the worker deployments have so many pods, where nothing else says how many.
pub(super) async fn scale(
    client: &Client,
    namespace: &str,
    deployments: &[Deployment],
    workers: u32,
) -> Result<(), DeployError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    for deployment in deployments {
        let now = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        if is_autoscaled(deployment) || now.and_then(|now| u32::try_from(now).ok()) == Some(workers) {
            continue;
        }
        let patch = Patch::Merge(json!({"spec": {"replicas": workers}}));
        api.patch_scale(&deployment.name_any(), &PatchParams::default(), &patch)
            .await
            .map_err(of_kube)?;
    }
    Ok(())
}

/// The pods of a pipeline.
pub(super) async fn pods(
    client: &Client,
    namespace: &str,
    pipeline: PipelineId,
) -> Result<Vec<Pod>, DeployError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = format!("{PIPELINE}={}", label(pipeline));
    let found = pods
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(of_kube)?;
    Ok(found.items)
}

/// Deletes deployments of a pipeline that no release knows of: what was left of one whose record is lost.
pub(super) async fn delete_deployments(
    client: &Client,
    namespace: &str,
    pipeline: PipelineId,
) -> Result<(), DeployError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("{PIPELINE}={}", label(pipeline)));
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    for deployment in deployments.list(&selector).await.map_err(of_kube)?.items {
        match deployments.delete(&deployment.name_any(), &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => (),
            other => drop(other.map_err(of_kube)?),
        }
    }
    Ok(())
}
