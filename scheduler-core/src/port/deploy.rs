//! The deployer: where the workers of a pipeline come from, and how many there are.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::BoxError;
use super::catalog::{Deployment, Replicas};
use super::gateway::NewDeployment;
use crate::id::PipelineId;
use crate::name::PipelinePath;

/// What a chart says about its pipeline.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ChartFacts {
    /// The pipeline definition as JSON, if the chart carries one.
    pub definition: Option<Bytes>,
    /// Bounds on the number of workers, if the chart has them.
    pub replicas: Option<Replicas>,
    /// What deploying it would create, for people, as `Deployment/worker`; empty where nothing but workers is.
    pub objects: Vec<String>,
}

/// A pipeline whose workers are wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Which.
    pub pipeline: PipelineId,
    /// Its name.
    pub path: PipelinePath,
    /// Counts its changes: a deployment of an older version is replaced.
    pub version: u64,
    /// Where its workers come from.
    pub deployment: Deployment,
    /// What they run; empty if they know by themselves. Its steps may name executors that the chart does not.
    pub definition: Bytes,
}

/// How a deployment fares.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rollout {
    /// What is going on.
    pub phase: RolloutPhase,
    /// How many workers are wanted now.
    pub wanted: u32,
    /// How many of them run.
    pub ready: u32,
    /// What went wrong last, for people; empty if nothing did.
    pub problem: String,
}

/// What is going on with a deployment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RolloutPhase {
    /// It has not begun.
    Pending,
    /// Workers are being started.
    Deploying,
    /// As many workers run as are wanted.
    Ready,
    /// It will not come up as it is.
    Failed,
}

/// A worker that has tasks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BusyWorker {
    /// What it calls itself; of a pod that is the pod's name, if its chart says so.
    pub name: String,
    /// How many it has.
    pub tasks: u64,
}

/// Brings workers to life.
///
/// # Contract
///
/// - [`apply`](Self::apply) says what is wanted and returns; progress is seen by [`rollout`](Self::rollout). Repeating it is safe.
/// - In a cluster one node deploys a pipeline; a node that is told to do it no longer calls [`hand_over`](Self::hand_over).
/// - After [`remove`](Self::remove) answers, no worker of the pipeline is running. Removing what does not exist succeeds.
/// - After a restart of the node the driver applies every pipeline again; workers that were left over are adopted or ended.
#[async_trait]
pub trait Deployer: fmt::Debug + Send + Sync + 'static {
    /// Reads a chart and checks it as if it were to be deployed for that pipeline, without deploying it.
    async fn inspect(&self, path: &PipelinePath, asked: &NewDeployment) -> Result<ChartFacts, DeployError>;

    /// Says what is wanted.
    async fn apply(&self, wanted: Wanted) -> Result<(), DeployError>;

    /// Says how many workers are wanted now, within the deployment's bounds.
    async fn scale(&self, pipeline: PipelineId, workers: u32) -> Result<(), DeployError>;

    /// Whether something else than [`scale`](Self::scale) says how many workers the pipeline has: then nobody is told before there are fewer.
    fn is_scaled_by_others(&self, pipeline: PipelineId) -> bool;

    /// Not more than `workers` are going to be wanted: where there are more, those that are busy are to go last, as far as the deployer has
    /// a say in it. All others are idle. A name that no worker has here is of no matter.
    async fn spare(&self, pipeline: PipelineId, workers: u32, busy: &[BusyWorker])
    -> Result<(), DeployError>;

    /// How the pipeline's deployment fares; `None` if it was never applied.
    async fn rollout(&self, pipeline: PipelineId) -> Result<Option<Rollout>, DeployError>;

    /// Another node deploys the pipeline from now on: ends those of its workers that would not outlive this process, and leaves the others
    /// to it. What is not deployed is handed over at once.
    async fn hand_over(&self, pipeline: PipelineId) -> Result<(), DeployError>;

    /// Ends the workers of a pipeline. An earlier run of the node may have begun with that, or have been the one that deployed it.
    async fn remove(&self, pipeline: PipelineId, path: &PipelinePath) -> Result<(), DeployError>;

    /// Ends everything that would not outlive this process.
    async fn shutdown(&self);
}

/// Why the deployer did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// The request is wrong; the same call will always fail.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field of the request.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// Later the same call may succeed.
    #[error("the deployer is unavailable")]
    Unavailable(#[source] BoxError),
}
