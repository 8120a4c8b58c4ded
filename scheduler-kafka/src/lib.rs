//! The Kafka adapters.

mod config;
mod context;
mod error;
mod log;
mod placement;

pub use config::{GroupProtocol, KafkaConfig};
pub use error::OpenError;
pub use log::KafkaLog;
pub use log::record::headers;
pub use placement::KafkaPlacement;
