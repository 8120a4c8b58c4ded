//! The API server of Kubernetes that the tests have.

use std::process::Command;

use base64::Engine as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::{named, said};

/// The API server of the tests, asked by `curl`.
pub(crate) struct ApiServer {
    url: String,
    directory: TempDir,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        let kubeconfig = named("SCHEDULER_TEST_KUBECONFIG", "the kubeconfig of a cluster");
        let kubeconfig = std::fs::read_to_string(kubeconfig).unwrap();
        let kubeconfig: Value = serde_norway::from_str(&kubeconfig).unwrap();
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let user = &kubeconfig["users"][0]["user"];
        let directory = tempfile::tempdir().unwrap();
        for (name, of, what) in [
            ("ca", cluster, "certificate-authority"),
            ("cert", user, "client-certificate"),
            ("key", user, "client-key"),
        ] {
            let bytes = match of[format!("{what}-data")].as_str() {
                Some(text) => base64::prelude::BASE64_STANDARD.decode(text).unwrap(),
                None => std::fs::read(of[what].as_str().unwrap()).unwrap(),
            };
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
        Self {
            url: cluster["server"].as_str().unwrap().to_owned(),
            directory,
        }
    }

    /// What it says to the object, which it does not keep; unknown fields are errors. `None` for kinds that are not its own.
    pub(crate) fn says(&self, object: &Value) -> Option<Value> {
        let place = match object["kind"].as_str().unwrap() {
            "ConfigMap" => "api/v1/namespaces/default/configmaps",
            "Service" => "api/v1/namespaces/default/services",
            "ServiceAccount" => "api/v1/namespaces/default/serviceaccounts",
            "Deployment" => "apis/apps/v1/namespaces/default/deployments",
            "StatefulSet" => "apis/apps/v1/namespaces/default/statefulsets",
            "PodDisruptionBudget" => "apis/policy/v1/namespaces/default/poddisruptionbudgets",
            "ClusterRole" => "apis/rbac.authorization.k8s.io/v1/clusterroles",
            "ClusterRoleBinding" => "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            "ScaledObject" | "ServiceMonitor" => return None,
            kind => panic!("where does a {kind} go?"),
        };
        let path = self.directory.path();
        std::fs::write(path.join("object"), object.to_string()).unwrap();
        let output = Command::new("curl")
            .current_dir(path)
            .args([
                "--silent",
                "--show-error",
                "--cacert",
                "ca",
                "--cert",
                "cert",
                "--key",
                "key",
            ])
            .args([
                "--header",
                "content-type: application/json",
                "--data-binary",
                "@object",
            ])
            .arg(format!("{}/{place}?dryRun=All&fieldValidation=Strict", self.url))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }
}
