//! Recordings of shards, made when somebody asks for one.

use bytes::Bytes;
use scheduler_core::id::Partition;
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::host::Released;
use super::{Message, PipelineActor};

/// A recording that is being made.
#[derive(Debug)]
pub(super) struct Recorder {
    limit: usize,
    send: mpsc::Sender<Bytes>,
    /// Whether the shard that records has come up.
    is_running: bool,
}

impl PipelineActor {
    /// Begins a recording; answers whether the shard is active here. A recording begins with an activation, so the shard is released and comes
    /// up again.
    pub(super) fn record(
        &mut self,
        now: Timestamp,
        partition: Partition,
        limit: usize,
        send: mpsc::Sender<Bytes>,
    ) -> bool {
        if self.machine.shard(partition).is_none() || !self.assigned.contains(&partition) || self.draining {
            return false;
        }
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return false;
        };
        let (reply, released) = oneshot::channel();
        hosted.wait_for_release(Released::new(reply));
        let recorder = Recorder {
            limit,
            send,
            is_running: false,
        };
        self.recorders.insert(partition, recorder);
        self.let_go(now, partition);
        let mailbox = self.mailbox.clone();
        self.world.tasks.spawn(async move {
            let _ = released.await;
            if let Some(mailbox) = mailbox.upgrade() {
                // If the actor is gone, so is the shard.
                let _ = mailbox.send(Message::ComeBack(partition)).await;
            }
        });
        true
    }

    /// How much of a shard that comes up is to be recorded.
    pub(super) fn recording_of(&mut self, partition: Partition) -> Option<usize> {
        let recorder = self.recorders.get_mut(&partition)?;
        (!std::mem::replace(&mut recorder.is_running, true)).then_some(recorder.limit)
    }

    /// Hands on what was recorded.
    pub(super) fn send_recorded(&mut self) {
        if self.recorders.is_empty() {
            return;
        }
        let (machine, hosted) = (&mut self.machine, &self.hosted);
        self.recorders.retain(|partition, recorder| {
            if !recorder.is_running {
                return true;
            }
            let is_here = hosted.contains_key(partition);
            match machine.take_recorded(*partition) {
                Some(bytes) if bytes.is_empty() => !recorder.send.is_closed(),
                Some(bytes) => {
                    let is_taken = recorder.send.try_send(bytes.into()).is_ok();
                    if !is_taken {
                        machine.stop_recording(*partition);
                    }
                    is_taken
                }
                // It may not have come up yet.
                None => is_here && machine.shard(*partition).is_none(),
            }
        });
    }
}
