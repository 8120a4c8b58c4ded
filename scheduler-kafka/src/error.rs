//! What can go wrong, and how it is told to the ports.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use scheduler_core::id::ShardId;
use scheduler_core::port::BoxError;
use scheduler_core::port::log::LogError;

/// Why the adapters could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A field of the configuration is wrong.
    #[error("Kafka: `{field}` {problem}")]
    Config {
        /// Which, as in [`KafkaConfig`](crate::KafkaConfig).
        field: &'static str,
        /// What is wrong with it, and what it must be.
        problem: String,
    },
    /// librdkafka refused a property, or could not be started.
    #[error("Kafka: the client cannot be made; see `properties`")]
    Client(#[source] KafkaError),
    /// There is no thread for it.
    #[error("Kafka: no thread could be started")]
    Thread(#[source] std::io::Error),
    /// The brokers did not answer in time, or refused.
    #[error(
        "Kafka: {bootstrap} did not say which topics there are: see that brokers listen there, and that the property \
         `security.protocol` is what they speak"
    )]
    Unavailable {
        /// Who was asked.
        bootstrap: String,
        /// Why.
        source: BoxError,
    },
}

impl OpenError {
    pub(crate) fn config(field: &'static str, problem: &str) -> Self {
        Self::Config {
            field,
            problem: problem.to_owned(),
        }
    }
}

/// An answer that did not come, and why.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Reason {
    pub(crate) reason: String,
    pub(crate) source: LogError,
}

/// A problem that has no cause but itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Problem(pub(crate) String);

pub(crate) fn unavailable(source: impl Into<BoxError>) -> LogError {
    LogError::Unavailable(source.into())
}

/// The answer did not come.
pub(crate) fn late(what: &str, after: Duration) -> LogError {
    unavailable(Problem(format!("{what} took longer than {after:?}")))
}

/// What a broker's answer about `shard` means.
pub(crate) fn about(shard: ShardId, code: Code) -> LogError {
    if is_missing(code) {
        LogError::NotFound(shard)
    } else {
        unavailable(KafkaError::Global(code))
    }
}

/// Whether the topic or the partition is not there.
pub(crate) fn is_missing(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopicId
    )
}

/// Runs what blocks off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(run).await.map_err(unavailable)
}

/// Runs what may block for a while and whose end nobody waits for: the closing of clients.
pub(crate) fn aside(run: impl FnOnce() + Send + 'static) {
    if std::thread::Builder::new()
        .name("kafka-close".to_owned())
        .spawn(run)
        .is_err()
    {
        tracing::warn!("there is no thread to close a Kafka client with; it was closed in place");
    }
}
