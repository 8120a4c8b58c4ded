//! The row of a shard: who owns it, and its newest checkpoint.

use bytes::Bytes;
use scheduler_core::id::{CheckpointId, Epoch, NodeId, Offset, ShardId};
use scheduler_core::port::store::{Claimed, PreviousOwner, StoreError};

use super::staged::Staged;
use crate::codec::{Decoder, Encode};
use crate::engine::{Key, Space};
use crate::error::{Corrupt, store_damaged};

const VERSION: u8 = 1;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ShardRow {
    pub(crate) epoch: Epoch,
    /// Who claimed it last.
    node: NodeId,
    /// Whether that owner let go of it.
    pub(crate) released: bool,
    /// The newest checkpoint of this epoch; zero if there is none.
    pub(crate) checkpoint: CheckpointId,
    /// Epochs in a row before this one that vanished without a checkpoint.
    barren_epochs: u32,
    pub(crate) resume: Offset,
    pub(crate) state: Bytes,
}

pub(crate) fn key(shard: ShardId) -> Key {
    Key::bare().shard(shard)
}

impl ShardRow {
    pub(crate) fn load(staged: &Staged<'_>, shard: ShardId) -> Result<Option<Self>, StoreError> {
        let row = staged.get(Space::Shards, &key(shard))?;
        row.map(Self::decode)
            .transpose()
            .map_err(store_damaged(format!("shard {shard}")))
    }

    pub(crate) fn save(&self, staged: &mut Staged<'_>, shard: ShardId) {
        staged.put(Space::Shards, key(shard), self.encode());
    }

    /// The row after a claim of it by `node`, and what the claimer is told.
    pub(crate) fn claim(row: Option<Self>, node: NodeId) -> (Self, Claimed) {
        let (previous, old) = match row {
            None => (PreviousOwner::None, None),
            Some(row) if row.released => (PreviousOwner::Released, Some(row)),
            Some(row) => (PreviousOwner::Vanished, Some(row)),
        };
        let barren_epochs = match (&old, previous) {
            (Some(row), PreviousOwner::Vanished) if row.checkpoint == CheckpointId::default() => {
                // A node that claims again lives: it has not heard the answer to its last claim.
                row.barren_epochs.saturating_add((row.node != node).into())
            }
            _ => 0,
        };
        let (epoch, resume, state) = old.map_or((Epoch(0), Offset::ZERO, Bytes::new()), |row| {
            (row.epoch, row.resume, row.state)
        });
        let row = Self {
            epoch: Epoch(epoch.0.saturating_add(1)),
            node,
            released: false,
            checkpoint: CheckpointId::default(),
            barren_epochs,
            resume,
            state,
        };
        let claimed = Claimed {
            epoch: row.epoch,
            previous,
            resume,
            state: row.state.clone(),
            barren_epochs,
        };
        (row, claimed)
    }

    /// Whether the owner under `epoch` may still write.
    pub(crate) fn is_held_under(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && !self.released
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.state.len() + 64);
        out.byte(VERSION);
        out.number(self.epoch.0.into());
        out.bytes(&self.node.0.to_be_bytes());
        out.byte(self.released.into());
        out.number(self.checkpoint.0);
        out.number(self.barren_epochs.into());
        out.number(self.resume.0);
        out.bytes(&self.state);
        out
    }

    pub(crate) fn decode(value: Bytes) -> Result<Self, Corrupt> {
        let mut from = Decoder::new(value);
        if from.u8()? != VERSION {
            return Err(Corrupt("a shard's row of a known version"));
        }
        let row = Self {
            epoch: Epoch(from.u32()?),
            node: NodeId(u128::from_be_bytes(
                *from.bytes()?.first_chunk().ok_or(Corrupt("a node's number"))?,
            )),
            released: from.bool()?,
            checkpoint: CheckpointId(from.u64()?),
            barren_epochs: from.u32()?,
            resume: Offset(from.u64()?),
            state: from.bytes()?,
        };
        from.end()?;
        Ok(row)
    }
}
