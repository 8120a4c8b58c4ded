//! The checkpointer: saves the checkpoints of all shards of the node, as many in one transaction as have come together.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::port::store::{CheckpointStore, Saved};
use tokio::sync::mpsc;

use crate::actor::{Mailbox, Message};
use crate::retry::until_done;

/// Most checkpoints in one transaction.
const BATCH: usize = 1_000;

/// A checkpoint, and who waits for it. Each shard has at most one under way, which bounds the channel.
pub(crate) type Order = (Arc<Checkpoint>, Mailbox);

/// Saves what comes until nobody is left to send.
pub(crate) async fn run(store: Arc<dyn CheckpointStore>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut batch = Vec::new();
    while orders.recv_many(&mut batch, BATCH).await > 0 {
        let checkpoints: Vec<&Checkpoint> = batch.iter().map(|(checkpoint, _)| &**checkpoint).collect();
        let answers = until_done("saving checkpoints", || store.save(&checkpoints)).await;
        for ((checkpoint, mailbox), saved) in batch.drain(..).zip(answers) {
            let partition = checkpoint.tenure.shard.partition;
            let id = checkpoint.id;
            // Let go of the checkpoint before its shard hears of it: it uses the buffers again.
            drop(checkpoint);
            mailbox
                .tell(match saved {
                    Saved::Done => Message::Saved(partition, id),
                    Saved::Fenced { stored } => Message::Fenced(partition, stored),
                })
                .await;
        }
    }
}
