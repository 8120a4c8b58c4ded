//! A node: the parts composed, running.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use scheduler_core::id::{NodeId, Partition, PipelineId, ShardId};
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{ApiKey, Catalog, CatalogError, Client, Pipeline};
use scheduler_core::port::deploy::{Deployer, Wanted};
use scheduler_core::port::log::TaskLog;
use scheduler_core::port::placement::{Placement, PlacementEvent};
use scheduler_core::port::store::{Archive, CheckpointStore};
use scheduler_core::session::SessionId;
use scheduler_pipeline::PipelineDefinition;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{error, warn};

use crate::actor::{Message, PipelineActor, World};
use crate::api;
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::directory::{Directory, Served, topic_of};
use crate::placement::AllHere;
use crate::retry::until_done;
use crate::{saver, scale};

/// A store that is all of the stores: checkpoints, archive and catalog.
pub trait Store: CheckpointStore + Archive + Catalog {}

impl<T: CheckpointStore + Archive + Catalog> Store for T {}

/// Composes a [`Node`].
#[derive(Debug)]
pub struct NodeBuilder {
    log: Arc<dyn TaskLog>,
    store: Arc<dyn Store>,
    placement: Arc<dyn Placement>,
    deployer: Option<Arc<dyn Deployer>>,
    config: NodeConfig,
}

impl NodeBuilder {
    /// Where shards live. Default: [`AllHere`].
    #[must_use]
    pub fn placement(mut self, placement: Arc<dyn Placement>) -> Self {
        self.placement = placement;
        self
    }

    /// Where workers come from. Default: they come by themselves.
    #[must_use]
    pub fn deployer(mut self, deployer: Arc<dyn Deployer>) -> Self {
        self.deployer = Some(deployer);
        self
    }

    /// How the node is set up.
    #[must_use]
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// Starts the node: reads the catalog, brings up the shards that live here, and applies deployments.
    ///
    /// # Errors
    ///
    /// If the catalog cannot be read, or there is no randomness to choose a node id from.
    pub async fn start(self) -> Result<Node, StartError> {
        let snapshot = self.store.snapshot().await.map_err(StartError::Catalog)?;
        let clock = Clock::new();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StartError::NoRandomness(error.to_string()))?;
        let (orders, receive) = mpsc::unbounded_channel();
        let checkpoints: Arc<dyn CheckpointStore> = self.store.clone();
        tokio::spawn(saver::run(checkpoints.clone(), receive));
        let world = World {
            clock,
            node: NodeId(u128::from_le_bytes(id)),
            grace: self.config.grace,
            log: self.log.clone(),
            store: checkpoints,
            saver: orders,
        };
        let pipelines = snapshot.pipelines.clone();
        let directory = Directory::default();
        directory.load(snapshot);
        let inner = Arc::new(Inner {
            config: self.config,
            clock,
            world,
            log: self.log,
            store: self.store,
            placement: self.placement,
            deployer: self.deployer,
            directory,
            sessions: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            background: std::sync::Mutex::default(),
        });
        let node = Node { inner };
        node.ensure_anonymous().await?;
        for pipeline in pipelines {
            if pipeline.deleting {
                node.spawn_background(api::finish_deletion(node.clone(), pipeline));
            } else {
                node.serve(pipeline).await;
            }
        }
        node.spawn_background(follow_placement(node.clone()));
        node.spawn_background(expire(node.clone()));
        node.spawn_background(scale::run(node.clone()));
        node.place().await;
        Ok(node)
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The catalog cannot be read.
    #[error("the catalog cannot be read")]
    Catalog(#[source] CatalogError),
    /// There is nothing to choose a node id from.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
}

/// A running node. Clones are the same node.
///
/// It is a [`Gateway`](scheduler_core::port::gateway::Gateway): hand it to the adapters of transports, or call it directly.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.inner.world.node)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) clock: Clock,
    pub(crate) world: World,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) placement: Arc<dyn Placement>,
    pub(crate) deployer: Option<Arc<dyn Deployer>>,
    pub(crate) directory: Directory,
    sessions: AtomicU64,
    stopping: AtomicBool,
    background: std::sync::Mutex<Vec<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        abort_all(&self.background);
    }
}

fn abort_all(tasks: &std::sync::Mutex<Vec<AbortHandle>>) {
    let mut tasks = tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tasks.drain(..).for_each(|task| task.abort());
}

impl Node {
    /// Begins to compose a node of a log and a store.
    pub fn builder(log: Arc<dyn TaskLog>, store: Arc<dyn Store>) -> NodeBuilder {
        NodeBuilder {
            log,
            store,
            placement: Arc::new(AllHere::default()),
            deployer: None,
            config: NodeConfig::default(),
        }
    }

    /// Adds a client; nothing if there is one of the name.
    pub async fn add_client(&self, name: Name) -> Result<(), CatalogError> {
        let client = Client {
            name,
            created_at: self.inner.clock.now(),
        };
        match self.inner.store.add_client(client.clone()).await {
            Ok(()) | Err(CatalogError::Exists { .. }) => {
                self.inner.directory.add_client(client);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lets `secret` be an API key of a client. Only its hash is kept.
    pub async fn add_key(&self, client: Name, secret: &str, label: &str) -> Result<(), CatalogError> {
        let hash = api::hash(secret);
        let key = ApiKey {
            hash,
            client,
            label: label.into(),
            created_at: self.inner.clock.now(),
        };
        match self.inner.store.add_key(key.clone()).await {
            Ok(()) | Err(CatalogError::Exists { .. }) => {
                self.inner.directory.add_key(key);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Goes down in order: takes nothing new, lets running tasks end (for a while), saves and releases every shard, and ends the workers
    /// that it has started.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        let served = self.inner.directory.pipelines();
        let mut drains = JoinSet::new();
        for pipeline in &served {
            let mailbox = pipeline.mailbox.clone();
            drains.spawn(async move { mailbox.ask(Message::Drain).await });
        }
        if tokio::time::timeout(self.inner.config.patience, drains.join_all())
            .await
            .is_err()
        {
            warn!(
                "tasks are still running after {:?}; others will run them again",
                self.inner.config.patience
            );
        }
        for pipeline in &served {
            let all = (0..pipeline.pipeline.partitions).map(Partition).collect();
            pipeline
                .mailbox
                .ask(|released| Message::Revoke(all, released))
                .await;
        }
        abort_all(&self.inner.background);
        if let Some(deployer) = &self.inner.deployer {
            deployer.shutdown().await;
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.inner.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins to serve a pipeline of the catalog.
    pub(crate) async fn serve(&self, pipeline: Arc<Pipeline>) -> Arc<Served> {
        let topic = topic_of(&pipeline);
        until_done("making sure of a log", || self.inner.log.ensure(&topic)).await;
        let mailbox = PipelineActor::spawn(self.inner.world.clone(), pipeline.clone());
        let served = Served {
            definition: definition_of(&pipeline),
            turn: Arc::new(AtomicU32::new(0)),
            pipeline: pipeline.clone(),
            mailbox,
        };
        let served = self.inner.directory.serve(served);
        self.deploy(&pipeline).await;
        served
    }

    /// Says what is wanted of the pipeline's workers.
    pub(crate) async fn deploy(&self, pipeline: &Pipeline) {
        let (Some(deployer), Some(deployment)) = (&self.inner.deployer, &pipeline.deployment) else {
            return;
        };
        let wanted = Wanted {
            pipeline: pipeline.id,
            path: pipeline.path.clone(),
            version: pipeline.version,
            deployment: deployment.clone(),
            definition: pipeline.definition.clone(),
        };
        if let Err(problem) = deployer.apply(wanted).await {
            error!(pipeline = %pipeline.path, error = &problem as &dyn std::error::Error, "workers are not deployed");
        }
    }

    /// Tells placement which topics there are.
    pub(crate) async fn place(&self) {
        let topics = self.inner.directory.topics();
        until_done("setting topics", || {
            self.inner.placement.set_topics(topics.clone())
        })
        .await;
    }

    pub(crate) fn spawn_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(work).abort_handle();
        let mut background = self
            .inner
            .background
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        background.retain(|task| !task.is_finished());
        background.push(task);
    }

    async fn ensure_anonymous(&self) -> Result<(), StartError> {
        match self.inner.config.anonymous.clone() {
            Some(name) if !self.inner.directory.has_client(&name) => {
                self.add_client(name).await.map_err(StartError::Catalog)
            }
            _ => Ok(()),
        }
    }
}

/// What was stored was checked as it came in.
pub(crate) fn definition_of(pipeline: &Pipeline) -> Option<PipelineDefinition> {
    if pipeline.definition.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&pipeline.definition);
    PipelineDefinition::from_json(&text)
        .inspect_err(
            |problem| warn!(pipeline = %pipeline.path, %problem, "the stored definition cannot be read"),
        )
        .ok()
}

/// Brings shards up where placement says so, and lets them go.
async fn follow_placement(node: Node) {
    loop {
        let event = until_done("following placement", || node.inner.placement.next()).await;
        match event {
            PlacementEvent::Assigned(shards) => {
                for (pipeline, partitions) in by_pipeline(&shards) {
                    if let Some(served) = node.inner.directory.by_id(pipeline) {
                        served.mailbox.tell(Message::Assign(partitions)).await;
                    }
                }
            }
            PlacementEvent::Revoked(shards) => {
                for (pipeline, partitions) in by_pipeline(&shards) {
                    if let Some(served) = node.inner.directory.by_id(pipeline) {
                        served
                            .mailbox
                            .ask(|released| Message::Revoke(partitions, released))
                            .await;
                    }
                }
                until_done("releasing shards", || node.inner.placement.released(&shards)).await;
            }
            PlacementEvent::Lost(shards) => {
                for (pipeline, partitions) in by_pipeline(&shards) {
                    if let Some(served) = node.inner.directory.by_id(pipeline) {
                        served.mailbox.tell(Message::Lose(partitions)).await;
                    }
                }
            }
        }
    }
}

fn by_pipeline(shards: &[ShardId]) -> std::collections::BTreeMap<PipelineId, Vec<Partition>> {
    let mut grouped: std::collections::BTreeMap<PipelineId, Vec<Partition>> =
        std::collections::BTreeMap::new();
    for shard in shards {
        grouped.entry(shard.pipeline).or_default().push(shard.partition);
    }
    grouped
}

/// How often the store is told to forget what has expired.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);

async fn expire(node: Node) {
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        loop {
            match node.inner.store.expire(node.inner.clock.now()).await {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                Err(problem) => {
                    warn!(
                        error = &problem as &dyn std::error::Error,
                        "expired results are not forgotten"
                    );
                    break;
                }
            }
        }
    }
}
