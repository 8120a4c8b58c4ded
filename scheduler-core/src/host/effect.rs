//! What a host wants done.

use std::time::Duration;

use super::Stay;
use crate::id::{Offset, Partition, Tenure};
use crate::pipeline;
use crate::port::log::ReadLimit;
use crate::time::Timestamp;

/// What is to be done, in two buffers of the caller: what has to do with the life of shards is done first, at once after each call; what the
/// pipeline says, at the end of a turn.
///
/// What the pipeline wants of log and store ([`pipeline::Effect::Save`], [`pipeline::Effect::LoadParked`]) is done for the [stay of the
/// shard](super::Host::stay_of), and not at all if it does not run here any more.
#[derive(Debug)]
pub struct Effects<W, R> {
    /// Of the host.
    pub host: Vec<Effect<W, R>>,
    /// Of the pipeline.
    pub pipeline: Vec<pipeline::Effect>,
}

impl<W, R> Default for Effects<W, R> {
    fn default() -> Self {
        Self {
            host: Vec::new(),
            pipeline: Vec::new(),
        }
    }
}

/// Something that a host wants done. What takes time is done for a [`Stay`], and given up when that is [over](Effect::Over).
#[derive(Debug)]
pub enum Effect<W, R> {
    /// Claim the shard in the store, then say [`Word::Claimed`](super::Word::Claimed).
    Claim(Stay),
    /// Find the bounds of its log and load its idempotency keys, then say [`Word::Measured`](super::Word::Measured).
    Measure(Stay),
    /// Say [`Word::Due`](super::Word::Due) then.
    Wake(Stay, Timestamp),
    /// The shard runs.
    Active {
        /// Which stay.
        stay: Stay,
        /// By what right.
        tenure: Tenure,
        /// Where its reader begins.
        from: Offset,
        /// How many records its log had lost before their time.
        missing: u64,
    },
    /// Read so much of the shard's log and say [`Word::Records`](super::Word::Records), [`Word::Truncated`](super::Word::Truncated),
    /// [`Word::ReadLater`](super::Word::ReadLater) or [`Word::ReadFailed`](super::Word::ReadFailed). No other read of the stay is under way.
    Read {
        /// For which stay.
        stay: Stay,
        /// From where.
        from: Offset,
        /// How much at most.
        limit: ReadLimit,
        /// How long to leave the log alone before.
        pause: Duration,
    },
    /// Read no more for it; what comes of a read under way is not wanted.
    StopReading(Stay),
    /// Release the tenure in the store, then answer those who wait for it. The stay is over.
    Release {
        /// Which stay.
        stay: Stay,
        /// What is released.
        tenure: Tenure,
        /// Who waits for it.
        waiting: Vec<R>,
    },
    /// Whatever is done for this stay is wanted no more.
    Over(Stay),
    /// Nothing of the shard is here, and nothing is to be released: answer those who have waited for it.
    LetGo(Partition, Vec<R>),
    /// What somebody has waited for is saved.
    Saved(W),
    /// A shard runs here no more, if it did: who looks for it is to look elsewhere.
    Left {
        /// Which.
        partition: Partition,
        /// By what right it ran, and one past the last record that it had taken.
        ran: Option<(Tenure, Offset)>,
    },
    /// Something is [wrong](super::Host::trouble) with a partition.
    Troubled(Partition),
    /// Tell all sessions to go away, and answer polls that wait: there will be nothing.
    GoAway,
}
