use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_proto::worker::{Lease, LeaseRef};

/// Who the worker is and how much it takes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionConfig {
    /// The application of the pipeline.
    pub application: String,
    /// The pipeline whose tasks are worked on.
    pub pipeline: String,
    /// Chosen at random when the worker starts.
    pub worker_id: [u8; 16],
    /// For people.
    pub name: String,
    /// Tasks that run at once, at most.
    pub concurrency: u32,
    /// No more tasks are asked for while so many reports are not settled.
    pub max_unsettled: usize,
    /// No more tasks are asked for while unsettled reports have so many bytes.
    pub max_unsettled_bytes: usize,
}

/// One attempt of a task: the names in a [`LeaseRef`].
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseKey {
    /// Of the task.
    pub partition: u32,
    /// Of the task.
    pub offset: u64,
    /// Of the lease.
    pub epoch: u32,
    /// Of the lease.
    pub attempt: u32,
}

impl From<LeaseRef> for LeaseKey {
    fn from(wire: LeaseRef) -> Self {
        Self {
            partition: wire.partition,
            offset: wire.offset,
            epoch: wire.epoch,
            attempt: wire.attempt,
        }
    }
}

impl From<LeaseKey> for LeaseRef {
    fn from(key: LeaseKey) -> Self {
        Self {
            partition: key.partition,
            offset: key.offset,
            epoch: key.epoch,
            attempt: key.attempt,
        }
    }
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A stream to a server is open; nothing was said yet.
    Connected,
    /// The server said this on the open stream.
    Received(Response),
    /// The stream is gone.
    Disconnected,
    /// A task that was started has ended.
    Ended {
        /// Which attempt.
        lease: LeaseKey,
        /// How.
        outcome: Outcome,
    },
    /// A running task says how far it is.
    Progressed {
        /// Which attempt.
        lease: LeaseKey,
        /// How far, JSON by convention.
        progress: Bytes,
    },
    /// The worker is to end: take no more tasks.
    Drain,
}

/// What the driver has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this on the open stream.
    Send(Request),
    /// Begin with these tasks; answer each with [`Input::Ended`].
    Start(Vec<Lease>),
    /// The server wants this task stopped; it still has to end.
    Stop(LeaseKey),
    /// What tasks started from now on are to run.
    Define(Bytes),
    /// Leave this stream and open another.
    Reconnect(&'static str),
    /// The server did something the protocol does not have; the log should know.
    Warn(&'static str),
    /// After [`Input::Drain`]: every task has ended and every report is settled.
    Drained,
}
