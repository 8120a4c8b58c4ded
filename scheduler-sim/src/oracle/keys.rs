//! Idempotency keys: of the tasks of one key in a partition exactly one runs, the others end as its duplicates.

use std::collections::BTreeMap;

use bytes::Bytes;
use scheduler_core::id::{Offset, Partition};
use scheduler_core::outcome::Ending;
use scheduler_core::task::RecordBody;

use super::lost::Lost;
use crate::store::Store;

#[derive(Debug, Default)]
pub(super) struct Keys {
    tasks: BTreeMap<(Partition, Bytes), Vec<Offset>>,
}

impl Keys {
    pub(super) fn appended(&mut self, partition: Partition, offset: Offset, body: &RecordBody) {
        if let RecordBody::Task(spec) = body
            && let Some(key) = spec
                .options
                .as_ref()
                .and_then(|options| options.idempotency_key.clone())
        {
            self.tasks.entry((partition, key)).or_default().push(offset);
        }
    }

    /// At the very end. No history is as long as a key is remembered.
    pub(super) fn check_end(&self, store: &Store, lost: &Lost) -> Result<(), String> {
        for ((partition, key), offsets) in &self.tasks {
            let Some(rows) = store.shards.get(partition) else {
                continue;
            };
            let is_duplicate = |offset: &&Offset| {
                rows.results
                    .get(offset)
                    .is_some_and(|result| result.ending == Ending::Duplicate)
            };
            let (duplicates, others): (Vec<&Offset>, Vec<&Offset>) = offsets.iter().partition(is_duplicate);
            let is_gone =
                |offset: &&&Offset| lost.may_be_gone(*partition, ***offset) && !rows.has_ended(***offset);
            let gone = others.iter().filter(is_gone).count();
            if others.len() != 1 && (others.len() - gone > 1 || gone == 0) {
                return Err(format!(
                    "of the tasks of key {key:?} in {partition:?}, {others:?} ran and {duplicates:?} were their duplicates"
                ));
            }
        }
        Ok(())
    }
}
