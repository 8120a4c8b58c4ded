//! What a shard saves: the change since the last checkpoint, as one value.

use bytes::Bytes;

use crate::id::{CheckpointId, Offset, Tenure};
use crate::key::SeenKey;
use crate::outcome::{DeadTask, FinishedTask, ParkedTask};
use crate::time::Timestamp;

/// A checkpoint of one shard. A store takes all of it or nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Whose, and by what right.
    pub tenure: Tenure,
    /// Which in the order of this activation.
    pub id: CheckpointId,
    /// When it was made.
    pub made_at: Timestamp,
    /// Where the next activation starts to read: everything before is finished, dead or parked.
    pub resume: Offset,
    /// What is known of the tasks from `resume` on; only a shard reads it.
    pub state: Bytes,
    /// Tasks that have ended since the last checkpoint, in the order in which they did. To be kept until `expire_results`.
    pub finished: Vec<FinishedTask>,
    /// When the store may forget `finished`.
    pub expire_results: Timestamp,
    /// Tasks that have died since the last checkpoint.
    pub dead: Vec<DeadTask>,
    /// When the store may forget `dead`.
    pub expire_dead: Timestamp,
    /// Dead letters that live again; to be applied before `dead`, since one may have died again.
    pub revived: Vec<Offset>,
    /// Idempotency keys that were first seen since the last checkpoint; a row of an older key of the same hash is replaced.
    pub keys: Vec<SeenKey>,
    /// Tasks to keep as parked, replacing what was kept of the same offset.
    pub parked: Vec<ParkedTask>,
    /// Tasks that are no longer parked; none of them is in `parked`.
    pub unparked: Vec<Offset>,
}

impl Checkpoint {
    /// The latest state of the shard without any change of tasks.
    pub fn empty(tenure: Tenure, id: CheckpointId, made_at: Timestamp, resume: Offset) -> Self {
        Self {
            tenure,
            id,
            made_at,
            resume,
            state: Bytes::new(),
            finished: Vec::new(),
            expire_results: Timestamp::MAX,
            dead: Vec::new(),
            expire_dead: Timestamp::MAX,
            revived: Vec::new(),
            keys: Vec::new(),
            parked: Vec::new(),
            unparked: Vec::new(),
        }
    }
}
