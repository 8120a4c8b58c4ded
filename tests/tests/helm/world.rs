//! A server that deploys by helm, with namespaces of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api as Kube, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use scheduler_examples::{Api, Server, ServerOptions};
use tempfile::TempDir;

/// A test is stuck when something has not come after so long.
const STUCK: Duration = Duration::from_mins(3);

/// A worker whose image says which version of it is there.
pub(crate) const WORKER: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
      - name: agent
        image: {{ .Values.image }}
        env: [{name: PIPELINE_AGENT__NAME, value: {{ .Release.Name }}}]
";

pub(crate) struct World {
    directory: TempDir,
    options: ServerOptions,
    server: Option<Server>,
    client: Client,
    prefix: String,
    application: String,
    key: Option<String>,
}

/// A node that is there too.
pub(crate) struct Another {
    options: ServerOptions,
    server: Option<Server>,
}

pub(crate) fn led_to(variable: &str) -> String {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| {
        panic!("{variable} is not set: run `cargo xtask test`, or `cargo xtask services up --kube` and export what it prints")
    })
}

pub(crate) const PIPELINES: &str = "/api/applications/app/pipelines";

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With further settings of applications.
    pub(crate) async fn start_with(settings: &str) -> Self {
        Self::start_as(settings, &[("--worker-url", "http://scheduler:50050")]).await
    }

    /// With these arguments too.
    pub(crate) async fn start_as(settings: &str, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let admin = led_to("SCHEDULER_TEST_KUBECONFIG");
        let prefix = directory.path().file_name().unwrap().to_string_lossy();
        let prefix: String = prefix.chars().filter(char::is_ascii_alphanumeric).collect();
        let prefix = format!("e{}-", prefix.to_lowercase());
        let settings_file = directory.path().join("settings.yaml");
        std::fs::write(&settings_file, format!("prefix: {prefix}\n{settings}")).unwrap();
        let helm = led_to("SCHEDULER_TEST_HELM");
        let mut arguments = vec![
            ("--deployer", "helm"),
            ("--helm", &helm),
            ("--chart-root", directory.path().to_str().unwrap()),
            ("--application-settings", settings_file.to_str().unwrap()),
        ];
        if more.iter().all(|(flag, _)| *flag != "--kubeconfig") {
            arguments.push(("--kubeconfig", &admin));
        }
        arguments.extend(more);
        let arguments = arguments
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
        let options = ServerOptions {
            data: directory.path().join("data"),
            log: directory.path().join("server.log"),
            arguments: arguments.collect(),
        };
        let mut world = Self {
            client: Self::admin().await,
            directory,
            options,
            server: None,
            prefix,
            application: "app".to_owned(),
            key: None,
        };
        world.restart().await;
        world
    }

    /// As one who may do everything in the cluster that tests have.
    pub(crate) async fn admin() -> Client {
        let read = Kubeconfig::read_from(led_to("SCHEDULER_TEST_KUBECONFIG")).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }

    /// Turns to another application.
    pub(crate) fn turn_to(&mut self, application: &str) {
        application.clone_into(&mut self.application);
    }

    /// The pipelines of the application.
    pub(crate) fn pipelines(&self) -> String {
        format!("/api/applications/{}/pipelines", self.application)
    }

    pub(crate) async fn restart(&mut self) {
        self.server = Some(Server::start(&self.options).await.unwrap());
    }

    /// Another node with the same arguments, in a place of its own.
    pub(crate) async fn another(&self) -> Another {
        let options = ServerOptions {
            data: self.directory.path().join("another"),
            log: self.directory.path().join("another.log"),
            ..self.options.clone()
        };
        let server = Some(Server::start(&options).await.unwrap());
        Another { options, server }
    }

    /// Has the other node be the one that this is about.
    pub(crate) fn swap(&mut self, other: &mut Another) {
        std::mem::swap(&mut self.options, &mut other.options);
        std::mem::swap(&mut self.server, &mut other.server);
    }

    pub(crate) async fn kill(&mut self) {
        self.server.take().unwrap().kill().await.unwrap();
    }

    /// Lets the server end in order, and looks for what must never be in its log.
    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().stop().await.unwrap();
        let log = std::fs::read_to_string(&self.options.log).unwrap();
        assert!(!log.contains("panicked"), "something panicked:\n{log}");
    }

    /// A directory below which charts are taken from.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// As one who may do everything in the cluster.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where requests need this key.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn api(&self) -> Api {
        let api = Api::over([self.server.as_ref().unwrap().http().to_owned()]);
        match &self.key {
            Some(key) => api.with_key(key),
            None => api,
        }
    }

    /// Where it tells of its queues, if it was told to.
    pub(crate) fn metrics(&self) -> &str {
        self.server.as_ref().unwrap().metrics().unwrap()
    }

    pub(crate) async fn patch(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<scheduler_examples::Answer> {
        self.api().send(reqwest::Method::PATCH, path, body).await
    }

    pub(crate) fn pipeline(name: &str) -> String {
        format!("{PIPELINES}/{name}")
    }

    /// A chart directory with these files.
    pub(crate) fn chart(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let chart = self.directory.path().join(name);
        std::fs::create_dir_all(chart.join("templates")).unwrap();
        let about = format!("apiVersion: v2\nname: {name}\nversion: 0.1.0\n");
        std::fs::write(chart.join("Chart.yaml"), about).unwrap();
        for (file, text) in files {
            std::fs::write(chart.join(file), text).unwrap();
        }
        chart
    }

    /// The application's namespace.
    pub(crate) fn name(&self) -> String {
        format!("{}default-{}", self.prefix, self.application)
    }

    /// The application's namespace, if it is there and not on its way out.
    pub(crate) async fn namespace(&self) -> Option<Namespace> {
        let namespaces: Kube<Namespace> = Kube::all(self.client.clone());
        let found = namespaces.get_opt(&self.name()).await.unwrap();
        found.filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
    }

    /// Waits until nothing is left of the namespace.
    pub(crate) async fn until_gone(&self) {
        let namespaces: Kube<Namespace> = Kube::all(self.client.clone());
        eventually(async || match namespaces.get_opt(&self.name()).await.unwrap() {
            None => Ok(()),
            Some(namespace) => Err(format!("{:?}", namespace.status)),
        })
        .await;
    }

    pub(crate) async fn deployments(&self) -> Vec<Deployment> {
        let deployments: Kube<Deployment> = Kube::namespaced(self.client.clone(), &self.name());
        deployments.list(&ListParams::default()).await.unwrap().items
    }

    /// How helm's revisions are, the oldest first.
    pub(crate) async fn statuses(&self) -> Vec<String> {
        let secrets: Kube<Secret> = Kube::namespaced(self.client.clone(), &self.name());
        let mut found = secrets
            .list(&ListParams::default().labels("owner=helm"))
            .await
            .unwrap()
            .items;
        found.sort_by_key(|secret| secret.labels()["version"].parse::<u32>().unwrap());
        found
            .iter()
            .map(|secret| secret.labels()["status"].clone())
            .collect()
    }

    /// Of the first deployment.
    pub(crate) async fn image(&self) -> Option<String> {
        let deployments = self.deployments().await;
        let pod = deployments.first()?.spec.as_ref()?.template.spec.as_ref()?;
        pod.containers.first()?.image.clone()
    }

    pub(crate) async fn until_image(&self, image: &str) {
        eventually(async || {
            let found = self.image().await;
            if found.as_deref() == Some(image) {
                Ok(())
            } else {
                Err(format!(
                    "the image is {found:?} instead of {image}: {}",
                    self.log()
                ))
            }
        })
        .await;
    }

    pub(crate) async fn until_replicas(&self, wanted: i32) {
        eventually(async || {
            let deployments = self.deployments().await;
            let found = deployments
                .first()
                .and_then(|deployment| deployment.spec.as_ref()?.replicas);
            if found == Some(wanted) {
                Ok(())
            } else {
                Err(format!(
                    "there are {found:?} replicas instead of {wanted}: {}",
                    self.log()
                ))
            }
        })
        .await;
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.options.log).unwrap_or_default()
    }
}

/// Waits for what nobody announces; says at last why it has not come.
pub(crate) async fn eventually<T>(mut holds: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    let waiting = async {
        loop {
            match holds().await {
                Ok(value) => return value,
                Err(problem) => last = problem,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let came = tokio::time::timeout(STUCK, waiting).await;
    came.unwrap_or_else(|_| panic!("stuck: {last}"))
}
