//! The checkpointer: saves the checkpoints of all shards of the node, as many in one transaction as have come together.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::port::store::{CheckpointStore, Saved, StoreError};
use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::actor::{Line, Word};
use crate::retry::{in_full, until_done};

/// Most checkpoints in one transaction.
const BATCH: usize = 1_000;

/// A checkpoint, and who waits for it. Each shard has at most one under way, which bounds the channel.
pub(crate) type Order = (Arc<Checkpoint>, Line);

/// Saves what comes until nobody is left to send.
pub(crate) async fn run(store: Arc<dyn CheckpointStore>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut batch = Vec::new();
    while orders.recv_many(&mut batch, BATCH).await > 0 {
        match save(&*store, &batch).await {
            Ok(answers) => answer(batch.drain(..).zip(answers.into_iter().map(Ok))).await,
            Err(problem) if batch.len() == 1 => answer(batch.drain(..).zip([Err(problem)])).await,
            Err(_) => {
                // One shard's rows are damaged, and the others must not suffer for it.
                for order in batch.drain(..) {
                    let saved = save(&*store, std::slice::from_ref(&order)).await;
                    answer([(order, saved.map(|answers| answers[0]))]).await;
                }
            }
        }
    }
}

async fn save(store: &dyn CheckpointStore, orders: &[Order]) -> Result<Vec<Saved>, StoreError> {
    let checkpoints: Vec<&Checkpoint> = orders.iter().map(|(checkpoint, _)| &**checkpoint).collect();
    until_done("saving checkpoints", || store.save(&checkpoints)).await
}

async fn answer(answers: impl IntoIterator<Item = (Order, Result<Saved, StoreError>)>) {
    for ((checkpoint, line), saved) in answers {
        let (shard, epoch, id) = (checkpoint.tenure.shard, checkpoint.tenure.epoch.0, checkpoint.id);
        // Let go of the checkpoint before its shard hears of it: it uses the buffers again.
        drop(checkpoint);
        line.tell(match saved {
            Ok(Saved::Done) => {
                debug!(%shard, epoch, checkpoint = id.0, "checkpoint is saved");
                Word::Saved(id)
            }
            Ok(Saved::Fenced { stored }) => Word::Fenced(stored),
            Err(problem) => {
                error!(%shard, error = &problem as &dyn std::error::Error, "a checkpoint cannot be saved");
                Word::Broken(format!("its checkpoints cannot be saved: {}", in_full(&problem)))
            }
        })
        .await;
    }
}
