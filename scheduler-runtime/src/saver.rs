//! The checkpointer: saves the checkpoints of all shards of the node, as many in one transaction as have come together.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::host::Word;
use scheduler_core::port::store::{CheckpointStore, Saved, StoreError};
use scheduler_core::saver::{MOST_TOGETHER, Order, Saver};
use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::actor::Line;
use crate::retry::{in_full, until_done};

/// Saves what comes until nobody is left to send.
pub(crate) async fn run(store: Arc<dyn CheckpointStore>, mut orders: mpsc::UnboundedReceiver<Order<Line>>) {
    let mut saver = Saver::default();
    let mut come = Vec::new();
    while orders.recv_many(&mut come, MOST_TOGETHER).await > 0 {
        come.drain(..).for_each(|order| saver.order(order));
        while let Some(batch) = saver.begin() {
            match save(&*store, &batch).await {
                Ok(answers) => {
                    saver.done();
                    answer(batch.into_iter().zip(answers.into_iter().map(Ok))).await;
                }
                Err(problem) => answer(saver.failed(batch).map(|order| (order, Err(problem)))).await,
            }
        }
    }
}

async fn save(store: &dyn CheckpointStore, orders: &[Order<Line>]) -> Result<Vec<Saved>, StoreError> {
    let checkpoints: Vec<&Checkpoint> = orders.iter().map(|(checkpoint, _)| &**checkpoint).collect();
    until_done("saving checkpoints", || store.save(&checkpoints)).await
}

async fn answer(answers: impl IntoIterator<Item = (Order<Line>, Result<Saved, StoreError>)>) {
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
