//! The scheduler's own chart, installed: who its pods are in the cluster.

use std::path::PathBuf;
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

pub(crate) struct Installed {
    directory: TempDir,
    /// Of the release, and of its namespace.
    name: String,
    client: Client,
}

impl Installed {
    /// Installs it with the deployer `helm` into a namespace of its own.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("i{}", name.to_lowercase());
        let admin = led_to("SCHEDULER_TEST_KUBECONFIG");
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/workload-scheduler");
        let place = ["--namespace", &name, "--create-namespace"];
        helm(
            &directory,
            &[&["install", &name, chart, "--set", "deployer=helm"], &place[..]].concat(),
        );

        let mut kubeconfig = Kubeconfig::read_from(&admin).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options)
            .await
            .unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(Client::try_from(config).unwrap(), &name);
        let asked = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let account = format!("{name}-workload-scheduler");
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
        let text = serde_norway::to_string(&kubeconfig).unwrap();
        std::fs::write(directory.path().join("kubeconfig"), text).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        Self {
            directory,
            name,
            client: Client::try_from(config).unwrap(),
        }
    }

    /// For one who is what the server's pods are.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
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

    pub(crate) fn remove(self) {
        helm(
            &self.directory,
            &["uninstall", &self.name, "--namespace", &self.name],
        );
    }
}

fn helm(directory: &TempDir, arguments: &[&str]) {
    let mut command = Command::new(led_to("SCHEDULER_TEST_HELM"));
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, directory.path().join("helm"));
    }
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(led_to("SCHEDULER_TEST_KUBECONFIG"));
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
}
