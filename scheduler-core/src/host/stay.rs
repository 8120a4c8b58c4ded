//! One stay of a shard on this node, and what those who work for it have to tell it.

use super::durable::{Mark, Waiting};
use super::read::Reader;
use crate::activation::Activation;
use crate::id::{CheckpointId, Epoch, Offset, Partition};
use crate::key::SeenKey;
use crate::outcome::ParkedTask;
use crate::port::log::Bounds;
use crate::port::store::Claimed;
use crate::shard::PageId;
use crate::task::Record;
use crate::time::Timestamp;

/// One stay of a shard on this node. What is said to an earlier stay is not heard by a later one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stay {
    /// Whose.
    pub partition: Partition,
    /// Which.
    pub number: u64,
}

/// What is told to a stay.
#[derive(Debug)]
pub enum Word {
    /// The store's answer to a claim.
    Claimed(Claimed),
    /// The log's bounds, and the idempotency keys that the store has.
    Measured(Bounds, Vec<SeenKey>),
    /// The next records of the log.
    Records(Vec<Record>),
    /// What was to be read is gone: the log begins there now.
    Truncated(Offset),
    /// The log could not be read now; later the same read may succeed.
    ReadLater,
    /// The log cannot be read, and never will be. For people: why.
    ReadFailed(String),
    /// The store has a checkpoint.
    Saved(CheckpointId),
    /// The shard has another owner, by this epoch.
    Fenced(Epoch),
    /// The time of [`Effect::Wake`](super::Effect::Wake) has come.
    Due,
    /// Parked tasks.
    Unpark {
        /// Which page they are.
        page: PageId,
        /// The tasks.
        tasks: Vec<ParkedTask>,
        /// When the next after them is wanted.
        next_wake: Timestamp,
        /// The shard's epoch, as the store had it after they were read.
        epoch: Epoch,
    },
    /// Parked tasks cannot be read, and never will be. For people: why.
    NoParked(String),
    /// What the shard needs fails, and always will. For people: what.
    Broken(String),
}

/// A shard that lives here, or is about to.
#[derive(Debug)]
pub(super) struct Hosted<W, R> {
    pub(super) activation: Activation,
    pub(super) stay: Stay,
    /// Changes with each save.
    pub(super) mark: Mark,
    /// Reads the log for it, while it is to get more.
    pub(super) reader: Option<Reader>,
    /// Whether the log's first records are in.
    pub(super) has_records: bool,
    /// Who waits for which checkpoint.
    pub(super) waiting: Waiting<W>,
    /// Who waits for the release.
    pub(super) released: Vec<R>,
}
