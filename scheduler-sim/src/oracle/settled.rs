//! A worker may forget a report only if what it says is saved.

use std::collections::BTreeSet;

use scheduler_core::id::{Offset, Partition};
use scheduler_core::session::SessionId;

use super::lost::Lost;
use super::said::Saying;
use crate::store::Store;

/// A node says to a session that its first `count` reports of a partition are settled.
pub(super) fn check(
    reports: &[Saying],
    lost: &Lost,
    revived: &BTreeSet<(Partition, Offset)>,
    store: &mut Store,
    session: SessionId,
    partition: Partition,
    count: u64,
) -> Result<(), String> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > reports.len() {
        return Err(format!(
            "{count} reports of {session:?} for {partition:?} are settled, and there are {}",
            reports.len()
        ));
    }
    let rows = store.shard(partition);
    for said in &reports[..count] {
        let is_saved = rows.has_ended(said.offset)
            || revived.contains(&(partition, said.offset))
            // The record is gone, and with it the task; its shard counts it as lost.
            || lost.may_be_gone(partition, said.offset);
        if said.is_success && !said.is_void && !is_saved {
            return Err(format!(
                "the success of {partition:?} {:?} under {:?} is settled and not saved",
                said.offset, said.token
            ));
        }
    }
    Ok(())
}
