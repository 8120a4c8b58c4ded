//! Where tasks and what came of them are kept: in files of this process alone, or on Kafka and TiDB together with other nodes.

use std::sync::Arc;

use anyhow::Context as _;
use scheduler_core::port::log::TaskLog;
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_grpc::node::{ClusterSecret, GrpcPeers, PeersConfig};
use scheduler_kafka::{KafkaLog, KafkaPlacement};
use scheduler_runtime::{ClusterConfig, Node, NodeBuilder};
use scheduler_server::Arguments;
use scheduler_tidb::TidbStore;

/// Whoever knows the secret can do all that a node can.
const LEAST_SECRET: usize = 16;

/// What was chosen, opened.
pub(crate) struct Storage {
    pub(crate) builder: NodeBuilder,
    /// In a cluster.
    pub(crate) membership: Option<Membership>,
}

/// What makes this process one of several.
pub(crate) struct Membership {
    pub(crate) secret: ClusterSecret,
    placement: Arc<KafkaPlacement>,
}

impl Membership {
    /// Lets other nodes take over at once. The node must have released its shards.
    pub(crate) async fn leave(&self) {
        self.placement.leave().await;
    }
}

pub(crate) async fn open(arguments: &Arguments, advertise: &str) -> anyhow::Result<Storage> {
    let Some(kafka) = &arguments.cluster.kafka else {
        let data = arguments.data.clone();
        let embedded =
            tokio::task::spawn_blocking(move || Embedded::open(data, EmbeddedConfig::default())).await??;
        return Ok(Storage {
            builder: Node::builder(embedded.log, embedded.store),
            membership: None,
        });
    };
    let cluster = &arguments.cluster;
    let url = cluster.tidb.as_deref().context("--kafka needs --tidb")?;
    let secret = cluster
        .cluster_secret
        .as_deref()
        .context("--kafka needs --cluster-secret, the same for every node")?;
    anyhow::ensure!(
        secret.len() >= LEAST_SECRET,
        "--cluster-secret has fewer than {LEAST_SECRET} characters; take a longer one"
    );
    let secret = ClusterSecret::new(secret);

    let config = cluster.kafka_config(kafka, arguments.max_params);
    let store = TidbStore::connect(url, cluster.tidb_config())
        .await
        .context("--tidb")?;
    let store = Arc::new(store);
    let log: Arc<dyn TaskLog> = Arc::new(KafkaLog::open(config.clone()).await.context("--kafka")?);
    let placement = Arc::new(KafkaPlacement::open(config).context("--kafka")?);
    let peers = Arc::new(GrpcPeers::new(secret.clone(), PeersConfig::default()));
    let name = cluster.node_name.clone().unwrap_or_else(|| advertise.to_owned());
    let builder = Node::builder(log, store.clone())
        .placement(placement.clone())
        .cluster(ClusterConfig::new(store, peers, name, advertise));
    Ok(Storage {
        builder,
        membership: Some(Membership { secret, placement }),
    })
}
