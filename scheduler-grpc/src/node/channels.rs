//! Connections to one node: one for calls, and as many for streams as there are streams.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::{Channel, Endpoint};

/// Streams on one connection: far below what a server takes of one, so that none waits for another's end.
const STREAMS: usize = 256;

/// Connections that come up as they are needed, and come back by themselves.
#[derive(Debug)]
pub(super) struct Channels {
    endpoint: Endpoint,
    calls: Channel,
    streams: Mutex<Vec<(Channel, Arc<()>)>>,
}

/// A stream's place on a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "counted")] Arc<()>);

impl Channels {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            calls: endpoint.connect_lazy(),
            endpoint,
            streams: Mutex::default(),
        }
    }

    /// For a call that does not stream: streams cannot hold it up.
    pub(super) fn for_call(&self) -> Channel {
        self.calls.clone()
    }

    /// For a stream.
    pub(super) fn for_stream(&self) -> (Channel, Place) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        // One is the list's own.
        let on = |count: &Arc<()>| Arc::strong_count(count) - 1;
        let mut is_first = true;
        streams.retain(|(_, count)| on(count) > 0 || std::mem::take(&mut is_first));
        let found = streams.iter().find(|(_, count)| on(count) < STREAMS);
        let (channel, count) = found.cloned().unwrap_or_else(|| {
            let made = (self.endpoint.connect_lazy(), Arc::default());
            streams.push(made.clone());
            made
        });
        (channel, Place(count))
    }
}
