//! A node: the parts composed, running.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use scheduler_core::id::{NodeId, Partition};
use scheduler_core::name::Name;
use scheduler_core::port::catalog::{ApiKey, Catalog, CatalogError, Client, Pipeline};
use scheduler_core::port::cluster::CatalogVersion;
use scheduler_core::port::deploy::Deployer;
use scheduler_core::port::gateway::{ApiError, Gateway};
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
use crate::api::{self, LocalNode};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterConfig, ClusterNode, Hosting};
use crate::config::NodeConfig;
use crate::deployments::Deployments;
use crate::directory::{Directory, Served};
use crate::placement::AllHere;
use crate::retry::until_done;
use crate::{background, cluster, deployments, saver, scale};

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
    cluster: Option<ClusterConfig>,
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

    /// Makes the node one of several over the same log and store, each of which answers every request. It needs a
    /// [`placement`](Self::placement) that gives each shard to one of them. Default: it is alone.
    #[must_use]
    pub fn cluster(mut self, cluster: ClusterConfig) -> Self {
        self.cluster = Some(cluster);
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
        let clock = Clock::new();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StartError::NoRandomness(error.to_string()))?;
        let id = NodeId(u128::from_le_bytes(id));
        let (orders, receive) = mpsc::unbounded_channel();
        let checkpoints: Arc<dyn CheckpointStore> = self.store.clone();
        let world = World {
            clock,
            node: id,
            grace: self.config.grace,
            log: self.log.clone(),
            store: checkpoints.clone(),
            saver: orders,
            activating: Arc::new(Semaphore::new(ACTIVATING)),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        };
        let hosting = Arc::new(match self.cluster {
            Some(_) => Hosting::in_cluster(),
            None => Hosting::alone(),
        });
        let placement = match self.cluster {
            Some(_) => hosting.follow(self.placement),
            None => self.placement,
        };
        let inner = Arc::new(Inner {
            config: self.config,
            clock,
            world,
            log: self.log,
            store: self.store,
            placement,
            deployer: self.deployer,
            directory: Directory::default(),
            cluster: self.cluster.map(|config| Arc::new(Cluster::new(id, config))),
            hosting,
            deployments: Deployments::default(),
            sessions: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            placing: tokio::sync::Mutex::default(),
            serving: tokio::sync::Mutex::default(),
        });
        let node = Node::of(inner.clone());
        inner.spawn_background(saver::run(checkpoints, receive));
        let pipelines = if let Some(cluster) = &inner.cluster {
            cluster.members.beat().await.map_err(StartError::Cluster)?;
            let changes = cluster.store.changes(CatalogVersion(0)).await;
            cluster
                .feed
                .begin(&inner, changes.map_err(StartError::Catalog)?)
                .await
        } else {
            let snapshot = inner.store.snapshot().await.map_err(StartError::Catalog)?;
            let pipelines = snapshot.pipelines.clone();
            inner.directory.load(snapshot);
            pipelines
        };
        node.ensure_anonymous().await?;
        let mut served = Vec::new();
        for pipeline in pipelines {
            if pipeline.deleting && inner.cluster.is_none() {
                api::finish_deletion(&inner, &pipeline);
            } else {
                // One that is being deleted is left to the node that deletes it, or to whoever follows that one.
                served.push(inner.serve(pipeline).await.0);
            }
        }
        inner.spawn_background(background::follow_placement(&node));
        inner.spawn_background(background::expire(&node));
        inner.spawn_background(scale::run(&node));
        if inner.cluster.is_some() {
            inner.spawn_background(deployments::follow(&inner));
            cluster::spawn(&inner);
        }
        inner.place().await;
        for served in served {
            inner.deploy(&served.pipeline).await;
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
    /// The other nodes cannot be told.
    #[error("the node cannot join the cluster")]
    Cluster(#[source] scheduler_core::port::store::StoreError),
    /// There is nothing to choose a node id from.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
}

/// A running node. Clones are the same node.
///
/// It is a [`Gateway`]: hand it to the adapters of transports, or call it directly. One of a cluster answers for the whole of it, and asks
/// the others for what it does not have; what it answers to them is [`Node::local`].
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
    /// What clients are answered: by this node alone, or by the cluster.
    pub(crate) gateway: Arc<dyn Gateway>,
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
    pub(crate) hosting: Arc<Hosting>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) deployments: Deployments,
    sessions: AtomicU64,
    stopping: AtomicBool,
    /// Nothing is to live here any more.
    leaving: AtomicBool,
    /// Held while placement is told of topics, so that it hears of them in the order in which they came and went.
    placing: tokio::sync::Mutex<()>,
    /// Held while a pipeline is taken in, so that its actor hears of changes in their order.
    serving: tokio::sync::Mutex<()>,
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
            cluster: None,
            config: NodeConfig::default(),
        }
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        let gateway: Arc<dyn Gateway> = match &inner.cluster {
            Some(cluster) => Arc::new(ClusterNode::of(inner.clone(), cluster.clone())),
            None => Arc::new(LocalNode::of(inner.clone())),
        };
        Self { inner, gateway }
    }

    /// Who it is in its cluster: drawn anew at each start.
    pub fn id(&self) -> NodeId {
        self.inner.world.node
    }

    /// What it answers to other nodes: for the shards that live here, and without asking anybody else.
    pub fn local(&self) -> LocalNode {
        LocalNode::of(self.inner.clone())
    }

    /// Adds a client; nothing if there is one of the name.
    pub async fn add_client(&self, name: Name) -> Result<(), CatalogError> {
        let client = Client {
            name,
            created_at: self.inner.clock.now(),
        };
        let _turn = self.inner.catalog_turn().await;
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
        let _turn = self.inner.catalog_turn().await;
        match self.inner.store.add_key(key.clone()).await {
            Ok(()) | Err(CatalogError::Exists { .. }) => {
                self.inner.directory.add_key(key);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// `secret` is no key any more, of nobody; one that never was is fine. Worker sessions that were opened with it last until they end.
    pub async fn remove_key(&self, secret: &str) -> Result<(), CatalogError> {
        let hash = api::hash(secret);
        let _turn = self.inner.catalog_turn().await;
        match self.inner.store.remove_key(hash).await {
            Ok(()) | Err(CatalogError::NotFound { .. }) => {
                self.inner.directory.remove_key(hash);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Goes down in order: takes nothing new, lets running tasks end (for a while), saves and releases every shard (in a cluster so that
    /// others take them over at once), and ends the workers that it has started.
    ///
    /// It takes as long as running tasks do, at most [`NodeConfig::patience`], and so long again if the store does not answer. When it returns,
    /// nothing of the node runs any more. A node that is dropped without it is gone at once, as in a crash: nothing is lost, and the next start
    /// waits for workers that may know more.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stopping.store(true, Ordering::Release);
        let patience = inner.config.patience;
        let served = inner.directory.pipelines();
        let drain = |pipeline: &Arc<Served>| {
            let mailbox = pipeline.mailbox.clone();
            async move { mailbox.ask(Message::Drain).await }
        };
        let drains: JoinSet<_> = served.iter().map(drain).collect();
        if tokio::time::timeout(patience, drains.join_all()).await.is_err() {
            warn!("tasks are still running after {patience:?}; others will run them again");
        }
        // A session that came meanwhile may have brought another pipeline along.
        let served = inner.directory.pipelines();
        let releases: JoinSet<_> = served.iter().map(|served| release(served.clone())).collect();
        if tokio::time::timeout(patience, releases.join_all()).await.is_err() {
            warn!("not everything could be saved within {patience:?}; the next start is as after a crash");
        }
        if inner.cluster.is_some() {
            // Placement hears that the shards are free, and gives them to others.
            inner.leaving.store(true, Ordering::Release);
            let left = async {
                inner.place().await;
                inner.hosting.empty().await;
            };
            if tokio::time::timeout(cluster::GOODBYE, left).await.is_err() {
                warn!("placement did not answer the node's goodbye; others have to find out by themselves");
            }
        }
        inner.world.ended.cancel();
        inner.world.tasks.close();
        inner.world.tasks.wait().await;
        if let Some(cluster) = &inner.cluster {
            cluster.members.leave().await;
        }
        if let Some(deployer) = &inner.deployer {
            deployer.shutdown().await;
        }
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

/// Saves and releases what lives here of a pipeline, and ends its actor.
pub(crate) async fn release(served: Arc<Served>) {
    let all = (0..served.pipeline.partitions).map(Partition).collect();
    served
        .mailbox
        .ask(|released| Message::Revoke(all, released))
        .await;
    // What was saved last was told to workers before.
    served.mailbox.stop().await;
}

impl Inner {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Where workers reach it.
    pub(crate) fn address(&self) -> &str {
        let cluster = self.cluster.as_ref();
        cluster.map_or(&self.config.address, |cluster| &cluster.members.me.address)
    }

    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Held by writes of this node while they are taken in, so that an older answer of the feed does not undo them. Several may hold it.
    pub(crate) async fn catalog_turn(&self) -> Option<tokio::sync::RwLockReadGuard<'_, CatalogVersion>> {
        match &self.cluster {
            Some(cluster) => Some(cluster.feed.turn().await),
            None => None,
        }
    }

    /// Serves a pipeline as it is now: begins to, or tells its actor of the change. What is known already, or is older, is not heard.
    ///
    /// Answers also how it was served before: `None` if it was not.
    pub(crate) async fn serve(&self, pipeline: Arc<Pipeline>) -> (Arc<Served>, Option<Arc<Served>>) {
        let _in_order = self.serving.lock().await;
        let before = self.directory.by_id(pipeline.id);
        if let Some(before) = &before
            && before.pipeline.version >= pipeline.version
        {
            return (before.clone(), Some(before.clone()));
        }
        let (mailbox, turn) = if let Some(before) = &before {
            (before.mailbox.clone(), before.turn.clone())
        } else {
            let mailbox = PipelineActor::spawn(self.world.clone(), pipeline.clone());
            (mailbox, Arc::new(AtomicU32::new(0)))
        };
        let served = self.directory.serve(Served {
            definition: definition_of(&pipeline),
            turn,
            pipeline: pipeline.clone(),
            mailbox,
            idle: std::sync::Mutex::default(),
        });
        if before.is_some() {
            served.mailbox.tell(Message::Update(pipeline)).await;
        }
        (served, before)
    }

    /// Tells placement which topics there are; none any more when the node is going down.
    pub(crate) async fn place(&self) {
        let _in_order = self.placing.lock().await;
        let topics = if self.leaving.load(Ordering::Acquire) {
            Vec::new()
        } else {
            self.directory.topics()
        };
        let placed = until_done("setting topics", || self.placement.set_topics(topics.clone()));
        if let Err(problem) = placed.await {
            error!(
                error = &problem as &dyn std::error::Error,
                "placement does not know all topics"
            );
        }
    }

    /// Runs `work` until the node ends. It must not hold the node while it waits, or the node would never be dropped.
    pub(crate) fn spawn_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.world.ended.clone();
        self.world
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
