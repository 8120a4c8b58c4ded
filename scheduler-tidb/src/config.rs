//! What can be chosen about the store.

use std::time::Duration;

/// What can be chosen. The defaults suit a node of some hundred pipelines.
///
/// ```
/// let mut config = scheduler_tidb::TidbConfig::default();
/// config.max_connections = 16;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TidbConfig {
    /// Most connections of this process. Default 8.
    pub max_connections: u32,
    /// How long a call waits for a connection, made or free, before the store counts as away. Default 5 s.
    pub acquire_timeout: Duration,
    /// How long one try of a call may take before its connection is cut and the store counts as away. Default 15 s.
    pub call_timeout: Duration,
    /// How often a call is tried that TiDB refused for a conflict or for being busy; at least 1. Default 8.
    pub max_tries: u32,
    /// Whether TiDB's own TTL job removes what expired more than a day ago and no node removed. It counts when the tables are made; later
    /// use `ALTER TABLE ... TTL_ENABLE`. Default true.
    pub ttl: bool,
}

impl Default for TidbConfig {
    fn default() -> Self {
        Self {
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(15),
            max_tries: 8,
            ttl: true,
        }
    }
}
