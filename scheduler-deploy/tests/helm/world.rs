//! A deployer of a test's own, with namespaces of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Config, ResourceExt as _};
use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::{Deployer as _, Rollout, RolloutPhase, Wanted};
use scheduler_deploy::helm::{ApplicationSettings, HelmConfig, HelmDeployer};
use tempfile::TempDir;

/// A test is stuck when something has not come after so long.
const STUCK: Duration = Duration::from_mins(2);

/// What a variable leads to; a test without it fails.
fn led_to(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    let value = value.unwrap_or_else(|| {
        panic!("{variable} is not set: run `cargo xtask test`, or `cargo xtask services up --kube` and export what it prints")
    });
    value.into()
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) config: HelmConfig,
    pub(crate) client: Client,
    prefix: String,
    next: AtomicU32,
}

impl World {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = led_to("SCHEDULER_TEST_KUBECONFIG");
        // Tests share a cluster: each has names of its own.
        let prefix = format!("t{:08x}-", rand());
        let mut config = HelmConfig::new(directory.path().join("state"), "http://scheduler:50050");
        config.program = led_to("SCHEDULER_TEST_HELM");
        config.kubeconfig = Some(kubeconfig.clone());
        config.application = ApplicationSettings {
            prefix: prefix.clone(),
            ..ApplicationSettings::default()
        };
        config.sources.directories = vec![directory.path().to_owned()];
        let read = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let of_admin = Config::from_custom_kubeconfig(read, &options).await.unwrap();
        Self {
            client: Client::try_from(of_admin).unwrap(),
            directory,
            config,
            prefix,
            next: AtomicU32::new(1),
        }
    }

    pub(crate) async fn deployer(&self) -> HelmDeployer {
        HelmDeployer::open(self.config.clone()).await.unwrap()
    }

    /// A chart directory with these files.
    pub(crate) fn chart(&self, name: &str, files: &[(&str, &str)]) -> String {
        let chart = self.directory.path().join(name);
        write(
            &chart,
            "Chart.yaml",
            &format!(
                "apiVersion: v2\nname: {}\nversion: 0.1.0\n",
                name.rsplit('/').next().unwrap()
            ),
        );
        for (file, text) in files {
            write(&chart, file, text);
        }
        chart.display().to_string()
    }

    pub(crate) fn wanted(&self, pipeline: &str, chart: &str) -> Wanted {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Wanted {
            // Pipelines of all tests differ, as those of one scheduler do.
            pipeline: PipelineId((rand() & 0x7fff_0000) | number),
            path: PipelinePath {
                client: "acme".parse().unwrap(),
                application: "app".parse().unwrap(),
                pipeline: pipeline.parse().unwrap(),
            },
            version: 1,
            deployment: Deployment {
                chart: chart.to_owned(),
                values: Bytes::new(),
                replicas: Replicas { min: 1, max: 4 },
            },
            definition: Bytes::new(),
        }
    }

    pub(crate) fn namespace(&self) -> String {
        format!("{}acme-app", self.prefix)
    }

    /// The namespace, if it is there and not on its way out.
    pub(crate) async fn live_namespace(&self) -> Option<Namespace> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let found = namespaces.get_opt(&self.namespace()).await.unwrap();
        found.filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
    }

    /// Namespaces of this test, alive or not.
    pub(crate) async fn namespaces(&self) -> Vec<String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let all = namespaces.list(&ListParams::default()).await.unwrap();
        let names = all.items.iter().map(kube::ResourceExt::name_any);
        names.filter(|name| name.starts_with(&self.prefix)).collect()
    }

    /// Objects of a kind in the namespace.
    pub(crate) async fn objects(&self, api_version: &str, kind: &str) -> Vec<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace(), &resource);
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Their names.
    pub(crate) async fn names(&self, api_version: &str, kind: &str) -> Vec<String> {
        let objects = self.objects(api_version, kind).await;
        objects.iter().map(kube::ResourceExt::name_any).collect()
    }

    /// One of them.
    pub(crate) async fn object(&self, api_version: &str, kind: &str, name: &str) -> DynamicObject {
        let objects = self.objects(api_version, kind).await;
        let found = objects.into_iter().find(|object| object.name_any() == name);
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// Copies of charts that are still there.
    pub(crate) fn copies(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.config.directory).unwrap().flatten();
        let paths = entries.map(|entry| entry.path());
        let is_copy = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("chart-")
        };
        paths.filter(is_copy).collect()
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

/// Waits until a rollout is as told.
pub(crate) async fn until(
    deployer: &HelmDeployer,
    pipeline: PipelineId,
    what: &str,
    holds: impl Fn(&Rollout) -> bool,
) -> Rollout {
    eventually(async || {
        let rollout = deployer.rollout(pipeline).await.unwrap().unwrap();
        if holds(&rollout) {
            Ok(rollout)
        } else {
            Err(format!("{what} does not come: {rollout:?}"))
        }
    })
    .await
}

/// Waits until helm has put it there; without controllers no worker gets ready.
pub(crate) async fn until_deployed(deployer: &HelmDeployer, pipeline: PipelineId) {
    let deployed = |rollout: &Rollout| {
        rollout.phase == RolloutPhase::Deploying && rollout.wanted > 0 && rollout.problem.is_empty()
    };
    until(deployer, pipeline, "the deployment", |rollout| {
        assert_ne!(rollout.phase, RolloutPhase::Failed, "{}", rollout.problem);
        deployed(rollout)
    })
    .await;
}

pub(crate) fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Different for each test and run.
fn rand() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let seeded = RandomState::new().build_hasher().finish();
    u32::try_from(seeded >> 32).unwrap()
}
