//! What the server can be told.

use std::time::Duration;

/// Limits and times of the gRPC server. Every one has a default that suits a node of any size.
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    /// Bytes of one incoming message, at most. A connection can make the node hold this much for each of its streams. Default 8 MiB.
    pub max_message_bytes: usize,
    /// Streams (calls under way) of one connection, at most; more wait in the client. Default 1,024.
    pub max_concurrent_streams: u32,
    /// Bytes that a stream may have under way to the node. Default 1 MiB.
    pub stream_window_bytes: u32,
    /// The same for all streams of a connection together. Default 4 MiB.
    pub connection_window_bytes: u32,
    /// A connection that was silent so long gets an HTTP/2 ping. Default 20 s.
    pub keepalive_interval: Duration,
    /// A connection that leaves a ping unanswered so long is closed, which ends its sessions. Default 10 s.
    pub keepalive_timeout: Duration,
    /// A session whose first message has not come by then ends. Default 10 s.
    pub hello_timeout: Duration,
    /// Messages of a session that are handed to the gateway together, at most. Default 512.
    pub session_batch: usize,
    /// Batches of one `SubmitStream` that are under way at once; more wait in the client. Default 16.
    pub submit_in_flight: usize,
    /// How often a health watch looks whether the node is ready; without watchers nothing looks. Default 1 s.
    pub health_interval: Duration,
    /// How often a watch of KEDA's looks at what its pipeline has to do. Default 1 s.
    pub scaler_interval: Duration,
    /// Watches of KEDA's that a node has at once, at most; one for each scaled pipeline. Default 4,096.
    pub max_scaler_streams: usize,
    /// When the server stops, sessions have so long to end by themselves. Default 10 s.
    pub shutdown_grace: Duration,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            max_message_bytes: 8 << 20,
            max_concurrent_streams: 1024,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(10),
            session_batch: 512,
            submit_in_flight: 16,
            health_interval: Duration::from_secs(1),
            scaler_interval: Duration::from_secs(1),
            max_scaler_streams: 4096,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
