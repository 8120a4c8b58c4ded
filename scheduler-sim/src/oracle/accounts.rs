//! Promise 9: every offset of a log is accounted for, once.

use std::collections::BTreeMap;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Offset, Partition};

use super::lost::Lost;
use crate::store::{ShardRows, Store};

#[derive(Debug, Default)]
pub(super) struct Accounts {
    resume: BTreeMap<Partition, Offset>,
}

impl Accounts {
    /// A checkpoint is stored: what it names has one place, and everything before its resume offset has one.
    pub(super) fn saved(
        &mut self,
        rows: &ShardRows,
        checkpoint: &Checkpoint,
        log: &Lost,
    ) -> Result<(), String> {
        let partition = checkpoint.tenure.shard.partition;
        let named = checkpoint
            .finished
            .iter()
            .map(|task| task.offset)
            .chain(checkpoint.dead.iter().map(|task| task.offset))
            .chain(checkpoint.revived.iter().copied())
            .chain(checkpoint.parked.iter().map(|task| task.offset))
            .chain(checkpoint.unparked.iter().copied());
        for offset in named {
            if !log.has(partition, offset) {
                return Err(format!(
                    "{partition:?} {offset:?} is in a checkpoint and was never in the log"
                ));
            }
            let places = places(rows, offset);
            let may_be_gone = log.may_be_gone(partition, offset);
            if places.len() > 1 || places.is_empty() && offset < checkpoint.resume && !may_be_gone {
                return Err(format!(
                    "{partition:?} {offset:?} is in {places:?} once {:?} is saved",
                    checkpoint.id
                ));
            }
        }
        let from = self
            .resume
            .insert(partition, checkpoint.resume)
            .unwrap_or_default();
        for offset in log.between(partition, from, checkpoint.resume) {
            let places = places(rows, offset);
            if places.len() != 1 && !(places.is_empty() && log.may_be_gone(partition, offset)) {
                return Err(format!(
                    "{partition:?} {offset:?} lies before the resume offset {:?} and is in {places:?}",
                    checkpoint.resume
                ));
            }
        }
        Ok(())
    }
}

/// At the very end everything has ended, and nothing is left over.
pub(super) fn check_end(store: &Store, log: &Lost) -> Result<(), String> {
    for (partition, offset) in log.all() {
        let Some(rows) = store.shards.get(&partition) else {
            return Err(format!("{partition:?} has tasks and was never stored"));
        };
        let places = places(rows, offset);
        if places.len() != 1 && !(places.is_empty() && log.may_be_gone(partition, offset)) {
            return Err(format!("{partition:?} {offset:?} is in {places:?} at the end"));
        }
    }
    Ok(())
}

fn places(rows: &ShardRows, offset: Offset) -> Vec<&'static str> {
    let mut places = Vec::new();
    if rows.results.contains_key(&offset) {
        places.push("results");
    }
    if rows.dead.contains_key(&offset) {
        places.push("dead letters");
    }
    if rows.parked.contains_key(&offset) {
        places.push("rows");
    }
    places
}
