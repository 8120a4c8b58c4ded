//! A node: the parts composed, running.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use scheduler_core::id::{NodeId, Partition};
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{ApiKey, Catalog, CatalogError, Client, Pipeline};
use scheduler_core::port::deploy::{Deployer, Wanted};
use scheduler_core::port::gateway::ApiError;
use scheduler_core::port::log::TaskLog;
use scheduler_core::port::placement::Placement;
use scheduler_core::port::store::{Archive, CheckpointStore};
use scheduler_core::session::SessionId;
use scheduler_pipeline::PipelineDefinition;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::actor::{Message, PipelineActor, World};
use crate::api;
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::directory::{Directory, Served};
use crate::placement::AllHere;
use crate::retry::{Failure as _, until_done};
use crate::{background, saver, scale};

/// Shards that come up at once; so many calls of the log and the store are bearable.
const ACTIVATING: usize = 64;

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
        let world = World {
            clock,
            node: NodeId(u128::from_le_bytes(id)),
            grace: self.config.grace,
            log: self.log.clone(),
            store: checkpoints.clone(),
            saver: orders,
            activating: Arc::new(Semaphore::new(ACTIVATING)),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
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
            placing: tokio::sync::Mutex::default(),
        });
        let node = Node { inner };
        node.spawn_background(saver::run(checkpoints, receive));
        node.ensure_anonymous().await?;
        let mut served = Vec::new();
        for pipeline in pipelines {
            if pipeline.deleting {
                api::finish_deletion(&node, &pipeline);
            } else {
                served.push(node.serve(pipeline));
            }
        }
        node.spawn_background(background::follow_placement(&node));
        node.spawn_background(background::expire(&node));
        node.spawn_background(scale::run(&node));
        node.place().await;
        for served in served {
            node.deploy(&served.pipeline).await;
        }
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
    /// Held while placement is told of topics, so that it hears of them in the order in which they came and went.
    placing: tokio::sync::Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A node that nobody holds any more is gone, as after a crash.
        self.world.ended.cancel();
    }
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
    ///
    /// It takes as long as running tasks do, at most [`NodeConfig::patience`], and so long again if the store does not answer. When it returns,
    /// nothing of the node runs any more. A node that is dropped without it is gone at once, as in a crash: nothing is lost, and the next start
    /// waits for workers that may know more.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        let patience = self.inner.config.patience;
        let served = self.inner.directory.pipelines();
        let drain = |pipeline: &Arc<Served>| {
            let mailbox = pipeline.mailbox.clone();
            async move { mailbox.ask(Message::Drain).await }
        };
        let drains: JoinSet<_> = served.iter().map(drain).collect();
        if tokio::time::timeout(patience, drains.join_all()).await.is_err() {
            warn!("tasks are still running after {patience:?}; others will run them again");
        }
        // A session that came meanwhile may have brought another pipeline along.
        let served = self.inner.directory.pipelines();
        let release = |pipeline: &Arc<Served>| {
            let pipeline = pipeline.clone();
            async move {
                let all = (0..pipeline.pipeline.partitions).map(Partition).collect();
                pipeline
                    .mailbox
                    .ask(|released| Message::Revoke(all, released))
                    .await;
                // What was saved last was told to workers before.
                pipeline.mailbox.stop().await;
            }
        };
        let releases: JoinSet<_> = served.iter().map(release).collect();
        if tokio::time::timeout(patience, releases.join_all()).await.is_err() {
            warn!("not everything could be saved within {patience:?}; the next start is as after a crash");
        }
        self.inner.world.ended.cancel();
        self.inner.world.tasks.close();
        self.inner.world.tasks.wait().await;
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
    pub(crate) fn serve(&self, pipeline: Arc<Pipeline>) -> Arc<Served> {
        let mailbox = PipelineActor::spawn(self.inner.world.clone(), pipeline.clone());
        self.inner.directory.serve(Served {
            definition: definition_of(&pipeline),
            turn: Arc::new(AtomicU32::new(0)),
            pipeline,
            mailbox,
        })
    }

    /// Says what is wanted of the pipeline's workers; again and again, if the deployer is away.
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
        let Err(problem) = deployer.apply(wanted.clone()).await else {
            return;
        };
        error!(pipeline = %pipeline.path, error = &problem as &dyn std::error::Error, "workers are not deployed");
        if problem.passes() {
            self.spawn_background(background::deploy(self, deployer.clone(), wanted));
        }
    }

    /// Tells placement which topics there are.
    pub(crate) async fn place(&self) {
        let _in_order = self.inner.placing.lock().await;
        let topics = self.inner.directory.topics();
        let placed = until_done("setting topics", || {
            self.inner.placement.set_topics(topics.clone())
        });
        if let Err(problem) = placed.await {
            error!(
                error = &problem as &dyn std::error::Error,
                "placement does not know all topics"
            );
        }
    }

    /// Runs `work` until the node ends. It must not hold the node while it waits, or the node would never be dropped.
    pub(crate) fn spawn_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.inner.world.ended.clone();
        self.inner
            .world
            .tasks
            .spawn(async move { ended.run_until_cancelled(work).await });
    }

    /// Carries `work` to its end even if whoever asked for it goes away in the middle, which would leave half of it done.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (send, done) = oneshot::channel();
        self.spawn_background(async move {
            let _ = send.send(work.await);
        });
        let gone = ApiError::Unavailable {
            problem: "the node went down meanwhile".into(),
            retry_after: Duration::from_secs(2),
            source: None,
        };
        done.await.unwrap_or(Err(gone))
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
