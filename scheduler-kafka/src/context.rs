//! What librdkafka says goes to the log of the process.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::error::KafkaError;

/// The context of clients that need no other.
#[derive(Debug, Default)]
pub(crate) struct Plain;

impl ClientContext for Plain {
    fn log(&self, level: Level, facility: &str, message: &str) {
        say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

pub(crate) fn say(level: Level, facility: &str, message: &str) {
    match level {
        Level::Emerg | Level::Alert | Level::Critical => tracing::error!(facility, "librdkafka: {message}"),
        Level::Error | Level::Warning => tracing::warn!(facility, "librdkafka: {message}"),
        Level::Notice | Level::Info => tracing::debug!(facility, "librdkafka: {message}"),
        Level::Debug => tracing::trace!(facility, "librdkafka: {message}"),
    }
}

pub(crate) fn complain(error: &KafkaError, reason: &str) {
    tracing::warn!(error = error as &dyn std::error::Error, "Kafka: {reason}");
}
