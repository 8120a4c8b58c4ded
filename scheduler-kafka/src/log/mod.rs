//! The task log on Kafka: a topic for each pipeline.

mod gather;
pub mod headers;
pub(crate) mod name;
pub(crate) mod read;
pub(crate) mod record;
mod settings;
mod topics;
mod truncate;
mod writer;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::admin::AdminClient;
use rdkafka::config::FromClientConfigAndContext;
use scheduler_core::id::{Offset, PipelineId, ShardId};
use scheduler_core::port::log::{Bounds, LogError, LogReader, TaskLog, Topic};
use scheduler_core::task::TaskSpec;

use self::read::{KafkaReader, Pool};
use self::topics::Topics;
use self::truncate::Truncator;
use self::writer::Writer;
use crate::config::KafkaConfig;
use crate::context::Plain;
use crate::error::{OpenError, Reason};

/// The task log on Kafka. See the [front page](crate).
pub struct KafkaLog {
    config: KafkaConfig,
    topics: Arc<Topics>,
    writer: Writer,
    pool: Arc<Pool>,
    truncator: Arc<Truncator>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Connects to the brokers and learns which topics of the cluster there are.
    ///
    /// Fails if the configuration is wrong, or if no broker answers within
    /// [`request_timeout`](KafkaConfig::request_timeout).
    pub async fn open(config: KafkaConfig) -> Result<Self, OpenError> {
        let config = config.checked()?;
        let admin = AdminClient::from_config_and_context(&config.admin(), Plain);
        let admin = Arc::new(admin.map_err(OpenError::Client)?);
        let topics = Arc::new(Topics::new(config.clone(), admin.clone()));
        let writer = Writer::new(config.clone()).map_err(OpenError::Client)?;
        topics.list().await.map_err(|source| OpenError::Unavailable {
            bootstrap: config.bootstrap.clone(),
            source: match writer.last_complaint() {
                Some(reason) => Reason { reason, source }.into(),
                None => source.into(),
            },
        })?;
        Ok(Self {
            pool: Arc::new(Pool::new(config.clone())),
            truncator: Arc::new(Truncator::new(topics.clone(), admin)),
            topics,
            writer,
            config,
        })
    }
}

#[async_trait]
impl TaskLog for KafkaLog {
    async fn check(&self, topic: &Topic) -> Result<(), LogError> {
        self.topics.check(topic).await
    }

    async fn ensure(&self, topic: &Topic) -> Result<(), LogError> {
        self.topics.ensure(topic).await
    }

    async fn delete(&self, pipeline: PipelineId) -> Result<(), LogError> {
        if self.topics.delete(pipeline).await? {
            self.pool.deleted(pipeline);
        }
        Ok(())
    }

    async fn append(&self, shard: ShardId, tasks: Vec<TaskSpec>) -> Result<Vec<Offset>, LogError> {
        let name = self.topics.locate(shard).await?;
        self.writer.append(&self.topics, shard, &name, &tasks).await
    }

    async fn bounds(&self, shard: ShardId) -> Result<Bounds, LogError> {
        let name = self.topics.locate(shard).await?;
        self.topics.bounds(shard, name).await
    }

    async fn read(&self, shard: ShardId, from: Offset) -> Result<Box<dyn LogReader>, LogError> {
        let reader = KafkaReader::open(self.topics.clone(), self.pool.clone(), shard, from).await?;
        Ok(Box::new(reader))
    }

    async fn truncate(&self, shard: ShardId, before: Offset) -> Result<(), LogError> {
        let name = self.topics.locate(shard).await?;
        self.truncator.truncate(shard, name, before).await
    }
}
