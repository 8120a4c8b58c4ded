//! What the operator may choose about HTTP.

use std::time::Duration;

/// Limits and times of the HTTP API. Every queue and buffer of the crate is bounded by one of them.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Most bytes of the params of one task. Default 512 KiB.
    pub max_params: usize,
    /// Most bytes of any other JSON body: a pipeline with its definition and values, a list of ids. Default 1 MiB.
    pub max_body: usize,
    /// Most bytes of one line of a bulk submission, envelope included. Default 520 KiB.
    pub max_line: usize,
    /// Lines of a bulk submission that go to the log together, at most. Default 512.
    pub bulk_batch_lines: usize,
    /// A batch of a bulk submission is closed when it has so many bytes. Default 1 MiB.
    pub bulk_batch_bytes: usize,
    /// Batches of one bulk submission that wait for the log at the same time; beyond it the body is not read on.
    /// Costs up to `bulk_batch_bytes + max_line` of memory each. Default 4.
    pub bulk_batches_in_flight: usize,
    /// The longest `?wait=`. Default 60 s.
    pub max_wait: Duration,
    /// How long a request's body may take to arrive; not for bulk, whose length is not bounded. Default 30 s.
    pub body_timeout: Duration,
    /// Silence on an event stream after which a comment is sent, so that proxies keep it open. Default 15 s.
    pub event_keep_alive: Duration,
    /// Most tasks or dead letters on a page. Default 1,000.
    pub max_page: usize,
    /// A page is cut short when its params, outputs and errors have so many bytes. Default 8 MiB.
    pub max_page_bytes: usize,

    /// Most connections at the same time; beyond it they wait in the listener's backlog. Default 10,000.
    pub max_connections: usize,
    /// How long a request's headers may take to arrive; an idle connection is closed after the same time. Default 30 s.
    pub header_timeout: Duration,
    /// A connection on which no byte moves for so long in either direction is closed, whatever it is doing.
    /// At least twice `max_wait`, so that a waiting client is not cut off. Default 2 min.
    pub idle_timeout: Duration,
    /// Most bytes of a request's line and headers, at least 8 KiB. Default 32 KiB.
    pub max_header_bytes: usize,
    /// How long requests in flight may take to end after the shutdown began. Default 20 s.
    pub drain_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_params: 512 << 10,
            max_body: 1 << 20,
            max_line: 520 << 10,
            bulk_batch_lines: 512,
            bulk_batch_bytes: 1 << 20,
            bulk_batches_in_flight: 4,
            max_wait: Duration::from_mins(1),
            body_timeout: Duration::from_secs(30),
            event_keep_alive: Duration::from_secs(15),
            max_page: 1_000,
            max_page_bytes: 8 << 20,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(2),
            max_header_bytes: 32 << 10,
            drain_timeout: Duration::from_secs(20),
        }
    }
}
