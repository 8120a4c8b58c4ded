//! What has become of every offset of the log, in numbers: kept with the checkpoints, so that it can be proved on a running system.

use super::{Offset, Shard};

/// How many offsets have gone which way since the log's beginning, saved or not. A shard's state carries it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Totals {
    /// One past the last offset that is counted.
    pub(crate) tail: u64,
    /// See [`Account`], as are the others.
    pub(crate) absent: u64,
    pub(crate) lost: u64,
    pub(crate) succeeded: u64,
    /// As were those that expired, and duplicates.
    pub(crate) cancelled: u64,
    pub(crate) died: u64,
    pub(crate) revived: u64,
}

/// Where every offset below the tail is. Those that are none of these are parked: in the store, and not in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    /// One past the last offset that has arrived.
    pub tail: Offset,
    /// Whether everything that an earlier activation counted has arrived again; before that the rest of it says little.
    pub is_complete: bool,
    /// Offsets that the log never had a task at: transaction markers, aborted batches.
    pub absent: u64,
    /// Tasks that the log has lost before they ended.
    pub lost: u64,
    /// Ended as results: succeeded, cancelled, expired, duplicates.
    pub finished: u64,
    /// Died, less those that live again. Dead letters that were purged or have expired are among them.
    pub dead: u64,
    /// In memory.
    pub live: u64,
}

impl Account {
    /// How many must be parked, so that every offset is somewhere; `None` if more are accounted for than there are.
    pub fn parked(&self) -> Option<u64> {
        [self.absent, self.lost, self.finished, self.dead, self.live]
            .into_iter()
            .try_fold(self.tail.0, u64::checked_sub)
    }
}

impl Shard {
    /// Where every offset of the log is.
    pub fn account(&self) -> Account {
        let Totals {
            tail,
            absent,
            lost,
            succeeded,
            cancelled,
            died,
            revived,
        } = self.totals();
        Account {
            tail: Offset(tail),
            is_complete: self.ring.tail() >= tail,
            absent,
            lost,
            finished: succeeded + cancelled,
            dead: died - revived,
            live: self.slab.live().into(),
        }
    }

    /// The totals up to now.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            tail: self.unsaved.totals.tail.max(self.ring.tail()),
            ..self.unsaved.totals
        }
    }

    /// Counts the offsets up to `offset`, which the log does not have.
    pub(super) fn count_gap(&mut self, offset: u64) {
        let from = self.ring.tail();
        let totals = self.totals();
        // What an earlier activation has counted has ended, or is gone with its record.
        let counted = totals.tail.min(offset);
        let known = self.recovery.ended_within(from, counted);
        let never_seen = from.max(counted);
        // Of what nobody has seen, what lay before the log's first record was truncated unread.
        let unread = self.recovery.log_start.clamp(never_seen, offset) - never_seen;
        let totals = &mut self.unsaved.totals;
        totals.lost += counted.saturating_sub(from) - known + unread;
        totals.absent += offset - never_seen - unread;
    }
}
