//! One pipeline's release: brought to what is wanted, step by step, whatever state it was left in.
//!
//! Every step may be the last of this process, and every step may have been done before: nothing is remembered but in the cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::deploy::{DeployError, Wanted};
use scheduler_core::port::gateway::NewDeployment;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::application::{self, ACCOUNT, shortened};
use super::cli::{Helm, HelmError};
use super::cluster::{self, Cluster};
use super::policy::Place;
use super::prepare::{Told, prepare};
use super::render::{Asked, Rendered, render, scratch, write_plain};
use super::revision::{self, Revision};
use super::source::Sources;
use super::trial::Trial;
use super::{HelmConfig, cluster::account};

/// The wait before what could not be done is tried again; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Revisions that helm keeps of a release.
const HISTORY: &str = "5";
/// The longest name that helm takes for a release.
const MAX_RELEASE: usize = 53;

/// What all releases share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: HelmConfig,
    pub(super) helm: Helm,
    pub(super) sources: Sources,
    pub(super) cluster: Cluster,
    /// The cluster's version, once it has said it.
    pub(super) kube_version: tokio::sync::OnceCell<String>,
    /// Held while a namespace is made or deleted.
    pub(super) namespaces: tokio::sync::Mutex<()>,
}

/// How far a release is with what was wanted at some version.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct State {
    pub(super) version: u64,
    pub(super) progress: Progress,
}

/// How far a release is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Progress {
    /// Nothing was done yet.
    #[default]
    Pending,
    /// It is being brought there. What went wrong last is told.
    Working(String),
    /// It will not be brought there as it is wanted.
    Failed(String),
    /// The same, and what was deployed before is there in its place.
    Kept(String),
    /// It is what is wanted.
    Deployed,
}

impl Progress {
    /// There are workers, or could be: their number is not this release's to choose.
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Self::Deployed | Self::Kept(_))
    }
}

/// What follows when all was done that could be.
enum Next {
    /// It is looked at until it has to be taken back, or for ever.
    Watch(Trial),
    Again(Duration),
    /// Nothing, until something else is wanted.
    Rest,
}

/// A pipeline's release.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) shared: Arc<Shared>,
    pub(super) pipeline: PipelineId,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) state: Arc<Mutex<State>>,
    /// How many workers the scheduler asked for last, if it did.
    pub(super) workers: Arc<Mutex<Option<u32>>>,
    /// Whether something of the chart says how many pods there are, as far as it was seen.
    pub(super) is_autoscaled: Arc<AtomicBool>,
    pub(super) stop: CancellationToken,
}

/// The name of a pipeline's release.
pub(super) fn release_name(pipeline: &str) -> String {
    if pipeline.len() <= MAX_RELEASE {
        pipeline.to_owned()
    } else {
        shortened(pipeline, pipeline, MAX_RELEASE)
    }
}

impl Shared {
    /// What charts are told of the scheduler, as `global.scheduler` in their values.
    pub(super) fn told(&self, path: &PipelinePath, replicas: Replicas) -> Value {
        let mut told = json!({
            "url": self.config.scheduler_url,
            "client": path.client.as_str(),
            "application": path.application.as_str(),
            "pipeline": path.pipeline.as_str(),
            "replicas": {"min": replicas.min, "max": replicas.max},
        });
        if self.config.api_keys.contains_key(&path.client) {
            told["apiKeySecret"] = json!({"name": application::KEY_SECRET, "key": application::KEY});
        }
        told
    }

    /// Fetches, renders and checks what is wanted, without doing anything.
    pub(super) async fn render(
        &self,
        path: &PipelinePath,
        deployment: &NewDeployment,
    ) -> Result<Rendered, DeployError> {
        let namespace = self.config.application.namespace(path);
        let release = release_name(path.pipeline.as_str());
        // A cluster that is away does not say; helm then takes the version that it was built for.
        let version = self.kube_version.get_or_try_init(|| self.cluster.version()).await;
        let asked = Asked {
            deployment,
            release: &release,
            place: Place {
                namespace: &namespace,
                account: ACCOUNT,
            },
            told: &|replicas| self.told(path, replicas),
            kube_version: version.ok().map(String::as_str),
        };
        render(&self.config, &self.helm, &self.sources, asked).await
    }

    /// Runs helm as the account of the application.
    pub(super) async fn helm_in(&self, namespace: &str, arguments: &[&str]) -> Result<String, HelmError> {
        let mut all: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        for (flag, value) in [
            ("--namespace", namespace),
            ("--kube-as-user", &account(namespace)),
        ] {
            all.extend([flag.to_owned(), value.to_owned()]);
        }
        self.helm.with_cluster(&all, self.config.helm_timeout).await
    }
}

/// What a release is made of, as a label can have it.
fn digest(shared: &Shared, wanted: &Wanted) -> String {
    let mut hash = Sha256::new();
    for part in [
        wanted.deployment.chart.as_bytes(),
        &wanted.deployment.values,
        shared
            .told(&wanted.path, wanted.deployment.replicas)
            .to_string()
            .as_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let number = u128::from_be_bytes(digest[..16].try_into().unwrap_or_default());
    format!("{number:032x}")
}

impl Release {
    /// Brings it to what is wanted, and again whenever something else is, until it is told to stop.
    pub(super) async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if self.set(wanted.version, None) {
                wait = FIRST_WAIT;
            }
            let done = self.bring(&wanted).await;
            let next = match done {
                Ok(None) => Next::Rest,
                Ok(Some(trial)) => Next::Watch(trial),
                Err(DeployError::Unavailable(problem)) => {
                    let problem = problem.to_string();
                    tracing::warn!(pipeline = %wanted.path, problem, wait_ms = wait.as_millis(), "the chart is not deployed yet");
                    self.set(wanted.version, Some(Progress::Working(problem)));
                    Next::Again(wait)
                }
                Err(problem) => {
                    tracing::warn!(pipeline = %wanted.path, %problem, "the chart is not deployed");
                    self.set(wanted.version, Some(Progress::Failed(problem.to_string())));
                    Next::Rest
                }
            };
            let rest = async {
                match next {
                    Next::Again(wait) => tokio::time::sleep(wait).await,
                    Next::Watch(trial) => trial.run().await,
                    Next::Rest => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = rest => wait = wait.saturating_mul(2).min(LONGEST_WAIT),
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    wait = FIRST_WAIT;
                }
            }
        }
    }

    /// Tells how far it is, or that something begins. Whether it is another version than before.
    fn set(&self, version: u64, progress: Option<Progress>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = state.version != version || state.progress == Progress::Pending;
        if let Some(progress) = progress {
            state.progress = progress;
        } else if is_new {
            state.progress = Progress::Working(String::new());
        }
        state.version = version;
        is_new
    }

    fn check_stop(&self) -> Result<(), DeployError> {
        if self.stop.is_cancelled() {
            return Err(DeployError::Unavailable("the deployer goes down".into()));
        }
        Ok(())
    }

    /// Does what is to be done. What was not seen to work yet is to be looked after.
    async fn bring(&self, wanted: &Wanted) -> Result<Option<Trial>, DeployError> {
        let shared = &*self.shared;
        let settings = &shared.config.application;
        let namespace = settings.namespace(&wanted.path);
        let release = release_name(wanted.path.pipeline.as_str());
        let key = shared.config.api_keys.get(&wanted.path.client);
        {
            let _turn = shared.namespaces.lock().await;
            self.check_stop()?;
            let client = shared.cluster.client()?;
            application::ensure(&client, settings, &wanted.path, key.map(String::as_str)).await?;
        }
        let client = shared.cluster.client_of(&namespace)?;
        let revisions = revision::list(&client, &namespace, Some(self.pipeline)).await?;
        let mut revisions = self.recover(&client, &namespace, &release, revisions).await?;
        let meant = digest(shared, wanted);
        revision::forget(&client, &namespace, &mut revisions, &meant).await?;
        let was_there = !revisions.is_empty();
        let last = revisions.last().filter(|last| last.status == "deployed");
        if let Some(problem) = revision::refusal(&revisions, &meant) {
            let problem = format!(
                "chart: what was deployed does not get ready: {problem}; what was there before runs again"
            );
            if last.is_none_or(|last| last.wanted == meant) {
                tracing::warn!(pipeline = %wanted.path, namespace, release, problem, "takes back what does not get ready");
                self.set(wanted.version, Some(Progress::Working(problem.clone())));
                self.check_stop()?;
                self.take_back(&namespace, &release, &revisions).await?;
            }
            let kept = Progress::Kept(problem);
            self.scale(&client, &namespace, wanted, was_there, kept).await?;
            return Ok(None);
        }
        let is_there = last.is_some_and(|last| last.wanted == meant);
        let is_proven = is_there && last.is_some_and(Revision::is_proven);
        if !is_there {
            let deployed = self
                .deploy(&namespace, &release, &meant, wanted, &revisions)
                .await;
            match deployed {
                Err(problem @ DeployError::Invalid { .. }) if revision::before(&revisions).is_some() => {
                    tracing::warn!(pipeline = %wanted.path, %problem, "the chart is not deployed; what was there before runs on");
                    let kept = Progress::Kept(format!("{problem}; what was there before runs on"));
                    self.scale(&client, &namespace, wanted, was_there, kept).await?;
                    return Ok(None);
                }
                other => other?,
            }
            tracing::info!(pipeline = %wanted.path, namespace, release, "the chart is deployed");
        }
        self.scale(&client, &namespace, wanted, was_there, Progress::Deployed)
            .await?;
        Ok((!is_proven).then_some(Trial {
            client,
            namespace,
            pipeline: self.pipeline,
            meant,
        }))
    }

    async fn deploy(
        &self,
        namespace: &str,
        release: &str,
        meant: &str,
        wanted: &Wanted,
        revisions: &[Revision],
    ) -> Result<(), DeployError> {
        self.check_stop()?;
        let asked = wanted.deployment.clone().into();
        let rendered = self.shared.render(&wanted.path, &asked).await?;
        self.check_stop()?;
        self.install(namespace, release, meant, wanted, rendered, revisions)
            .await
    }

    /// Takes back what helm had begun when it was killed. Gives the revisions that are left.
    async fn recover(
        &self,
        client: &Client,
        namespace: &str,
        release: &str,
        revisions: Vec<Revision>,
    ) -> Result<Vec<Revision>, DeployError> {
        let found = revisions.len();
        let status = revisions.last().map(|last| last.status.clone());
        let is_pending = revisions.last().is_some_and(Revision::is_pending);
        let revisions = revision::without_vain(client, namespace, revisions).await?;
        if !is_pending && revisions.len() == found {
            return Ok(revisions);
        }
        tracing::warn!(
            release,
            namespace,
            status,
            "takes back what helm had begun when it was ended"
        );
        self.take_back(namespace, release, &revisions).await?;
        revision::list(client, namespace, Some(self.pipeline)).await
    }

    async fn install(
        &self,
        namespace: &str,
        release: &str,
        meant: &str,
        wanted: &Wanted,
        mut rendered: Rendered,
        revisions: &[Revision],
    ) -> Result<(), DeployError> {
        let shared = &*self.shared;
        let label = cluster::label(self.pipeline);
        let environment = [
            ("SCHEDULER_URL", shared.config.scheduler_url.clone()),
            ("SCHEDULER_APPLICATION", wanted.path.application.to_string()),
            ("SCHEDULER_PIPELINE", wanted.path.pipeline.to_string()),
        ];
        let told = Told {
            label: &label,
            environment: &environment,
            has_key: shared.config.api_keys.contains_key(&wanted.path.client),
        };
        prepare(&mut rendered.objects, &told);
        let directory = scratch(&shared.config.directory)?;
        let chart = directory.path().join("chart");
        let to = chart.clone();
        let written = tokio::task::spawn_blocking(move || write_plain(&to, &rendered)).await;
        written
            .map_err(|error| DeployError::Unavailable(error.into()))?
            .map_err(|error| DeployError::Unavailable(error.into()))?;
        let labels = revision::labels(self.pipeline, meant);
        let chart = chart.display().to_string();
        let mut arguments = vec!["upgrade", "--install", release, &chart];
        arguments.extend(["--labels", &labels, "--history-max", HISTORY]);
        if !shared.config.policy.hooks {
            arguments.push("--no-hooks");
        }
        let installed = shared.helm_in(namespace, &arguments).await;
        let Err(error) = installed else {
            return Ok(());
        };
        // Not what was wanted, but what was before: workers go on, or nothing is left.
        self.take_back(namespace, release, revisions).await?;
        // A cluster that is away says nothing about the chart.
        if !matches!(error, HelmError::Refused(_)) || shared.cluster.version().await.is_err() {
            return Err(passing("deploying the chart", &error));
        }
        Err(DeployError::Invalid {
            field: "chart".to_owned(),
            problem: format!("the cluster does not take it: {error}"),
        })
    }

    /// Goes back to what was deployed before; nothing is left if nothing was.
    async fn take_back(
        &self,
        namespace: &str,
        release: &str,
        revisions: &[Revision],
    ) -> Result<(), DeployError> {
        let number;
        let arguments: &[&str] = match revision::before(revisions) {
            Some(before) => {
                number = before.number.to_string();
                // It deletes nothing of the history: what one goes back to may be the oldest, and this may not come to its end.
                &["rollback", release, &number, "--history-max", "0"]
            }
            None => &["uninstall", release, "--ignore-not-found"],
        };
        self.shared
            .helm_in(namespace, arguments)
            .await
            .map(drop)
            .map_err(|error| passing("taking the chart back", &error))
    }

    /// As many workers as the scheduler said; before it has said anything, as many as there are, within bounds, or the least. From then on
    /// it is there, and who says a number brings it there himself.
    async fn scale(
        &self,
        client: &Client,
        namespace: &str,
        wanted: &Wanted,
        was_there: bool,
        progress: Progress,
    ) -> Result<(), DeployError> {
        let bounds = wanted.deployment.replicas;
        let max = bounds.max.min(self.shared.config.max_workers);
        let deployments = cluster::worker_deployments(client, namespace, self.pipeline).await?;
        let is_autoscaled = deployments.iter().any(cluster::is_autoscaled);
        self.is_autoscaled.store(is_autoscaled, Ordering::Relaxed);
        let now = deployments
            .iter()
            .filter_map(|deployment| deployment.spec.as_ref()?.replicas?.try_into().ok())
            .max()
            .filter(|_| was_there);
        loop {
            let said = *self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            let workers = said.or(now).unwrap_or(bounds.min).clamp(bounds.min.min(max), max);
            cluster::scale(client, namespace, &deployments, workers).await?;
            // Whoever says another number meanwhile leaves it to us: it must not be lost between the two.
            let latest = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            if *latest == said {
                self.set(wanted.version, Some(progress));
                return Ok(());
            }
        }
    }
}

fn passing(doing: &str, error: &HelmError) -> DeployError {
    DeployError::Unavailable(format!("{doing}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_called_as_its_pipeline_if_helm_takes_the_name() {
        assert_eq!(release_name("ocr"), "ocr");
        let long = release_name(&"x".repeat(63));
        assert!(long.len() <= MAX_RELEASE && long != release_name(&format!("{}y", "x".repeat(62))));
    }
}
