//! The deployer: which releases there are to be.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::Deployment;
use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::BoxError;
use scheduler_core::port::deploy::{
    BusyWorker, ChartFacts, DeployError, Deployer, Rollout, RolloutPhase, Wanted,
};
use scheduler_core::port::gateway::NewDeployment;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::HelmConfig;
use super::application;
use super::cli::Helm;
use super::cluster::{self, Cluster};
use super::release::{Progress, Release, Shared, State, release_name};
use super::revision;
use super::rollout::{self, Seen};
use super::source::Sources;
use super::spare;
use crate::{leftover, lock};

/// How long what was seen of a deployment is told again before the cluster is asked anew.
const FRESH: Duration = Duration::from_millis(500);
/// Between two looks at pods that are ending.
const LOOK: Duration = Duration::from_millis(250);

/// Deploys charts into a Kubernetes cluster. See the [module](super).
#[derive(Debug)]
pub struct HelmDeployer {
    shared: Arc<Shared>,
    pipelines: Mutex<Pipelines>,
    stop: CancellationToken,
    /// Held as long as the deployer lives.
    _lock: File,
}

#[derive(Debug, Default)]
struct Pipelines {
    by_id: HashMap<PipelineId, Running>,
    /// Nothing is begun any more.
    closed: bool,
}

/// A release that is looked after.
#[derive(Debug)]
struct Running {
    wanted: watch::Sender<Wanted>,
    state: Arc<Mutex<State>>,
    workers: Arc<Mutex<Option<u32>>>,
    is_autoscaled: Arc<AtomicBool>,
    /// What was seen last, when, and in which phase.
    seen: Arc<tokio::sync::Mutex<Option<(Instant, RolloutPhase, Seen)>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// How far it is with what is wanted now; what is known of an older wish is of no matter.
    fn progress(&self) -> Progress {
        let version = self.wanted.borrow().version;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.version == version || state.progress == Progress::Pending {
            state.progress.clone()
        } else {
            Progress::Working(String::new())
        }
    }
}

impl HelmDeployer {
    /// Checks helm, finds the cluster, takes the directory over, and ends what a killed predecessor left running.
    ///
    /// # Errors
    ///
    /// [`DeployError::Unavailable`]: helm or the directory cannot be used, or it is unknown which cluster is meant.
    pub async fn open(mut config: HelmConfig) -> Result<Self, DeployError> {
        let wanted = config.directory.clone();
        let (directory, lock) = tokio::task::spawn_blocking(move || take_over(&wanted))
            .await
            .map_err(|error| DeployError::Unavailable(error.into()))?
            .map_err(DeployError::Unavailable)?;
        let left = leftover::end_all_of(&directory).await;
        if left > 0 {
            tracing::warn!(
                processes = left,
                "ended what a killed scheduler had left running of helm"
            );
        }
        // Programs run elsewhere than here.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        config.kubeconfig = config.kubeconfig.as_deref().map(absolute);
        if config.program.components().count() > 1 {
            config.program = absolute(&config.program);
        }
        let helm = Helm::open(&config, &directory).await?;
        config.directory = directory;
        let cluster = Cluster::open(config.kubeconfig.as_deref()).await?;
        tracing::info!(helm = helm.version(), "charts are deployed by helm");
        let sources = Sources::new(config.sources.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                helm,
                sources,
                cluster,
                kube_version: tokio::sync::OnceCell::new(),
                namespaces: tokio::sync::Mutex::default(),
            }),
            pipelines: Mutex::default(),
            stop: CancellationToken::new(),
            _lock: lock,
        })
    }

    fn pipelines(&self) -> std::sync::MutexGuard<'_, Pipelines> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to look after a release.
    fn begin(&self, wanted: Wanted) -> Running {
        let pipeline = wanted.pipeline;
        let (sender, receiver) = watch::channel(wanted);
        let (state, workers, is_autoscaled) = (Arc::default(), Arc::default(), Arc::default());
        let stop = self.stop.child_token();
        let release = Release {
            shared: Arc::clone(&self.shared),
            pipeline,
            wanted: receiver,
            state: Arc::clone(&state),
            workers: Arc::clone(&workers),
            is_autoscaled: Arc::clone(&is_autoscaled),
            stop: stop.clone(),
        };
        Running {
            wanted: sender,
            state,
            workers,
            is_autoscaled,
            seen: Arc::default(),
            stop,
            task: tokio::spawn(release.run()),
        }
    }

    /// Stops looking after a release; what is deployed stays.
    async fn let_go(&self, pipeline: PipelineId) {
        let Some(running) = self.pipelines().by_id.remove(&pipeline) else {
            return;
        };
        running.stop.cancel();
        // It ends between two steps; none takes for ever.
        if let Err(problem) = running.task.await {
            tracing::warn!(%problem, pipeline = pipeline.0, "a deployment ended in disorder");
        }
    }

    /// Where releases of a pipeline are whose namespace goes by another prefix, of an earlier run.
    async fn find(&self, pipeline: PipelineId) -> Result<Vec<(String, String)>, DeployError> {
        let mut found = Vec::new();
        for namespace in application::namespaces(&self.shared.cluster.client()?).await? {
            let client = self.shared.cluster.client_of(&namespace)?;
            let revisions = revision::list(&client, &namespace, Some(pipeline)).await?;
            if let Some(last) = revisions.last() {
                found.push((namespace, last.release.clone()));
            }
        }
        Ok(found)
    }

    /// Removes a release and waits until none of its pods is left.
    async fn uninstall(
        &self,
        pipeline: PipelineId,
        namespace: &str,
        release: &str,
    ) -> Result<(), DeployError> {
        let shared = &self.shared;
        let client = shared.cluster.client_of(namespace)?;
        let arguments = ["uninstall", release, "--ignore-not-found"];
        let removed = shared.helm_in(namespace, &arguments).await;
        removed.map_err(|error| {
            DeployError::Unavailable(format!("removing release {release} of {namespace}: {error}").into())
        })?;
        cluster::delete_deployments(&client, namespace, pipeline).await?;
        let begun = Instant::now();
        while !cluster::pods(&client, namespace, pipeline).await?.is_empty() {
            if begun.elapsed() > shared.config.drain_patience {
                let problem = format!("pods of release {release} of {namespace} are still ending");
                return Err(DeployError::Unavailable(problem.into()));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.clear(namespace, &client).await
    }

    /// Deletes a namespace that has no pipeline any more.
    async fn clear(&self, namespace: &str, client: &kube::Client) -> Result<(), DeployError> {
        let _turn = self.shared.namespaces.lock().await;
        let settings = &self.shared.config.application;
        let is_used = self
            .pipelines()
            .by_id
            .values()
            .any(|running| settings.namespace(&running.wanted.borrow().path) == namespace);
        if is_used || !revision::list(client, namespace, None).await?.is_empty() {
            return Ok(());
        }
        application::delete(&self.shared.cluster.client()?, namespace).await
    }
}

#[async_trait]
impl Deployer for HelmDeployer {
    async fn inspect(&self, path: &PipelinePath, asked: &NewDeployment) -> Result<ChartFacts, DeployError> {
        Ok(self.shared.render(path, asked).await?.facts)
    }

    async fn apply(&self, wanted: Wanted) -> Result<(), DeployError> {
        let mut pipelines = self.pipelines();
        if pipelines.closed {
            return Err(DeployError::Unavailable("the deployer is shut down".into()));
        }
        if let Some(running) = pipelines.by_id.get(&wanted.pipeline) {
            running.wanted.send_if_modified(|known| {
                let is_newer = wanted.version >= known.version && wanted != *known;
                if is_newer {
                    *known = wanted;
                }
                is_newer
            });
        } else {
            let pipeline = wanted.pipeline;
            let running = self.begin(wanted);
            pipelines.by_id.insert(pipeline, running);
        }
        Ok(())
    }

    async fn scale(&self, pipeline: PipelineId, workers: u32) -> Result<(), DeployError> {
        let (path, progress, workers) = {
            let pipelines = self.pipelines();
            let Some(running) = pipelines.by_id.get(&pipeline) else {
                return Err(DeployError::Invalid {
                    field: "pipeline".to_owned(),
                    problem: "is not deployed here".to_owned(),
                });
            };
            let wanted = running.wanted.borrow();
            let bounds = wanted.deployment.replicas;
            let max = bounds.max.min(self.shared.config.max_workers);
            let workers = workers.clamp(bounds.min.min(max), max);
            *running.workers.lock().unwrap_or_else(PoisonError::into_inner) = Some(workers);
            (wanted.path.clone(), running.progress(), workers)
        };
        // What is not there yet gets its number when it is: the progress was asked for after the number was left.
        if !progress.is_there() {
            return Ok(());
        }
        let namespace = self.shared.config.application.namespace(&path);
        let client = self.shared.cluster.client_of(&namespace)?;
        let deployments = cluster::worker_deployments(&client, &namespace, pipeline).await?;
        cluster::scale(&client, &namespace, &deployments, workers).await
    }

    fn is_scaled_by_others(&self, pipeline: PipelineId) -> bool {
        let pipelines = self.pipelines();
        let running = pipelines.by_id.get(&pipeline);
        running.is_some_and(|running| running.is_autoscaled.load(Ordering::Relaxed))
    }

    async fn spare(
        &self,
        pipeline: PipelineId,
        workers: u32,
        busy: &[BusyWorker],
    ) -> Result<(), DeployError> {
        let path = {
            let pipelines = self.pipelines();
            let running = pipelines.by_id.get(&pipeline);
            // What is only coming up has nothing to spare.
            let Some(running) = running.filter(|running| running.progress().is_there()) else {
                return Ok(());
            };
            running.wanted.borrow().path.clone()
        };
        let namespace = self.shared.config.application.namespace(&path);
        let client = self.shared.cluster.client_of(&namespace)?;
        let deployments = cluster::worker_deployments(&client, &namespace, pipeline).await?;
        let pods = |deployment: &Deployment| deployment.spec.as_ref()?.replicas;
        let has_more = |pods: i32| u32::try_from(pods).is_ok_and(|pods| pods > workers);
        if !deployments.iter().filter_map(pods).any(has_more) {
            return Ok(());
        }
        spare::spare(&client, &namespace, pipeline, busy).await
    }

    async fn rollout(&self, pipeline: PipelineId) -> Result<Option<Rollout>, DeployError> {
        let known = {
            let pipelines = self.pipelines();
            pipelines.by_id.get(&pipeline).map(|running| {
                let progress = running.progress();
                let wanted = running.wanted.borrow();
                let min = wanted.deployment.replicas.min;
                (progress, wanted.path.clone(), min, Arc::clone(&running.seen))
            })
        };
        let Some((progress, path, min, seen)) = known else {
            return Ok(None);
        };
        let (phase, problem) = match progress {
            Progress::Pending => (RolloutPhase::Pending, String::new()),
            Progress::Working(problem) => (RolloutPhase::Deploying, problem),
            Progress::Failed(problem) | Progress::Kept(problem) => (RolloutPhase::Failed, problem),
            Progress::Deployed => (RolloutPhase::Ready, String::new()),
        };
        if phase == RolloutPhase::Pending {
            return Ok(Some(Rollout {
                phase,
                wanted: min,
                ready: 0,
                problem,
            }));
        }
        // One looks for all who ask at the same time.
        let mut fresh = seen.lock().await;
        let looked = match &*fresh {
            Some((at, of, seen)) if at.elapsed() < FRESH && *of == phase => Ok(seen.clone()),
            _ => {
                let namespace = self.shared.config.application.namespace(&path);
                let client = self.shared.cluster.client_of(&namespace)?;
                let looked = rollout::look(&client, &namespace, pipeline).await;
                *fresh = looked
                    .as_ref()
                    .ok()
                    .map(|seen| (Instant::now(), phase, seen.clone()));
                looked
            }
        };
        let seen = match looked {
            Ok(seen) => seen,
            // Who asks how it fares is told that, and not refused.
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| error.to_string());
                return Ok(Some(Rollout {
                    phase: match phase {
                        RolloutPhase::Failed => phase,
                        _ => RolloutPhase::Deploying,
                    },
                    wanted: min,
                    ready: 0,
                    problem: if problem.is_empty() { cause } else { problem },
                }));
            }
        };
        let phase = match phase {
            RolloutPhase::Ready if seen.is_failed => RolloutPhase::Failed,
            RolloutPhase::Ready if !seen.is_up() => RolloutPhase::Deploying,
            phase => phase,
        };
        Ok(Some(Rollout {
            phase,
            wanted: seen.wanted,
            ready: seen.ready,
            problem: if problem.is_empty() { seen.problem } else { problem },
        }))
    }

    async fn hand_over(&self, pipeline: PipelineId) -> Result<(), DeployError> {
        // Pods outlive this process: they are the next node's as they are.
        self.let_go(pipeline).await;
        Ok(())
    }

    async fn remove(&self, pipeline: PipelineId, path: &PipelinePath) -> Result<(), DeployError> {
        let settings = &self.shared.config.application;
        self.let_go(pipeline).await;
        // One that was never deployed may have no namespace, or its name may be somebody else's.
        let is_there = application::is_there(&self.shared.cluster.client()?, settings, path).await?;
        let found = if is_there {
            vec![(settings.namespace(path), release_name(path.pipeline.as_str()))]
        } else {
            self.find(pipeline).await?
        };
        for (namespace, release) in found {
            self.uninstall(pipeline, &namespace, &release).await?;
        }
        Ok(())
    }

    async fn shutdown(&self) {
        let running: Vec<PipelineId> = {
            let mut pipelines = self.pipelines();
            pipelines.closed = true;
            pipelines.by_id.keys().copied().collect()
        };
        self.stop.cancel();
        for pipeline in running {
            self.let_go(pipeline).await;
        }
    }
}

impl Drop for HelmDeployer {
    fn drop(&mut self) {
        self.stop.cancel();
        for running in self.pipelines().by_id.values() {
            running.task.abort();
        }
    }
}

/// Makes the directory ours: absolute, existing, locked, without what a predecessor was looking at.
fn take_over(directory: &Path) -> Result<(PathBuf, File), BoxError> {
    let about = |error: std::io::Error| format!("{}: {error}", directory.display());
    std::fs::create_dir_all(directory).map_err(about)?;
    let absolute = directory.canonicalize().map_err(about)?;
    let lock = lock::take(&absolute).map_err(about)?;
    let lock = lock.ok_or_else(|| format!("{}: another scheduler deploys from here", absolute.display()))?;
    for entry in absolute.read_dir().map_err(about)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("chart-") {
            std::fs::remove_dir_all(entry.path()).map_err(about)?;
        }
    }
    Ok((absolute, lock))
}
