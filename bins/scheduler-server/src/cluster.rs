//! What makes a server one node of several.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use scheduler_kafka::{GroupProtocol, KafkaConfig};
use scheduler_tidb::TidbConfig;

/// One node of several, on Kafka and TiDB. Without `--kafka` everything is in files below `--data`.
#[derive(Clone, Debug, Args)]
pub struct ClusterArguments {
    /// The brokers of the Kafka that keeps the task log, as `host:port`, several with commas between them.
    #[arg(long, env = "SCHEDULER_KAFKA", value_name = "BROKERS", requires = "tidb")]
    pub kafka: Option<String>,

    /// The TiDB that keeps everything else, as `mysql://user:password@host:port/database`; see docs/tidb.md for TLS.
    #[arg(
        long,
        env = "SCHEDULER_TIDB",
        value_name = "URL",
        requires = "kafka",
        hide_env_values = true
    )]
    pub tidb: Option<String>,

    /// The name of the cluster: begins the names of topics, and is the consumer group. The same for every node.
    #[arg(long, env = "SCHEDULER_CLUSTER", default_value = "scheduler")]
    pub cluster: String,

    /// What nodes show each other; at least 16 characters, the same for every node.
    #[arg(
        long,
        env = "SCHEDULER_CLUSTER_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub cluster_secret: Option<String>,

    /// The node's name, for people. Default: the address that it advertises.
    #[arg(long, env = "SCHEDULER_NODE_NAME")]
    pub node_name: Option<String>,

    /// Replicas of each partition of a new topic; -1 leaves it to the brokers.
    #[arg(
        long,
        env = "SCHEDULER_KAFKA_REPLICATION",
        default_value_t = -1,
        allow_negative_numbers = true
    )]
    pub kafka_replication: i16,

    /// A property of librdkafka, as `NAME=VALUE`, such as `security.protocol=SASL_SSL`; may be given several times.
    #[arg(
        long = "kafka-property",
        env = "SCHEDULER_KAFKA_PROPERTIES",
        value_name = "NAME=VALUE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub kafka_properties: Vec<Property>,

    /// A setting of new topics, as `NAME=VALUE`, such as `min.insync.replicas=2`; may be given several times.
    #[arg(
        long = "kafka-topic-setting",
        env = "SCHEDULER_KAFKA_TOPIC_SETTINGS",
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    pub kafka_topic_settings: Vec<Property>,

    /// Which protocol the consumer group speaks: `auto` is `consumer` (KIP-848) if the brokers know it, else `classic`.
    #[arg(long, env = "SCHEDULER_KAFKA_GROUP_PROTOCOL", value_enum, default_value_t = Protocol::Auto)]
    pub kafka_group_protocol: Protocol,

    /// Bytes of tasks that may wait to be acknowledged by Kafka.
    #[arg(long, env = "SCHEDULER_KAFKA_QUEUE_BYTES", default_value_t = defaults().queue_bytes)]
    pub kafka_queue_bytes: usize,

    /// Milliseconds that a submission waits for room among them before it is refused as overload.
    #[arg(long, env = "SCHEDULER_KAFKA_APPEND_PATIENCE_MS", default_value_t = millis(defaults().append_patience))]
    pub kafka_append_patience_ms: u64,

    /// Milliseconds until a submission fails that Kafka does not acknowledge; at least 1000.
    #[arg(long, env = "SCHEDULER_KAFKA_DELIVERY_TIMEOUT_MS", default_value_t = millis(defaults().delivery_timeout))]
    pub kafka_delivery_timeout_ms: u64,

    /// Milliseconds that a task waits for others to share its request to Kafka with.
    #[arg(long, env = "SCHEDULER_KAFKA_LINGER_MS", default_value_t = millis(defaults().linger))]
    pub kafka_linger_ms: u64,

    /// Producers among which pipelines are shared out, 1 to 16.
    #[arg(long, env = "SCHEDULER_KAFKA_PRODUCERS", default_value_t = defaults().producers)]
    pub kafka_producers: usize,

    /// Bytes of a partition that its reader has ready or asks for at once.
    #[arg(long, env = "SCHEDULER_KAFKA_PREFETCH_BYTES", default_value_t = defaults().prefetch_bytes)]
    pub kafka_prefetch_bytes: usize,

    /// Records of a partition that its reader has ready before it asks for no more.
    #[arg(long, env = "SCHEDULER_KAFKA_PREFETCH_RECORDS", default_value_t = defaults().prefetch_records)]
    pub kafka_prefetch_records: usize,

    /// Milliseconds that a broker holds a request while no partition has anything.
    #[arg(long, env = "SCHEDULER_KAFKA_FETCH_WAIT_MS", default_value_t = millis(defaults().fetch_wait))]
    pub kafka_fetch_wait_ms: u64,

    /// Partitions that share one consumer, and so one request for records.
    #[arg(long, env = "SCHEDULER_KAFKA_PARTITIONS_PER_CONSUMER", default_value_t = defaults().partitions_per_consumer)]
    pub kafka_partitions_per_consumer: usize,

    /// Seconds that shards which go to another node may take to be saved.
    #[arg(long, env = "SCHEDULER_RELEASE_SECONDS", default_value_t = defaults().release_timeout.as_secs())]
    pub release_seconds: u64,

    /// Seconds without Kafka's group coordinator after which a node gives up its shards.
    #[arg(long, env = "SCHEDULER_SESSION_SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub session_seconds: u64,

    /// Most connections to TiDB.
    #[arg(long, env = "SCHEDULER_TIDB_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub tidb_connections: u32,
}

/// Which protocol the consumer group speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Protocol {
    /// What the brokers know.
    Auto,
    /// The protocol of KIP-848.
    Consumer,
    /// The older one.
    Classic,
}

fn defaults() -> KafkaConfig {
    KafkaConfig::new("", "")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl ClusterArguments {
    /// How Kafka at `bootstrap` is used, for tasks of at most `max_params` bytes.
    pub fn kafka_config(&self, bootstrap: &str, max_params: usize) -> KafkaConfig {
        let pairs = |properties: &[Property]| {
            let pairs = properties.iter();
            pairs
                .map(|property| (property.name.clone(), property.value.clone()))
                .collect()
        };
        let mut config = KafkaConfig::new(bootstrap, &self.cluster);
        config.properties = pairs(&self.kafka_properties);
        config.replication = self.kafka_replication;
        config.topic_settings = pairs(&self.kafka_topic_settings);
        config.max_task_bytes = config.max_task_bytes.max(max_params);
        config.queue_bytes = self.kafka_queue_bytes;
        config.append_patience = Duration::from_millis(self.kafka_append_patience_ms);
        config.delivery_timeout = Duration::from_millis(self.kafka_delivery_timeout_ms);
        config.linger = Duration::from_millis(self.kafka_linger_ms);
        config.producers = self.kafka_producers;
        config.prefetch_bytes = self.kafka_prefetch_bytes;
        config.prefetch_records = self.kafka_prefetch_records;
        config.fetch_wait = Duration::from_millis(self.kafka_fetch_wait_ms);
        config.partitions_per_consumer = self.kafka_partitions_per_consumer;
        config.group_protocol = match self.kafka_group_protocol {
            Protocol::Auto => GroupProtocol::Auto,
            Protocol::Consumer => GroupProtocol::Consumer,
            Protocol::Classic => GroupProtocol::Classic,
        };
        config.session_timeout = Duration::from_secs(self.session_seconds);
        config.release_timeout = Duration::from_secs(self.release_seconds);
        config
    }

    /// How TiDB is used.
    pub fn tidb_config(&self) -> TidbConfig {
        let mut config = TidbConfig::default();
        config.max_connections = self.tidb_connections;
        config
    }
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Property {
    /// What comes before the first `=`.
    pub name: String,
    /// What comes after it.
    pub value: String,
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The text is not repeated in the error: it may be a password.
        let (name, value) = text.split_once('=').ok_or("there is no `=`; write NAME=VALUE")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::Arguments;

    #[test]
    fn what_is_not_said_about_kafka_is_the_adapters_default() {
        let arguments = Arguments::try_parse_from([
            "scheduler-server",
            "--kafka-property",
            "security.protocol=SASL_SSL",
            "--kafka-topic-setting",
            "min.insync.replicas=2",
            "--kafka-topic-setting",
            "compression.type=zstd",
        ])
        .unwrap();
        let config = arguments.cluster.kafka_config("a:1", 1);
        let default = super::KafkaConfig::new("a:1", "scheduler");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(config.properties, [pair("security.protocol", "SASL_SSL")]);
        assert_eq!(
            config.topic_settings,
            [pair("min.insync.replicas", "2"), pair("compression.type", "zstd")]
        );
        assert_eq!(config.replication, default.replication);
        assert_eq!(config.max_task_bytes, default.max_task_bytes);
        assert_eq!(config.session_timeout, default.session_timeout);
        assert_eq!(config.release_timeout, default.release_timeout);
        assert_eq!(config.group_protocol, default.group_protocol);
        assert_eq!(
            (
                config.queue_bytes,
                config.append_patience,
                config.delivery_timeout,
                config.linger
            ),
            (
                default.queue_bytes,
                default.append_patience,
                default.delivery_timeout,
                default.linger
            )
        );
        assert_eq!(
            (
                config.prefetch_bytes,
                config.prefetch_records,
                config.fetch_wait,
                config.partitions_per_consumer
            ),
            (
                default.prefetch_bytes,
                default.prefetch_records,
                default.fetch_wait,
                default.partitions_per_consumer
            )
        );
        assert_eq!(config.producers, default.producers);
        // A task that the server takes, the log takes as well.
        assert_eq!(
            arguments.cluster.kafka_config("a:1", 9 << 20).max_task_bytes,
            9 << 20
        );
    }
}
