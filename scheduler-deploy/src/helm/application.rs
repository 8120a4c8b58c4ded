//! An application is a namespace: what is in it before any chart is.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::deploy::DeployError;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::cluster::of_kube;

/// Who writes the fields that are ours.
const MANAGER: &str = "workload-scheduler";
/// Labels of a namespace: whose it is.
const CLIENT: &str = "workload-scheduler/client";
const APPLICATION: &str = "workload-scheduler/application";
/// The account that charts of the application are applied as.
pub(super) const ACCOUNT: &str = "workload-scheduler-deployer";
/// The secret with the API key of the client, and its key.
pub(super) const KEY_SECRET: &str = "workload-scheduler-api-key";
pub(super) const KEY: &str = "api-key";
/// The longest name of a namespace.
const MAX_NAME: usize = 63;

/// What the namespace of an application has. Every part is as Kubernetes writes it, and replaces the default as a whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ApplicationSettings {
    /// What names of namespaces begin with. Default `ws-`.
    pub prefix: String,
    /// Further labels of the namespace. Default: Kubernetes' own `baseline` standard is enforced on its pods.
    pub labels: Map<String, Value>,
    /// `hard` of the `ResourceQuota`; empty for none.
    pub quota: Map<String, Value>,
    /// `limits` of the `LimitRange`; empty for none.
    pub limits: Vec<Value>,
    /// `spec` of the `NetworkPolicy`; `null` for none.
    pub network_policy: Value,
    /// Further rules of the role of the account that applies charts. Default none.
    pub role: Vec<Value>,
}

impl Default for ApplicationSettings {
    fn default() -> Self {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        Self {
            prefix: "ws-".to_owned(),
            labels: map(json!({"pod-security.kubernetes.io/enforce": "baseline"})),
            quota: map(json!({
                "pods": "100",
                "requests.cpu": "32",
                "requests.memory": "64Gi",
                "limits.memory": "128Gi",
                "persistentvolumeclaims": "20",
                "services": "50",
                "count/configmaps": "200",
                "count/secrets": "200",
            })),
            limits: vec![json!({
                "type": "Container",
                "defaultRequest": {"cpu": "50m", "memory": "64Mi"},
                "default": {"memory": "1Gi"},
            })],
            // In: only from the same namespace. Out: everywhere but to what clouds tell their machines.
            network_policy: json!({
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"podSelector": {}}]}],
                "egress": [
                    {"to": [{"namespaceSelector": {}}]},
                    {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]},
                    {"to": [{"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}}]},
                ],
            }),
            role: Vec::new(),
        }
    }
}

impl ApplicationSettings {
    /// Reads settings from YAML; what is not said is the default.
    ///
    /// # Errors
    ///
    /// For people: what cannot be read, and where.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        serde_norway::from_str(text).map_err(|error| error.to_string())
    }

    /// The namespace of the pipeline's application.
    pub fn namespace(&self, path: &PipelinePath) -> String {
        let (client, application) = (path.client.as_str(), path.application.as_str());
        let plain = format!("{}{client}-{application}", self.prefix);
        // Of `a-b` and `c`, and of `a` and `b-c`, the plain name would be one.
        if plain.len() <= MAX_NAME && !client.contains('-') && !application.contains('-') {
            return plain;
        }
        shortened(&plain, &format!("{client}/{application}"), MAX_NAME)
    }
}

/// The beginning of a name, with a digest of what it stands for.
pub(super) fn shortened(name: &str, of: &str, max: usize) -> String {
    let digest = Sha256::digest(of.as_bytes());
    let digest = u64::from_be_bytes(digest[..8].try_into().unwrap_or_default());
    let digest = format!("{digest:016x}");
    let begin: String = name.chars().take(max - digest.len() - 1).collect();
    format!("{}-{digest}", begin.trim_end_matches('-'))
}

/// Whether a namespace is that of the pipeline's application.
fn is_of(namespace: &Namespace, path: &PipelinePath) -> bool {
    let label = |label: &str| namespace.labels().get(label).map(String::as_str);
    (label(CLIENT), label(APPLICATION)) == (Some(path.client.as_str()), Some(path.application.as_str()))
}

/// Whether the namespace of the pipeline's application is there, and is its own.
pub(super) async fn is_there(
    client: &Client,
    settings: &ApplicationSettings,
    path: &PipelinePath,
) -> Result<bool, DeployError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces
        .get_opt(&settings.namespace(path))
        .await
        .map_err(of_kube)?;
    Ok(found.is_some_and(|namespace| is_of(&namespace, path)))
}

/// Makes the namespace and what is in it, or makes it so again.
pub(super) async fn ensure(
    client: &Client,
    settings: &ApplicationSettings,
    path: &PipelinePath,
    api_key: Option<&str>,
) -> Result<(), DeployError> {
    let name = settings.namespace(path);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if let Some(there) = namespaces.get_opt(&name).await.map_err(of_kube)? {
        if !is_of(&there, path) {
            return Err(DeployError::Invalid {
                field: "application".to_owned(),
                problem: format!("needs the namespace {name}, which exists and is not this application's"),
            });
        }
        if there.metadata.deletion_timestamp.is_some() {
            let problem = format!("namespace {name} is still being deleted");
            return Err(DeployError::Unavailable(problem.into()));
        }
    }
    let mut labels = settings.labels.clone();
    labels.insert(CLIENT.to_owned(), path.client.as_str().into());
    labels.insert(APPLICATION.to_owned(), path.application.as_str().into());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGER.into());
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    apply(client, None, "namespaces", &namespace).await?;
    for (plural, object) in objects(settings, &name, api_key) {
        apply(client, Some(&name), plural, &object).await?;
    }
    Ok(())
}

/// What is in a namespace: the plural of its kind, and itself.
fn objects(
    settings: &ApplicationSettings,
    namespace: &str,
    api_key: Option<&str>,
) -> Vec<(&'static str, Value)> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let rbac = format!("{RBAC}/v1");
    let mut rules = rules();
    rules.extend(settings.role.iter().cloned());
    let mut objects = vec![
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(ACCOUNT),
                "automountServiceAccountToken": false}),
        ),
        // Pods of charts that name no account get this one, and nothing of the API with it.
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("default"),
                "automountServiceAccountToken": false}),
        ),
        (
            "roles",
            json!({"apiVersion": rbac, "kind": "Role", "metadata": meta(ACCOUNT), "rules": rules}),
        ),
        (
            "rolebindings",
            json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": meta(ACCOUNT),
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": ACCOUNT},
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}]}),
        ),
    ];
    if !settings.quota.is_empty() {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta(MANAGER),
            "spec": {"hard": settings.quota}});
        objects.push(("resourcequotas", quota));
    }
    if !settings.limits.is_empty() {
        let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta(MANAGER),
            "spec": {"limits": settings.limits}});
        objects.push(("limitranges", limits));
    }
    if !settings.network_policy.is_null() {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta(MANAGER),
            "spec": settings.network_policy});
        objects.push(("networkpolicies", policy));
    }
    if let Some(key) = api_key {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta(KEY_SECRET),
            "stringData": {KEY: key}});
        objects.push(("secrets", secret));
    }
    objects
}

/// What the account that applies charts may do: the kinds that charts may have, and see how pods fare.
fn rules() -> Vec<Value> {
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let see = ["get", "list", "watch"];
    vec![
        json!({"apiGroups": [""], "verbs": all,
            "resources": ["configmaps", "persistentvolumeclaims", "secrets", "services", "serviceaccounts"]}),
        json!({"apiGroups": [""], "verbs": see, "resources": ["pods", "events"]}),
        // Which of them are busy, when there are going to be fewer.
        json!({"apiGroups": [""], "verbs": ["patch"], "resources": ["pods"]}),
        json!({"apiGroups": ["apps"], "verbs": all,
            "resources": ["deployments", "deployments/scale", "statefulsets", "statefulsets/scale"]}),
        json!({"apiGroups": ["apps"], "verbs": see, "resources": ["replicasets"]}),
        json!({"apiGroups": ["autoscaling"], "verbs": all, "resources": ["horizontalpodautoscalers"]}),
        json!({"apiGroups": ["policy"], "verbs": all, "resources": ["poddisruptionbudgets"]}),
        json!({"apiGroups": ["keda.sh"], "verbs": all, "resources": ["scaledobjects", "triggerauthentications"]}),
        json!({"apiGroups": ["monitoring.coreos.com"], "verbs": all,
            "resources": ["podmonitors", "prometheusrules", "servicemonitors"]}),
    ]
}

async fn apply(
    client: &Client,
    namespace: Option<&str>,
    plural: &str,
    object: &Value,
) -> Result<(), DeployError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let kind = GroupVersionKind::gvk(group, version, &text(&object["kind"]));
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let parameters = PatchParams::apply(MANAGER).force();
    let name = text(&object["metadata"]["name"]);
    api.patch(&name, &parameters, &Patch::Apply(object))
        .await
        .map_err(of_kube)?;
    Ok(())
}

/// Names of the namespaces of all applications.
pub(super) async fn namespaces(client: &Client) -> Result<Vec<String>, DeployError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let ours = kube::api::ListParams::default().labels(APPLICATION);
    let found = namespaces.list(&ours).await.map_err(of_kube)?;
    Ok(found.items.iter().map(kube::ResourceExt::name_any).collect())
}

/// Deletes the namespace of an application and all that is in it. It goes on after the answer.
pub(super) async fn delete(client: &Client, name: &str) -> Result<(), DeployError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.delete(name, &kube::api::DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(of_kube),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(client: &str, application: &str) -> String {
        ApplicationSettings::default().namespace(&PipelinePath {
            client: client.parse().unwrap(),
            application: application.parse().unwrap(),
            pipeline: "p".parse().unwrap(),
        })
    }

    #[test]
    fn namespaces_of_different_applications_differ_and_are_names() {
        assert_eq!(namespace("default", "myname"), "ws-default-myname");
        assert_ne!(namespace("a-b", "c"), namespace("a", "b-c"));
        let long = "x".repeat(63);
        for name in [
            namespace("a-b", "c"),
            namespace(&long, &long),
            namespace("a", &long),
        ] {
            assert!(
                name.len() <= 63 && name.parse::<scheduler_core::name::Name>().is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn settings_replace_defaults_part_by_part() {
        let settings =
            ApplicationSettings::from_yaml("prefix: tenant-\nquota: {pods: 5}\nnetworkPolicy: null\n")
                .unwrap();
        assert_eq!(settings.prefix, "tenant-");
        assert_eq!(Value::Object(settings.quota), json!({"pods": 5}));
        assert!(settings.network_policy.is_null());
        assert_eq!(settings.limits.len(), 1);
        let problem = ApplicationSettings::from_yaml("quotas: {}").unwrap_err();
        assert!(problem.contains("quotas"), "{problem}");
    }
}
