//! What can be chosen about the Kafka adapters.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::error::OpenError;
use crate::log::read::Lane;

/// Which protocol the consumer group of the placement speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum GroupProtocol {
    /// [`Consumer`](Self::Consumer) if the brokers know it, else [`Classic`](Self::Classic).
    #[default]
    Auto,
    /// The protocol of KIP-848 (Kafka 4.0 and later): the broker assigns. Fast with thousands of topics; session timeout and heartbeat
    /// interval are the broker's settings of the group.
    Consumer,
    /// The older protocol with the `cooperative-sticky` assignor: one of the members assigns.
    Classic,
}

/// What can be chosen about the Kafka adapters. Made by [`KafkaConfig::new`]; every field has the default that its text names.
#[derive(Clone)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// The brokers to begin with: `host:port`, several separated by commas.
    pub bootstrap: String,
    /// Begins the names of topics and is the name of the consumer group, so that several clusters of schedulers can share one Kafka.
    /// 1 to 40 of letters, digits, `-` and `.`.
    pub cluster: String,
    /// Properties of librdkafka for every client, such as `security.protocol`, `sasl.mechanisms` or `ssl.ca.location`.
    /// A name that begins with `producer.`, `reader.` or `group.` is meant for that client alone. Default none.
    pub properties: Vec<(String, String)>,

    /// Replicas of each partition of a new topic; -1 leaves it to the brokers. Default -1.
    pub replication: i16,
    /// Further settings of new topics, such as `min.insync.replicas`, over what [the topics](crate#topics) get. Default none.
    pub topic_settings: Vec<(String, String)>,
    /// The largest task that the log takes, in bytes, at most 512 MiB; sets `max.message.bytes` of new topics. Default 4 MiB.
    pub max_task_bytes: usize,

    /// Bytes of tasks that may wait to be acknowledged, with 256 bytes for each task beside its own. Default 64 MiB.
    pub queue_bytes: usize,
    /// How long an append waits for room among them before it is refused as overload. Default 2 s.
    pub append_patience: Duration,
    /// How long an append waits to be acknowledged before it fails as unavailable; at least 1 s. Default 10 s.
    pub delivery_timeout: Duration,
    /// How long a task waits for others to share its request with. Default 1 ms.
    pub linger: Duration,
    /// Producers among which pipelines are shared out, 1 to 16. One looks every task's topic up among all topics in use;
    /// more of them shorten the search, and each has its own connections. Default 2.
    pub producers: usize,

    /// Bytes that a reader has ready or asks for at once, about; two such parts are in memory while a reader stands still. Four times as many
    /// while a partition has a backlog, for up to 512 partitions. Default 32 KiB.
    pub prefetch_bytes: usize,
    /// How many records a reader has ready before it asks for no more; four times as many likewise. Default 256.
    pub prefetch_records: usize,
    /// Bytes of one answer of a broker to all readers, at most 512 MiB; raised to [`max_task_bytes`](Self::max_task_bytes). Default 4 MiB.
    pub fetch_bytes: usize,
    /// How long a broker holds a request while no partition has anything; 5 ms at most for partitions that have a backlog. Default 500 ms.
    pub fetch_wait: Duration,
    /// Partitions that share one consumer and so one request for records. Default 1,000.
    pub partitions_per_consumer: usize,

    /// How long a question to the brokers may take: of bounds, of topics, of truncation. Default 10 s.
    pub request_timeout: Duration,

    /// What the consumer group of the placement speaks. Default [`GroupProtocol::Auto`].
    pub group_protocol: GroupProtocol,
    /// After so long without the group's coordinator this node gives up its shards by itself; at least 1 s. In the classic protocol also when
    /// the group gives up this node (the brokers' `group.min.session.timeout.ms` bounds it). Default 6 s.
    pub session_timeout: Duration,
    /// How long shards that go to another node may take to be saved; then they are lost. Default 60 s.
    pub release_timeout: Duration,
}

/// A property that the adapters set themselves, because what they promise rests on it.
const OURS: [&str; 16] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.protocol",
    "isolation.level",
    "max.poll.interval.ms",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "request.required.acks",
    "session.timeout.ms",
    "transactional.id",
];

/// Which client a configuration is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Client {
    /// Of topics, bounds and truncation.
    Admin,
    Producer,
    Reader,
    Group,
}

impl Client {
    const PREFIXES: [(Self, &'static str); 3] = [
        (Self::Producer, "producer."),
        (Self::Reader, "reader."),
        (Self::Group, "group."),
    ];
}

/// How long a broker holds a request for partitions that have a backlog.
const EAGER_WAIT: Duration = Duration::from_millis(5);
/// How many times as much is read ahead of those.
const EAGER_AHEAD: usize = 4;

/// Bytes of a message beside its task: headers and the frame of a batch.
const MESSAGE_OVERHEAD: usize = 64 << 10;

impl KafkaConfig {
    /// The defaults, for the brokers at `bootstrap` and the cluster of schedulers named `cluster`.
    pub fn new(bootstrap: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            cluster: cluster.into(),
            properties: Vec::new(),
            replication: -1,
            topic_settings: Vec::new(),
            max_task_bytes: 4 << 20,
            queue_bytes: 64 << 20,
            append_patience: Duration::from_secs(2),
            delivery_timeout: Duration::from_secs(10),
            linger: Duration::from_millis(1),
            producers: 2,
            prefetch_bytes: 32 << 10,
            prefetch_records: 256,
            fetch_bytes: 4 << 20,
            fetch_wait: Duration::from_millis(500),
            partitions_per_consumer: 1_000,
            request_timeout: Duration::from_secs(10),
            group_protocol: GroupProtocol::Auto,
            session_timeout: Duration::from_secs(6),
            release_timeout: Duration::from_mins(1),
        }
    }

    /// Brings numbers into their bounds, and refuses what cannot be meant.
    pub(crate) fn checked(mut self) -> Result<Self, OpenError> {
        let wrong = |field, problem: &str| Err(OpenError::config(field, problem));
        if self.bootstrap.trim().is_empty() {
            return wrong("bootstrap", "is empty; name at least one broker as `host:port`");
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if !(1..=40).contains(&self.cluster.len()) || !self.cluster.bytes().all(legal) {
            return wrong("cluster", "must be 1 to 40 of letters, digits, '-' and '.'");
        }
        if self.replication == 0 || self.replication < -1 {
            return wrong(
                "replication",
                "must be at least 1, or -1 for what the brokers say",
            );
        }
        for (name, _) in &self.properties {
            let (_, bare) = scope(name);
            if OURS.contains(&bare) {
                let problem = format!("`{name}` is set by the scheduler and cannot be changed; remove it");
                return wrong("properties", &problem);
            }
        }
        self.max_task_bytes = self.max_task_bytes.clamp(1, 512 << 20);
        self.queue_bytes = self.queue_bytes.clamp(64 << 10, 1 << 30);
        self.delivery_timeout = self
            .delivery_timeout
            .clamp(Duration::from_secs(1), Duration::from_mins(10));
        self.linger = self.linger.min(self.delivery_timeout / 4);
        self.producers = self.producers.clamp(1, 16);
        self.prefetch_bytes = self.prefetch_bytes.clamp(1 << 10, 64 << 20);
        self.prefetch_records = self.prefetch_records.clamp(1, 1_000_000);
        self.fetch_bytes = self
            .fetch_bytes
            .clamp(self.max_message_bytes(), (512 << 20) + MESSAGE_OVERHEAD);
        self.partitions_per_consumer = self.partitions_per_consumer.max(1);
        self.request_timeout = self
            .request_timeout
            .clamp(Duration::from_millis(100), Duration::from_mins(5));
        self.session_timeout = self
            .session_timeout
            .clamp(Duration::from_secs(1), Duration::from_mins(30));
        self.release_timeout = self
            .release_timeout
            .clamp(self.session_timeout, Duration::from_hours(1));
        Ok(self)
    }

    /// The largest message of a topic.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_task_bytes + MESSAGE_OVERHEAD
    }

    /// What every client needs, and what was chosen for it, over what `config` has.
    fn client(&self, client: Client, mut config: ClientConfig) -> ClientConfig {
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "scheduler")
            .set("log.connection.close", "false")
            // A broker that comes back is found within a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "60000")
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("allow.auto.create.topics", "false");
        for (name, value) in &self.properties {
            let (only, bare) = scope(name);
            if only.is_none_or(|only| only == client) {
                config.set(bare, value);
            }
        }
        config
    }

    pub(crate) fn admin(&self) -> ClientConfig {
        self.client(Client::Admin, ClientConfig::new())
    }

    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("compression.type", "lz4")
            .set("linger.ms", millis(self.linger).to_string())
            .set("batch.size", (256 << 10).to_string())
            .set("batch.num.messages", "100000");
        let mut config = self.client(Client::Producer, config);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", millis(self.delivery_timeout).to_string())
            .set(
                "request.timeout.ms",
                (millis(self.delivery_timeout) / 2).to_string(),
            )
            .set("message.max.bytes", self.max_message_bytes().to_string())
            // Never the first to be full: what may wait is counted before it gets here.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", (2 << 20).to_string());
        config
    }

    pub(crate) fn reader(&self, lane: Lane) -> ClientConfig {
        let mut config = ClientConfig::new();
        let (wait, ahead) = match lane {
            Lane::Patient => (self.fetch_wait, 1),
            Lane::Eager => (self.fetch_wait.min(EAGER_WAIT), EAGER_AHEAD),
        };
        let bytes = self.prefetch_bytes * ahead;
        config
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", millis(wait).to_string())
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "5");
        let mut config = self.client(Client::Reader, config);
        config
            // No group is joined; librdkafka wants a name all the same before it assigns.
            .set("group.id", &self.cluster)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("fetch.message.max.bytes", bytes.to_string())
            .set("fetch.max.bytes", self.fetch_bytes.to_string())
            .set("message.max.bytes", self.max_message_bytes().to_string())
            .set(
                "receive.message.max.bytes",
                (self.fetch_bytes + (1 << 20)).to_string(),
            )
            .set("queued.max.messages.kbytes", bytes.div_ceil(1 << 10).to_string())
            .set("queued.min.messages", (self.prefetch_records * ahead).to_string());
        config
    }

    /// For a member of the group that speaks `protocol`, which is not [`GroupProtocol::Auto`].
    pub(crate) fn group(&self, protocol: GroupProtocol) -> ClientConfig {
        let mut config = self.client(Client::Group, ClientConfig::new());
        let patience = self.release_timeout + self.session_timeout;
        config
            .set("group.id", &self.cluster)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .set("max.poll.interval.ms", millis(patience).to_string())
            // It reads nothing; should it ever ask before it is paused, then for little.
            .set("fetch.message.max.bytes", "1024")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1");
        if protocol == GroupProtocol::Consumer {
            config.set("group.protocol", "consumer");
        } else {
            config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", millis(self.session_timeout).to_string())
                .set(
                    "heartbeat.interval.ms",
                    (millis(self.session_timeout) / 4).to_string(),
                );
        }
        config
    }
}

/// For which client alone a property is meant, and its name at librdkafka.
fn scope(name: &str) -> (Option<Client>, &str) {
    // `group.id`, `group.instance.id`, … are librdkafka's own.
    if name.starts_with("group.id")
        || name.starts_with("group.instance.")
        || name.starts_with("group.protocol")
    {
        return (None, name);
    }
    let found = Client::PREFIXES
        .iter()
        .find_map(|(client, prefix)| Some((Some(*client), name.strip_prefix(prefix)?)));
    found.unwrap_or((None, name))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of properties may be secrets.
        let names: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("cluster", &self.cluster)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> KafkaConfig {
        let mut config = KafkaConfig::new("127.0.0.1:9092", "test");
        config.properties.push((name.to_owned(), value.to_owned()));
        config
    }

    #[test]
    fn a_property_reaches_the_clients_it_is_meant_for() {
        // A secret is among those that librdkafka's wrapper hides from who lists a configuration.
        for (name, value) in [("sasl.username", "anna"), ("sasl.password", "secret")] {
            let config = with(name, value).checked().unwrap();
            let group = config.group(GroupProtocol::Consumer);
            for client in [
                config.admin(),
                config.producer(),
                config.reader(Lane::Eager),
                group,
            ] {
                assert_eq!(client.get(name), Some(value), "{name}");
            }
        }
        let config = with("producer.compression.type", "zstd").checked().unwrap();
        assert_eq!(config.producer().get("compression.type"), Some("zstd"));
        assert_eq!(config.reader(Lane::Eager).get("compression.type"), None);
    }

    #[test]
    fn what_the_promises_rest_on_cannot_be_changed() {
        for name in ["acks", "producer.acks", "group.id", "reader.isolation.level"] {
            let problem = with(name, "x").checked().unwrap_err().to_string();
            assert!(problem.contains(name), "{problem}");
        }
    }

    #[test]
    fn the_name_of_a_cluster_is_checked() {
        for bad in ["", "a_b", "a/b", &"a".repeat(41)] {
            assert!(
                KafkaConfig::new("127.0.0.1:9092", bad).checked().is_err(),
                "{bad}"
            );
        }
        assert!(KafkaConfig::new("127.0.0.1:9092", "prod.eu-1").checked().is_ok());
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", with("sasl.password", "secret"));
        assert!(
            shown.contains("sasl.password") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
