//! Recordings of shards, made when somebody asks for one.

use bytes::Bytes;
use scheduler_core::id::Partition;
use scheduler_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::shell::Released;
use super::{Message, PipelineActor};

/// A recording that is being made.
#[derive(Debug)]
pub(super) struct Recorder {
    send: mpsc::Sender<Bytes>,
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
        let (reply, released) = oneshot::channel();
        let waiter = Released::new(reply);
        if !self.host.record(now, partition, limit, waiter, &mut self.effects) {
            return false;
        }
        self.recorders.insert(partition, Recorder { send });
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

    /// Hands on what was recorded.
    pub(super) fn send_recorded(&mut self) {
        if self.recorders.is_empty() {
            return;
        }
        let host = &mut self.host;
        self.recorders.retain(|partition, recorder| {
            if host.is_to_record(*partition) {
                return true;
            }
            let is_here = host.is_hosted(*partition);
            match host.take_recorded(*partition) {
                Some(bytes) if bytes.is_empty() => !recorder.send.is_closed(),
                Some(bytes) => {
                    let is_taken = recorder.send.try_send(bytes.into()).is_ok();
                    if !is_taken {
                        host.stop_recording(*partition);
                    }
                    is_taken
                }
                // It may not have come up yet.
                None => is_here && host.pipeline().shard(*partition).is_none(),
            }
        });
    }
}
