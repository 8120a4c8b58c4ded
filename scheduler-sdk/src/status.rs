use tokio::sync::watch;

/// How a worker fares, seen from anywhere in its process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    receiver: watch::Receiver<Status>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Status {
    connected: bool,
    running: usize,
    unsettled: usize,
}

impl WorkerStatus {
    /// Whether the scheduler has welcomed the worker on the current connection.
    pub fn is_connected(&self) -> bool {
        self.receiver.borrow().connected
    }

    /// Tasks that run now.
    pub fn running(&self) -> usize {
        self.receiver.borrow().running
    }

    /// Reports that the scheduler has not settled.
    pub fn unsettled(&self) -> usize {
        self.receiver.borrow().unsettled
    }

    /// Waits until the worker is connected; `false` when it ended before.
    pub async fn connected(&mut self) -> bool {
        self.receiver.wait_for(|status| status.connected).await.is_ok()
    }
}

#[derive(Debug, Default)]
pub(crate) struct StatusSender {
    sender: watch::Sender<Status>,
}

impl StatusSender {
    pub(crate) fn subscribe(&self) -> WorkerStatus {
        WorkerStatus {
            receiver: self.sender.subscribe(),
        }
    }

    pub(crate) fn set(&self, connected: bool, running: usize, unsettled: usize) {
        let next = Status {
            connected,
            running,
            unsettled,
        };
        self.sender
            .send_if_modified(|status| std::mem::replace(status, next) != next);
    }
}
