//! The deployer: which replicas there are to be.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use scheduler_core::id::PipelineId;
use scheduler_core::name::PipelinePath;
use scheduler_core::port::BoxError;
use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::{
    BusyWorker, ChartFacts, DeployError, Deployer, Rollout, RolloutPhase, Wanted,
};
use scheduler_core::port::gateway::NewDeployment;
use scheduler_pipeline::PipelineDefinition;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::LocalConfig;
use super::launch::Plan;
use super::replica::{Health, Replica};
use crate::chart::Chart;
use crate::{leftover, lock};

/// Logs of replicas that have ended which are kept, so that a person can see why. The oldest go first.
const KEPT_DIRECTORIES: usize = 100;

/// Runs workers as processes of this machine. See the [module](super).
#[derive(Debug)]
pub struct LocalDeployer {
    config: Arc<LocalConfig>,
    /// The directory of the configuration, absolute.
    directory: PathBuf,
    pipelines: Mutex<Pipelines>,
    /// Numbers replicas, so that a name and a directory are never used again.
    next_replica: AtomicU64,
    /// All replicas that have not quite ended.
    running: TaskTracker,
    /// Ends all replicas when the deployer is dropped.
    stop: StopOnDrop,
    /// Held as long as the deployer lives.
    _lock: File,
}

#[derive(Debug, Default)]
struct Pipelines {
    by_id: HashMap<PipelineId, Workers>,
    /// Replicas of pipelines that were removed and that have not quite ended.
    ending: Vec<(PipelineId, TaskTracker)>,
    /// Nothing is started any more.
    closed: bool,
}

/// The workers of a pipeline.
#[derive(Debug)]
struct Workers {
    version: u64,
    plan: Arc<Plan>,
    bounds: Replicas,
    replicas: Vec<Running>,
    /// Every replica of this pipeline that has not quite ended.
    tracker: TaskTracker,
}

/// A replica that is to run.
#[derive(Debug)]
struct Running {
    name: String,
    /// Tasks that it had when it was last said who is busy.
    tasks: u64,
    health: Arc<Mutex<Health>>,
    stop: CancellationToken,
}

impl Running {
    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LocalDeployer {
    /// Takes the directory over and ends what a killed predecessor left running.
    ///
    /// # Errors
    ///
    /// [`DeployError::Unavailable`]: the directory cannot be used, or another deployer uses it.
    pub async fn open(config: LocalConfig) -> Result<Self, DeployError> {
        let wanted = config.directory.clone();
        let (directory, lock) = tokio::task::spawn_blocking(move || take_over(&wanted))
            .await
            .map_err(unavailable)?
            .map_err(DeployError::Unavailable)?;
        let left = leftover::end_all_of(&directory).await;
        if left > 0 {
            tracing::warn!(processes = left, "ended what a killed scheduler had left running");
        }
        let next_replica = AtomicU64::new(next_number(&directory));
        clear(directory.clone(), numbered(&directory)).await;
        Ok(Self {
            config: Arc::new(config),
            directory,
            pipelines: Mutex::default(),
            next_replica,
            running: TaskTracker::new(),
            stop: StopOnDrop::default(),
            _lock: lock,
        })
    }

    fn pipelines(&self) -> std::sync::MutexGuard<'_, Pipelines> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, deployment: &Deployment) -> Result<Chart, DeployError> {
        let deployment = deployment.clone();
        let config = Arc::clone(&self.config);
        tokio::task::spawn_blocking(move || Chart::read(&deployment, &config.chart_roots))
            .await
            .map_err(unavailable)?
    }

    /// Starts replicas or tells some to end, until so many are to run.
    fn resize(&self, id: PipelineId, workers: &mut Workers, wanted: u32) {
        let wanted = wanted.max(workers.bounds.min).min(workers.bounds.max) as usize;
        while workers.replicas.len() < wanted {
            let number = self.next_replica.fetch_add(1, Ordering::Relaxed);
            let name = format!("p{}-{number}", id.0);
            let running = Running {
                name: name.clone(),
                tasks: 0,
                health: Arc::default(),
                stop: self.stop.child_token(),
            };
            let replica = Replica {
                config: Arc::clone(&self.config),
                plan: Arc::clone(&workers.plan),
                directory: self.directory.join(&name),
                name,
                health: Arc::clone(&running.health),
                stop: running.stop.clone(),
            };
            let life = self.running.track_future(replica.run());
            workers.tracker.spawn(life);
            workers.replicas.push(running);
        }
        if workers.replicas.len() > wanted {
            // Those that do not run go first, then those with the fewest tasks, then the youngest. The sort is stable.
            workers
                .replicas
                .sort_by_key(|running| (!running.health().ready, Reverse(running.tasks)));
            for surplus in workers.replicas.drain(wanted..) {
                surplus.stop.cancel();
            }
        }
    }

    fn bounds(&self, replicas: Replicas) -> Replicas {
        let max = replicas.max.min(self.config.max_workers);
        Replicas {
            min: replicas.min.min(max),
            max,
        }
    }

    /// Ends the workers of a pipeline.
    async fn end(&self, pipeline: PipelineId) {
        let ending: Vec<TaskTracker> = {
            let mut pipelines = self.pipelines();
            pipelines.ending.retain(|(_, tracker)| !tracker.is_empty());
            if let Some(workers) = pipelines.by_id.remove(&pipeline) {
                for replica in &workers.replicas {
                    replica.stop.cancel();
                }
                workers.tracker.close();
                pipelines.ending.push((pipeline, workers.tracker));
            }
            // Another call may have begun to remove it.
            let same = pipelines.ending.iter().filter(|(id, _)| *id == pipeline);
            same.map(|(_, tracker)| tracker.clone()).collect()
        };
        for tracker in ending {
            tracker.wait().await;
        }
        prune(self.directory.clone()).await;
    }
}

/// The pipeline's definition, which was checked as the pipeline was made; none if its workers know by themselves.
fn read_definition(definition: &[u8]) -> Result<Option<PipelineDefinition>, DeployError> {
    if definition.is_empty() {
        return Ok(None);
    }
    let read = PipelineDefinition::from_json(&String::from_utf8_lossy(definition));
    read.map(Some).map_err(|error| DeployError::Invalid {
        field: error.field,
        problem: error.message,
    })
}

#[async_trait]
impl Deployer for LocalDeployer {
    async fn inspect(&self, _: &PipelinePath, asked: &NewDeployment) -> Result<ChartFacts, DeployError> {
        Ok(self.read(&asked.deployment(None)).await?.facts())
    }

    async fn apply(&self, wanted: Wanted) -> Result<(), DeployError> {
        let chart = self.read(&wanted.deployment).await?;
        let plan = Plan::new(wanted.path, chart, read_definition(&wanted.definition)?.as_ref());
        let bounds = self.bounds(wanted.deployment.replicas);
        let mut pipelines = self.pipelines();
        if pipelines.closed {
            return Err(unavailable("the deployer is shut down"));
        }
        let workers = pipelines.by_id.entry(wanted.pipeline).or_insert_with(|| Workers {
            version: wanted.version,
            plan: Arc::new(plan.clone()),
            bounds,
            replicas: Vec::new(),
            tracker: TaskTracker::new(),
        });
        if wanted.version < workers.version {
            return Ok(());
        }
        workers.version = wanted.version;
        workers.bounds = bounds;
        let count = u32::try_from(workers.replicas.len()).unwrap_or(u32::MAX);
        if *workers.plan != plan {
            // A new definition reaches running workers by their sessions; only another environment needs other processes.
            workers.plan = Arc::new(plan);
            for old in workers.replicas.drain(..) {
                old.stop.cancel();
            }
        }
        self.resize(wanted.pipeline, workers, count);
        Ok(())
    }

    async fn scale(&self, pipeline: PipelineId, wanted: u32) -> Result<(), DeployError> {
        let mut pipelines = self.pipelines();
        if pipelines.closed {
            return Err(unavailable("the deployer is shut down"));
        }
        let workers = pipelines
            .by_id
            .get_mut(&pipeline)
            .ok_or_else(|| DeployError::Invalid {
                field: "pipeline".to_owned(),
                problem: format!("{} has no deployment; apply one first", pipeline.0),
            })?;
        self.resize(pipeline, workers, wanted);
        Ok(())
    }

    fn is_scaled_by_others(&self, _: PipelineId) -> bool {
        false
    }

    async fn spare(&self, pipeline: PipelineId, _: u32, busy: &[BusyWorker]) -> Result<(), DeployError> {
        let mut pipelines = self.pipelines();
        let Some(workers) = pipelines.by_id.get_mut(&pipeline) else {
            return Ok(());
        };
        for running in &mut workers.replicas {
            let found = busy.iter().find(|worker| worker.name == running.name);
            running.tasks = found.map_or(0, |worker| worker.tasks);
        }
        Ok(())
    }

    async fn rollout(&self, pipeline: PipelineId) -> Result<Option<Rollout>, DeployError> {
        let pipelines = self.pipelines();
        let Some(workers) = pipelines.by_id.get(&pipeline) else {
            return Ok(None);
        };
        let healths: Vec<Health> = workers.replicas.iter().map(Running::health).collect();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let wanted = count(healths.len());
        let ready = count(healths.iter().filter(|health| health.ready).count());
        let worst = healths
            .iter()
            .filter(|health| !health.ready && health.failures > 0)
            .max_by_key(|health| health.failures);
        let phase = match worst {
            _ if ready == wanted => RolloutPhase::Ready,
            Some(worst) if worst.failures >= self.config.failures_until_failed => RolloutPhase::Failed,
            _ => RolloutPhase::Deploying,
        };
        Ok(Some(Rollout {
            phase,
            wanted,
            ready,
            problem: worst.map(|health| health.problem.clone()).unwrap_or_default(),
        }))
    }

    async fn hand_over(&self, pipeline: PipelineId) -> Result<(), DeployError> {
        // All of them are processes of this machine.
        self.end(pipeline).await;
        Ok(())
    }

    async fn remove(&self, pipeline: PipelineId, _: &PipelinePath) -> Result<(), DeployError> {
        self.end(pipeline).await;
        Ok(())
    }

    async fn shutdown(&self) {
        self.pipelines().closed = true;
        self.stop.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// A token that is cancelled when it is dropped.
#[derive(Debug, Default)]
struct StopOnDrop(CancellationToken);

impl std::ops::Deref for StopOnDrop {
    type Target = CancellationToken;
    fn deref(&self) -> &CancellationToken {
        &self.0
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn unavailable(cause: impl Into<BoxError>) -> DeployError {
    DeployError::Unavailable(cause.into())
}

/// Makes the directory ours: absolute, existing, locked.
fn take_over(directory: &std::path::Path) -> Result<(PathBuf, File), BoxError> {
    let about = |error: std::io::Error| format!("{}: {error}", directory.display());
    std::fs::create_dir_all(directory).map_err(about)?;
    let absolute = directory.canonicalize().map_err(about)?;
    let lock = lock::take(&absolute).map_err(about)?;
    let lock =
        lock.ok_or_else(|| format!("{}: another scheduler runs its workers here", absolute.display()))?;
    Ok((absolute, lock))
}

/// A number greater than that of every replica that has left a directory.
fn next_number(directory: &std::path::Path) -> u64 {
    numbered(directory)
        .into_iter()
        .map(|(number, _)| number + 1)
        .max()
        .unwrap_or(1)
}

fn numbered(directory: &std::path::Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = directory.read_dir() else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.rsplit_once('-')?.1.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect()
}

/// Removes the workspaces of replicas that have not ended in order, then old logs.
async fn clear(directory: PathBuf, ended: Vec<(u64, PathBuf)>) {
    for (_, path) in ended {
        super::replica::remove_workspace(&path).await;
    }
    prune(directory).await;
}

/// Removes the oldest directories of replicas that have ended: those without a workspace.
async fn prune(directory: PathBuf) {
    let pruned = tokio::task::spawn_blocking(move || {
        let mut ended = numbered(&directory);
        ended.retain(|(_, path)| !super::launch::workspace(path).exists());
        ended.sort();
        let surplus = ended.len().saturating_sub(KEPT_DIRECTORIES);
        for (_, path) in &ended[..surplus] {
            if let Err(error) = std::fs::remove_dir_all(path) {
                tracing::warn!(%error, path = %path.display(), "an old log cannot be removed");
            }
        }
    });
    if pruned.await.is_err() {
        tracing::warn!("old logs were not looked through");
    }
}
