//! Promise 3: what a checkpoint saved as ended stays so, and never runs again.

use std::collections::BTreeSet;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, LeaseToken, Offset, Partition};

use crate::store::Store;

/// A checkpoint is about to be stored.
pub(super) fn check_save(store: &mut Store, checkpoint: &Checkpoint) -> Result<(), String> {
    let partition = checkpoint.tenure.shard.partition;
    let rows = store.shard(partition);
    // One that was saved already may come again, long after: it changes nothing.
    if checkpoint.tenure.epoch != Epoch(rows.epoch) || checkpoint.id <= rows.checkpoint {
        return Ok(());
    }
    let mut ended = BTreeSet::new();
    for task in &checkpoint.finished {
        if !ended.insert(task.offset) {
            return Err(format!(
                "{partition:?} {:?} ends twice in a checkpoint",
                task.offset
            ));
        }
        if let Some(before) = rows.results.get(&task.offset)
            && before != task
        {
            return Err(format!(
                "the result of {partition:?} changes from {before:?} to {task:?}"
            ));
        }
    }
    for task in &checkpoint.dead {
        if !ended.insert(task.offset) {
            return Err(format!(
                "{partition:?} {:?} ends twice in a checkpoint",
                task.offset
            ));
        }
        if let Some(before) = rows.results.get(&task.offset) {
            return Err(format!(
                "the result of {partition:?} changes from {before:?} to a dead letter"
            ));
        }
    }
    Ok(())
}

/// A task is leased by whoever the store says owns its shard.
pub(super) fn check_lease(
    store: &mut Store,
    partition: Partition,
    offset: Offset,
    token: LeaseToken,
) -> Result<(), String> {
    let rows = store.shard(partition);
    if token.epoch == Epoch(rows.epoch) && rows.has_ended(offset) {
        return Err(format!(
            "{partition:?} {offset:?} was saved as ended and runs again under {token:?}"
        ));
    }
    Ok(())
}
