//! The other nodes, by their addresses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scheduler_core::port::cluster::{PeerGateway, Peers};
use tonic::transport::Endpoint;

use super::ClusterSecret;
use super::channels::Channels;
use super::remote::RemotePeer;

/// Nodes whose connections are kept; the one that was asked for least recently makes room.
const MAX_PEERS: usize = 256;

/// How long a node waits for another.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Longest time for a connection to come up. Default 2 s.
    pub connect_timeout: Duration,
    /// While calls or streams are under way, a silent connection gets an HTTP/2 ping this often. Default 2 s.
    pub keepalive_interval: Duration,
    /// A connection that leaves a ping unanswered so long is given up, with all that is under way on it. Default 3 s.
    pub keepalive_timeout: Duration,
    /// Longest time for a call that only looks something up. Calls that wait have their own time besides. Default 5 s.
    pub call_timeout: Duration,
    /// Longest time for a call that is answered when something is saved: submissions, reports, changes. Default 60 s.
    pub save_timeout: Duration,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(5),
            save_timeout: Duration::from_mins(1),
        }
    }
}

/// Reaches other nodes over gRPC. See the [module](super).
#[derive(Debug)]
pub struct GrpcPeers {
    secret: ClusterSecret,
    config: Arc<PeersConfig>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    peers: HashMap<String, (Arc<RemotePeer>, u64)>,
    /// Counts the questions for a peer.
    asked: u64,
}

impl GrpcPeers {
    /// The nodes of the cluster that `secret` makes.
    pub fn new(secret: ClusterSecret, config: PeersConfig) -> Self {
        Self {
            secret,
            config: Arc::new(config),
            known: Mutex::default(),
        }
    }

    fn make(&self, address: &str) -> RemotePeer {
        let channels = Endpoint::from_shared(address.to_owned())
            .map_err(|error| error.to_string())
            .and_then(|endpoint| match endpoint.uri().scheme_str() {
                Some("http") => Ok(endpoint),
                _ => Err("must be http://host:port".to_owned()),
            })
            .map(|endpoint| {
                endpoint
                    .connect_timeout(self.config.connect_timeout)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(self.config.keepalive_interval)
                    .keep_alive_timeout(self.config.keepalive_timeout)
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(8 << 20)
                    // An error with all its details is a header.
                    .http2_max_header_list_size(128 << 10)
            })
            .map(Channels::new);
        RemotePeer::new(address, channels, self.secret.clone(), Arc::clone(&self.config))
    }
}

impl Peers for GrpcPeers {
    /// The node at `http://host:port`. To be called within a tokio runtime.
    ///
    /// An address that is none gives a peer that is never available.
    fn at(&self, address: &str) -> Arc<dyn PeerGateway> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.asked += 1;
        let now = known.asked;
        if let Some((peer, asked)) = known.peers.get_mut(address) {
            *asked = now;
            return Arc::clone(peer) as Arc<dyn PeerGateway>;
        }
        if known.peers.len() >= MAX_PEERS {
            let oldest = known.peers.iter().min_by_key(|(_, (_, asked))| *asked);
            if let Some(oldest) = oldest.map(|(address, _)| address.clone()) {
                known.peers.remove(&oldest);
            }
        }
        let peer = Arc::new(self.make(address));
        known.peers.insert(address.to_owned(), (Arc::clone(&peer), now));
        peer
    }
}
