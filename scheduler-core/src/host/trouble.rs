//! What is wrong with partitions.

use super::{Activation, Effects, Host, Waiter};
use crate::codec::DecodeError;
use crate::host::Effect;
use crate::id::{Epoch, Partition};
use crate::time::Timestamp;

/// What is wrong with a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// Its last owners died before they saved anything, and so would we: the shard is left alone.
    Quarantined {
        /// How many of them.
        owners: u32,
    },
    /// Its saved state cannot be read: the shard is left alone.
    Damaged(DecodeError),
    /// What it needs fails, and always will: the shard is left alone.
    Broken(String),
    /// Another owner has taken the shard, by this epoch, though placement says that it is ours: it is claimed again soon.
    Taken(Epoch),
    /// Its log has lost so many records before their time. The shard runs all the same.
    LostRecords(u64),
    /// Its log cannot be read. The shard runs all the same, and takes no new tasks.
    ReadFailed(String),
    /// Its parked tasks cannot be read. The shard runs without them.
    NoParked(String),
}

impl Trouble {
    /// Whether the shard was left alone here, and comes up again if somebody says so.
    pub fn is_left_alone(&self) -> bool {
        matches!(
            self,
            Self::Quarantined { .. } | Self::Damaged(_) | Self::Broken(_)
        )
    }
}

impl<W: Waiter, R: Clone> Host<W, R> {
    /// Brings up again what was left alone for a reason that somebody says is no more. A node that goes down takes nothing up.
    pub fn try_again(&mut self, now: Timestamp, effects: &mut Effects<W, R>) {
        if self.draining {
            return;
        }
        let troubles = self.troubles.iter();
        let left: Vec<Partition> = troubles
            .filter(|(_, trouble)| trouble.is_left_alone())
            .map(|(partition, _)| *partition)
            .collect();
        for partition in left {
            self.begin(now, partition, Activation::insisting, effects);
        }
    }

    /// Shows what is wrong.
    pub(super) fn trouble_with(
        &mut self,
        partition: Partition,
        trouble: Trouble,
        effects: &mut Effects<W, R>,
    ) {
        self.troubles.insert(partition, trouble);
        effects.host.push(Effect::Troubled(partition));
    }
}
