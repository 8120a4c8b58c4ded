//! The scheduler's own chart, installed: who its pods are in the cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;

use crate::world::led_to;

/// It is the release of its namespace.
pub(crate) struct Installed {
    directory: TempDir,
    name: String,
}

/// Who the server's pods are.
pub(crate) struct Account {
    kubeconfig: PathBuf,
    client: Client,
}

impl Installed {
    /// Installs it with these values into a namespace of its own.
    pub(crate) fn new(values: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let installed = Self {
            name: format!("i{}", name.to_lowercase()),
            directory,
        };
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/workload-scheduler");
        let mut arguments = vec!["install", &installed.name, chart, "--create-namespace"];
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        installed.helm(&arguments);
        installed
    }

    /// The namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Becomes who its pods are.
    pub(crate) async fn account(&self) -> Account {
        let mut kubeconfig = Kubeconfig::read_from(led_to("SCHEDULER_TEST_KUBECONFIG")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options)
            .await
            .unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(Client::try_from(config).unwrap(), &self.name);
        let asked = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let account = format!("{}-workload-scheduler", self.name);
        let token = accounts
            .create_token_request(&account, &PostParams::default(), &asked)
            .await
            .unwrap();
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().unwrap();
        user.client_certificate = None;
        user.client_certificate_data = None;
        user.client_key = None;
        user.client_key_data = None;
        user.token = Some(token.status.unwrap().token.into());
        let file = self.directory.path().join("kubeconfig");
        std::fs::write(&file, serde_norway::to_string(&kubeconfig).unwrap()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        Account {
            kubeconfig: file,
            client: Client::try_from(config).unwrap(),
        }
    }

    pub(crate) fn remove(self) {
        self.helm(&["uninstall", &self.name]);
    }

    fn helm(&self, arguments: &[&str]) {
        let mut command = Command::new(led_to("SCHEDULER_TEST_HELM"));
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.directory.path().join("helm"));
        }
        command
            .args(arguments)
            .args(["--namespace", &self.name, "--kubeconfig"])
            .arg(led_to("SCHEDULER_TEST_KUBECONFIG"));
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
    }
}

impl Account {
    /// For one who acts as the account.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Whether the account may do it in any namespace.
    pub(crate) async fn may(&self, group: &str, resource: &str, verb: &str) -> bool {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let asked = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &asked).await.unwrap();
        answer.status.unwrap().allowed
    }
}
