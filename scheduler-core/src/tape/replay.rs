//! The replaying side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{MAGIC, answer_code, digest, input};
use crate::codec::{DecodeError, Reader};
use crate::encoding;
use crate::id::{Epoch, Offset, Partition, PipelineId, ShardId, Tenure};
use crate::shard::{Answer, Input, Output, Shard, ShardConfig};
use crate::time::Timestamp;

/// Why a recording cannot be replayed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It is something else.
    #[error("this is not a recording of a shard, or one of another version")]
    NotATape,
    /// A frame cannot be read.
    #[error("frame {frame} cannot be read: {source}")]
    Damaged {
        /// Which, from 0, which is the beginning.
        frame: u64,
        /// What is wrong.
        source: DecodeError,
    },
    /// Its time goes back.
    #[error("frame {0} is later than time can be")]
    Time(u64),
}

/// One input, and what came of it.
#[derive(Debug)]
pub struct Step {
    /// Which frame, from 1.
    pub frame: u64,
    /// When.
    pub now: Timestamp,
    /// What the shard was told.
    pub input: Input,
    /// What it answers.
    pub answer: Answer,
    /// What it wants done.
    pub outputs: Vec<Output>,
    /// Whether answer and outputs are what they were when this was recorded.
    pub agrees: bool,
}

/// Runs a recording again, step by step. See the [module](super).
#[derive(Debug)]
pub struct Replay {
    shard: Shard,
    now: Timestamp,
    frames: Reader,
    frame: u64,
}

impl Replay {
    /// Begins a replay. A recording that ends in the middle of a frame is one up to there.
    pub fn new(bytes: &Bytes) -> Result<Self, ReplayError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ReplayError::NotATape);
        }
        let mut frames = Reader::new(bytes.slice(MAGIC.len()..));
        let damaged = |source| ReplayError::Damaged { frame: 0, source };
        let (now, config) = frames.bytes().and_then(begin).map_err(damaged)?;
        let shard = Shard::new(now, config).map_err(damaged)?;
        Ok(Self {
            shard,
            now,
            frames,
            frame: 0,
        })
    }

    /// The shard as it is now.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// When the last step was.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    fn step(&mut self, frame: Bytes) -> Result<Step, ReplayError> {
        let at = self.frame;
        let damaged = |source| ReplayError::Damaged { frame: at, source };
        let mut from = Reader::new(frame);
        let since = from.varint().map_err(damaged)?;
        let now = self.now.as_millis().checked_add(since);
        let now = Timestamp::from_millis(now.ok_or(ReplayError::Time(at))?);
        let input = input::take(&mut from).map_err(damaged)?;
        let answered = from.byte().map_err(damaged)?;
        let said = from.take(8).map_err(damaged)?;
        self.now = now;
        let mut outputs = Vec::new();
        let answer = self.shard.handle(now, input.clone(), &mut outputs);
        Ok(Step {
            frame: at,
            now,
            input,
            agrees: answer_code(answer) == answered && digest(&outputs).to_le_bytes() == said[..],
            answer,
            outputs,
        })
    }
}

impl Iterator for Replay {
    type Item = Result<Step, ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A frame that was not written to its end is no frame.
        let frame = self.frames.bytes().ok()?;
        self.frame += 1;
        Some(self.step(frame))
    }
}

fn begin(frame: Bytes) -> Result<(Timestamp, ShardConfig), DecodeError> {
    let mut from = Reader::new(frame);
    let now = Timestamp::from_millis(from.varint()?);
    let shard = ShardId::new(PipelineId(from.number()?), Partition(from.number()?));
    let epoch = Epoch(from.number()?);
    let [resume, log_start, log_end] = [
        Offset(from.varint()?),
        Offset(from.varint()?),
        Offset(from.varint()?),
    ];
    let unclean = encoding::flag(&mut from)?;
    let grace = Duration::from_millis(from.varint()?);
    let state = from.bytes()?;
    let rest = from.remaining();
    let policy = encoding::policy(from.take(rest)?)?;
    let config = ShardConfig {
        tenure: Tenure { shard, epoch },
        policy: Arc::new(policy),
        resume,
        state,
        log_start,
        log_end,
        unclean,
        grace,
    };
    Ok((now, config))
}
