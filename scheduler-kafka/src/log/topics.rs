//! Which topics there are, and how they come and go.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataTopic};
use scheduler_core::id::Offset;
use scheduler_core::id::{PipelineId, ShardId};
use scheduler_core::port::log::{Bounds, LogError, Topic};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::name::TopicNames;
use super::settings;
use crate::config::{KafkaConfig, millis};
use crate::context::Plain;
use crate::error::{Problem, about, blocking, is_missing, late, unavailable};

/// How many questions may block a thread each at the same time.
const QUESTIONS: usize = 32;
/// Between two questions about what brokers do not know yet.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A topic that is known to exist.
#[derive(Clone, Debug)]
struct Known {
    name: Arc<str>,
    partitions: u32,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<PipelineId, Known>,
    /// Deleted by this process: brokers may show them for a while.
    deleted: HashSet<PipelineId>,
}

/// The topics of the cluster.
pub(crate) struct Topics {
    names: TopicNames,
    config: KafkaConfig,
    admin: Arc<AdminClient<Plain>>,
    table: RwLock<Table>,
    questions: Semaphore,
}

impl Topics {
    pub(crate) fn new(config: KafkaConfig, admin: Arc<AdminClient<Plain>>) -> Self {
        Self {
            names: TopicNames::new(&config.cluster),
            config,
            admin,
            table: RwLock::default(),
            questions: Semaphore::new(QUESTIONS),
        }
    }

    /// The name of the topic in which `shard` is a partition, asking the brokers if it is not known.
    pub(crate) async fn locate(&self, shard: ShardId) -> Result<Arc<str>, LogError> {
        if let Some(name) = self.find(shard)? {
            return Ok(name);
        }
        self.list().await?;
        self.find(shard)?.ok_or(LogError::NotFound(shard))
    }

    fn find(&self, shard: ShardId) -> Result<Option<Arc<str>>, LogError> {
        self.read(|table| {
            if table.deleted.contains(&shard.pipeline) {
                return Err(LogError::NotFound(shard));
            }
            let known = table.known.get(&shard.pipeline);
            Ok(known
                .filter(|known| shard.partition.0 < known.partitions)
                .map(|known| known.name.clone()))
        })
    }

    /// Learns which topics of the cluster there are.
    pub(crate) async fn list(&self) -> Result<(), LogError> {
        let metadata = self.metadata(None).await?;
        self.write(|table| {
            table.known.clear();
            for topic in metadata.topics() {
                let Some(pipeline) = self.names.pipeline(topic.name()) else {
                    continue;
                };
                let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
                if partitions > 0 && !table.deleted.contains(&pipeline) {
                    let name = topic.name().into();
                    table.known.insert(pipeline, Known { name, partitions });
                }
            }
        });
        Ok(())
    }

    /// Makes sure that the topic is there, and answers only when it can be used.
    pub(crate) async fn ensure(&self, topic: &Topic) -> Result<(), LogError> {
        let wanted = topic.partitions.max(1);
        let enough = self.read(|table| {
            table
                .known
                .get(&topic.pipeline)
                .is_some_and(|known| known.partitions >= wanted)
        });
        if enough {
            return Ok(());
        }
        let name = self.names.of(topic);
        self.create(&name, topic).await?;
        self.write(|table| table.deleted.remove(&topic.pipeline));

        // The controller has it; that the brokers have it too may take a moment.
        let deadline = Instant::now() + self.config.request_timeout;
        let mut pause = FIRST_PAUSE;
        let mut grown_from = None;
        loop {
            let metadata = self.metadata(Some(name.clone())).await?;
            let found = metadata.topics().first().map_or(0, ready_partitions);
            if found >= wanted {
                let name = name.as_str().into();
                let known = Known {
                    name,
                    partitions: found,
                };
                self.write(|table| table.known.insert(topic.pipeline, known));
                return Ok(());
            }
            if found > 0 && grown_from != Some(found) {
                self.grow(&name, wanted).await?;
                grown_from = Some(found);
            }
            if Instant::now() >= deadline {
                let what = format!("making topic `{name}` with {wanted} partitions known to the brokers");
                return Err(late(&what, self.config.request_timeout));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the topic could be made as asked; makes nothing.
    pub(crate) async fn check(&self, topic: &Topic) -> Result<(), LogError> {
        settings::check(&topic.settings, self.config.replication)?;
        let name = self.names.of(topic);
        match self
            .try_create(&name, topic, &self.options().validate_only(true))
            .await?
        {
            None | Some(Code::TopicAlreadyExists) => Ok(()),
            Some(Code::InvalidReplicationFactor) => {
                let brokers = self.metadata(Some(name)).await?.brokers().len();
                Err(settings::too_many_copies(&topic.settings, brokers))
            }
            Some(Code::InvalidConfig) => Err(settings::unknown_value(&topic.settings)),
            Some(code) => Err(refused("checking", &name, code)),
        }
    }

    async fn create(&self, name: &str, topic: &Topic) -> Result<(), LogError> {
        match self.try_create(name, topic, &self.options()).await? {
            None | Some(Code::TopicAlreadyExists) => Ok(()),
            Some(code) => Err(refused("creating", name, code)),
        }
    }

    async fn try_create(
        &self,
        name: &str,
        asked: &Topic,
        options: &AdminOptions,
    ) -> Result<Option<Code>, LogError> {
        let replication = asked.settings.replication.map(i32::from);
        let replication = replication.unwrap_or(self.config.replication.into());
        let partitions = count(asked.partitions.max(1))?;
        let limit = self.config.max_message_bytes().to_string();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            // When a task was submitted is when the log took it, whatever clock its producer has.
            .set("message.timestamp.type", "LogAppendTime")
            // Truncation frees whole segments.
            .set("segment.bytes", "67108864")
            .set("max.message.bytes", &limit);
        let configured = self.config.topic_settings.iter().map(|(key, value)| (key, value));
        for (key, value) in configured.chain(&asked.settings.settings) {
            topic.config.retain(|(set, _)| set != key);
            topic = topic.set(key, value);
        }
        outcome(self.admin.create_topics([&topic], options).await)
    }

    async fn grow(&self, name: &str, partitions: u32) -> Result<(), LogError> {
        let wanted = usize::try_from(partitions).unwrap_or(usize::MAX);
        let grown = NewPartitions::new(name, wanted);
        let result = self.admin.create_partitions([&grown], &self.options()).await;
        match outcome(result)? {
            // Another node was first: there are as many or more.
            None | Some(Code::InvalidPartitions) => Ok(()),
            Some(code) => Err(refused("adding partitions to", name, code)),
        }
    }

    /// Deletes the topic; true if there was one.
    pub(crate) async fn delete(&self, pipeline: PipelineId) -> Result<bool, LogError> {
        if self.read(|table| table.deleted.contains(&pipeline)) {
            return Ok(false);
        }
        let name = |table: &Table| table.known.get(&pipeline).map(|known| known.name.clone());
        let mut found = self.read(name);
        if found.is_none() {
            self.list().await?;
            found = self.read(name);
        }
        let Some(name) = found else { return Ok(false) };
        // Before, so that nothing of this process makes it anew or waits for it.
        self.write(|table| {
            table.known.remove(&pipeline);
            table.deleted.insert(pipeline);
        });
        let result = self.admin.delete_topics(&[&*name], &self.options()).await;
        let problem = match outcome(result) {
            Ok(None) => return Ok(true),
            Ok(Some(code)) if is_missing(code) => return Ok(true),
            Ok(Some(code)) => refused("deleting", &name, code),
            Err(problem) => problem,
        };
        self.write(|table| table.deleted.remove(&pipeline));
        Err(problem)
    }

    /// What the leader of the partition says can be read.
    pub(crate) async fn bounds(&self, shard: ShardId, name: Arc<str>) -> Result<Bounds, LogError> {
        let question = self.questions.acquire().await.map_err(unavailable)?;
        let partition = index(shard)?;
        let deadline = Instant::now() + self.config.request_timeout;
        let mut pause = FIRST_PAUSE;
        let (low, high) = loop {
            let (admin, topic, patience) = (self.admin.clone(), name.clone(), self.config.request_timeout);
            let marks = blocking(move || admin.inner().fetch_watermarks(&topic, partition, patience)).await?;
            match marks {
                Ok(marks) => break marks,
                // Of a partition that was just made, or whose leader has just changed, brokers may not know yet that it is theirs.
                Err(error) if is_unled(&error) && Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    // The next question is another one.
                    drop(question);
                    // While brokers come and go, a client may not know a partition that they know.
                    let missing = error.rdkafka_error_code().is_some_and(is_missing);
                    if missing && self.exists(shard, &name).await? {
                        return Err(unavailable(error));
                    }
                    return Err(self.missing_or_away(shard, error));
                }
            }
        };
        let offset = |mark: i64| u64::try_from(mark).map(Offset).map_err(unavailable);
        Ok(Bounds {
            start: offset(low)?,
            end: offset(high)?,
        })
    }

    /// What an error about a partition means; one that is not there is forgotten.
    pub(crate) fn missing_or_away(&self, shard: ShardId, error: KafkaError) -> LogError {
        match error.rdkafka_error_code() {
            Some(code) if is_missing(code) => {
                self.write(|table| table.known.remove(&shard.pipeline));
                about(shard, code)
            }
            _ => unavailable(error),
        }
    }

    /// Whether the brokers still know the topic; asked when a reader or a producer was told that they do not.
    pub(crate) async fn exists(&self, shard: ShardId, name: &str) -> Result<bool, LogError> {
        if self.read(|table| table.deleted.contains(&shard.pipeline)) {
            return Ok(false);
        }
        let metadata = self.metadata(Some(name.to_owned())).await?;
        // One without a leader is there, and comes back with a broker.
        let found = metadata
            .topics()
            .first()
            .map_or(0, |topic| topic.partitions().len());
        let exists = usize::try_from(shard.partition.0).is_ok_and(|partition| partition < found);
        if !exists {
            self.write(|table| table.known.remove(&shard.pipeline));
        }
        Ok(exists)
    }

    async fn metadata(&self, name: Option<String>) -> Result<Metadata, LogError> {
        let _question = self.questions.acquire().await.map_err(unavailable)?;
        let (admin, patience) = (self.admin.clone(), self.config.request_timeout);
        blocking(move || admin.inner().fetch_metadata(name.as_deref(), patience))
            .await?
            .map_err(unavailable)
    }

    pub(crate) fn options(&self) -> AdminOptions {
        let patience = self.config.request_timeout;
        AdminOptions::new()
            .request_timeout(Some(patience))
            .operation_timeout(Some(Duration::from_millis(millis(patience) / 2)))
    }

    fn read<T>(&self, with: impl FnOnce(&Table) -> T) -> T {
        with(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, with: impl FnOnce(&mut Table) -> T) -> T {
        with(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the partition's leader is not known, or does not know that it is.
fn is_unled(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| matches!(code, Code::NotLeaderForPartition | Code::LeaderNotAvailable))
}

/// How many partitions of the topic have a leader, from the first on.
fn ready_partitions(topic: &MetadataTopic) -> u32 {
    let led = topic
        .partitions()
        .iter()
        .filter(|partition| partition.leader() >= 0);
    u32::try_from(led.count()).unwrap_or(u32::MAX)
}

/// What the brokers answer about topics, each by its name.
type Answers = Vec<Result<String, (String, Code)>>;

/// The answer about the one topic that was asked about.
fn outcome(result: Result<Answers, KafkaError>) -> Result<Option<Code>, LogError> {
    let mut answers = result.map_err(unavailable)?;
    match answers.pop() {
        Some(Ok(_)) => Ok(None),
        Some(Err((_, code))) => Ok(Some(code)),
        None => Err(unavailable(Problem("the brokers gave no answer".to_owned()))),
    }
}

fn refused(what: &str, name: &str, code: Code) -> LogError {
    unavailable(Problem(format!("{what} topic `{name}` was refused: {code}")))
}

/// The number of a partition as Kafka has it; what is beyond it does not exist.
pub(crate) fn index(shard: ShardId) -> Result<i32, LogError> {
    i32::try_from(shard.partition.0).map_err(|_| LogError::NotFound(shard))
}

fn count(partitions: u32) -> Result<i32, LogError> {
    i32::try_from(partitions).map_err(unavailable)
}
