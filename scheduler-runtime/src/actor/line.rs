//! What those who work for one shard (the forwarder, the checkpointer, calls of the store) have to tell it.

use scheduler_core::id::{CheckpointId, Epoch, Offset, Partition};
use scheduler_core::key::SeenKey;
use scheduler_core::outcome::ParkedTask;
use scheduler_core::port::log::{Bounds, LogError};
use scheduler_core::port::store::Claimed;
use scheduler_core::shard::PageId;
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;

use super::{Mailbox, Message};

/// One stay of a shard on this node. What is said to an earlier stay is not heard by a later one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stay(pub(super) u64);

/// The way to one stay of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(super) mailbox: Mailbox,
    pub(super) partition: Partition,
    pub(super) stay: Stay,
}

impl Line {
    /// Tells it, waiting for room. Answers whether there is an actor to hear it.
    pub(crate) async fn tell(&self, word: Word) -> bool {
        self.mailbox
            .tell(Message::Shard(self.partition, self.stay, word))
            .await
    }
}

/// What is told.
#[derive(Debug)]
pub(crate) enum Word {
    /// The store's answer to a claim.
    Claimed(Claimed),
    /// The log's bounds, and the idempotency keys that the store has.
    Measured(Bounds, Vec<SeenKey>),
    /// The forwarder's next records.
    Records(Vec<Record>),
    /// The log has lost so many records before their time, and begins there now.
    Missing(u64, Offset),
    /// The forwarder cannot go on; it has ended.
    ReadFailed(LogError),
    /// The store has a checkpoint.
    Saved(CheckpointId),
    /// The shard has another owner.
    Fenced(Epoch),
    /// The time has come to claim it again.
    Due,
    /// Parked tasks, and when the next after them is wanted.
    Unpark(PageId, Vec<ParkedTask>, Timestamp),
    /// Parked tasks cannot be read, and never will be.
    NoParked(String),
    /// What the shard needs fails, and always will.
    Broken(String),
}
