//! Which kinds there may be, where, and what those that are no pods must not have.

use serde_json::Value;

use super::{ChartPolicy, Place, Refusal};
use crate::helm::manifest::Object;

/// Kinds that a pipeline is made of: group and kind.
const KINDS: [(&str, &str); 14] = [
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("", "Secret"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("keda.sh", "ScaledObject"),
    ("keda.sh", "TriggerAuthentication"),
    ("monitoring.coreos.com", "PodMonitor"),
    ("monitoring.coreos.com", "PrometheusRule"),
    ("monitoring.coreos.com", "ServiceMonitor"),
    ("policy", "PodDisruptionBudget"),
];

/// Kinds of the whole cluster, which are none of a chart's business whatever is allowed.
const OF_CLUSTER: [&str; 19] = [
    "APIService",
    "CSIDriver",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterScaledObject",
    "ClusterTriggerAuthentication",
    "CustomResourceDefinition",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

pub(super) fn check(object: &Object, place: Place<'_>, policy: &ChartPolicy, refusals: &mut Vec<Refusal>) {
    let (group, kind) = (object.group(), object.kind());
    let full = if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{group}/{kind}")
    };
    if OF_CLUSTER.contains(&kind) {
        let problem = format!("{full} belongs to the whole cluster");
        refusals.push(Refusal::new("cluster-scope", problem));
    } else if !KINDS.contains(&(group, kind)) && !policy.kinds.contains(&full) {
        let problem = format!("{full} is no kind that charts may have here (--chart-kind)");
        refusals.push(Refusal::new("kind", problem));
    }
    let namespace = object.namespace();
    if !namespace.is_empty() && namespace != place.namespace {
        let problem = format!(
            "is for namespace {namespace}, and the application's is {}",
            place.namespace
        );
        refusals.push(Refusal::new("namespace", problem));
    }
    if !object.hook().is_empty() && !policy.hooks {
        let problem = format!("is a hook ({}); leave hooks out", object.hook());
        refusals.push(Refusal::new("hook", problem));
    }
    if is_ours(object, place) {
        let problem = "is the scheduler's own object in this namespace";
        refusals.push(Refusal::new("reserved", problem));
    }
    match kind {
        "Secret" => secret(&object.value, refusals),
        "Service" => service(&object.value["spec"], refusals),
        "ScaledObject" => scaled(&object.value["spec"], refusals),
        _ => (),
    }
}

/// What the scheduler has put there itself.
fn is_ours(object: &Object, place: Place<'_>) -> bool {
    let name = object.name();
    match object.kind() {
        "ServiceAccount" => name == place.account || name == "default",
        "Secret" => name == super::super::application::KEY_SECRET || name.starts_with("sh.helm."),
        _ => false,
    }
}

/// Types of secrets that would speak for somebody else.
const SECRETS_OF_OTHERS: [&str; 3] = [
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
    "kubernetes.io/service-account-token",
];

fn secret(secret: &Value, refusals: &mut Vec<Refusal>) {
    if let Some(kind) = secret["type"].as_str()
        && SECRETS_OF_OTHERS.contains(&kind)
    {
        let problem = format!("type {kind} would speak for somebody else");
        refusals.push(Refusal::new("secret-type", problem));
    }
}

fn service(spec: &Value, refusals: &mut Vec<Refusal>) {
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    if kind != "ClusterIP" {
        let problem = format!("type {kind} leads out of the cluster; only ClusterIP is taken");
        refusals.push(Refusal::new("service-type", problem));
    }
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if !is_empty(&spec["externalIPs"]) {
        let problem = "externalIPs would catch the traffic of others";
        refusals.push(Refusal::new("external-ips", problem));
    }
}

fn scaled(spec: &Value, refusals: &mut Vec<Refusal>) {
    for trigger in spec["triggers"].as_array().into_iter().flatten() {
        if trigger["authenticationRef"]["kind"] == "ClusterTriggerAuthentication" {
            let problem =
                "a trigger uses the credentials of the whole cluster (ClusterTriggerAuthentication)";
            refusals.push(Refusal::new("cluster-scope", problem));
        }
    }
}
