//! What a session is told and has not been taken by its transport yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use scheduler_core::port::gateway::{EventSource, Lease, WorkerEvent};
use tokio::sync::Notify;

/// Most bytes that wait for a transport; a session further behind is ended, and its worker comes back with a new one.
const MOST_BYTES: usize = 64 << 20;

/// Between an actor and the transport of a session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    events: Vec<WorkerEvent>,
    bytes: usize,
    /// The actor says no more.
    is_over: bool,
    /// The transport listens no more.
    is_deaf: bool,
}

impl Outbox {
    /// Adds `events`, which are empty then; if nobody listens, or far too slowly, they stay, and the answer is `false`.
    pub(super) fn put(&self, events: &mut Vec<WorkerEvent>) -> bool {
        let mut inner = self.lock();
        if inner.is_deaf || inner.bytes > MOST_BYTES {
            return false;
        }
        inner.bytes += events.iter().map(weight).sum::<usize>();
        if inner.events.is_empty() {
            std::mem::swap(&mut inner.events, events);
        } else {
            inner.events.append(events);
        }
        drop(inner);
        self.changed.notify_one();
        true
    }

    /// Ends it: what is in it is still given out.
    fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_one();
    }

    /// Ends it, and takes back what nobody has taken.
    pub(super) fn take_back(&self) -> Vec<WorkerEvent> {
        let mut inner = self.lock();
        inner.is_over = true;
        std::mem::take(&mut inner.events)
    }

    /// Whether the session is over.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(event: &WorkerEvent) -> usize {
    size_of::<WorkerEvent>()
        + match event {
            WorkerEvent::Leases(leases) => leases
                .iter()
                .map(|lease| size_of::<Lease>() + lease.spec.weight())
                .sum(),
            WorkerEvent::Definition(definition) => definition.len(),
            WorkerEvent::Stop(leases) => size_of_val(leases.as_slice()),
            WorkerEvent::Settled { .. }
            | WorkerEvent::Moved(_)
            | WorkerEvent::GoAway
            | WorkerEvent::Waiting(_)
            | WorkerEvent::Recalled(_) => 0,
        }
}

/// The actor's end. However it goes, with the actor or in a message that the actor never took, the transport hears that it is over.
#[derive(Debug)]
pub(crate) struct Teller(pub(crate) Arc<Outbox>);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The transport's end.
#[derive(Debug)]
pub(crate) struct Events(pub(crate) Arc<Outbox>);

#[async_trait]
impl EventSource for Events {
    async fn next(&mut self) -> Option<Vec<WorkerEvent>> {
        loop {
            {
                let mut inner = self.0.lock();
                if !inner.events.is_empty() {
                    inner.bytes = 0;
                    return Some(std::mem::take(&mut inner.events));
                }
                if inner.is_over {
                    return None;
                }
            }
            // A change since the look has left a permit.
            self.0.changed.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.lock().is_deaf = true;
    }
}
