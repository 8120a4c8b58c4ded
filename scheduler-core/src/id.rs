//! Identifiers. Each is a type of its own, so that one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

/// The number of a pipeline. Numbers are given out by the catalog and never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PipelineId(pub u32);

/// The number of a partition of a pipeline's log, from 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Partition(pub u32);

/// Where a record lies in its partition, from 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A shard: the scheduler of one partition of one pipeline.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId {
    /// Whose log.
    pub pipeline: PipelineId,
    /// Which part of it.
    pub partition: Partition,
}

impl ShardId {
    /// The shard of `partition` of `pipeline`.
    pub const fn new(pipeline: PipelineId, partition: Partition) -> Self {
        Self { pipeline, partition }
    }

    /// The task at `offset` of this shard's log.
    pub const fn task(self, offset: Offset) -> TaskId {
        TaskId { shard: self, offset }
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pipeline.0, self.partition.0)
    }
}

/// The name of a task: the place in the log where it lies.
///
/// Its text form is URL-safe: `t` and three lower-case base-32 numbers joined by `-`, e.g. `t1-0-2f`.
/// Because pipeline numbers are never reused, an id names one task for ever, and no row is written to find it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TaskId {
    /// The shard whose log holds it.
    pub shard: ShardId,
    /// Where in that log.
    pub offset: Offset,
}

/// Crockford's alphabet: no i, l, o, u, so that ids survive being read aloud.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn write_base32(f: &mut fmt::Formatter<'_>, mut value: u64) -> fmt::Result {
    let mut text = [b'0'; 13];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = DIGITS[(value % 32) as usize];
        value /= 32;
        if value == 0 {
            break;
        }
    }
    f.write_str(std::str::from_utf8(&text[at..]).map_err(|_| fmt::Error)?)
}

fn parse_base32(text: &str) -> Option<u64> {
    if text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.bytes().try_fold(0u64, |value, byte| {
        let digit = DIGITS.iter().position(|&d| d == byte)?;
        value.checked_mul(32)?.checked_add(digit as u64)
    })
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("t")?;
        write_base32(f, self.shard.pipeline.0.into())?;
        f.write_str("-")?;
        write_base32(f, self.shard.partition.0.into())?;
        f.write_str("-")?;
        write_base32(f, self.offset.0)
    }
}

/// A text that is not the id of a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a task id: expected the form t1-0-2f, as the answer to a submission gave it")]
pub struct ParseTaskIdError;

impl FromStr for TaskId {
    type Err = ParseTaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.strip_prefix('t').ok_or(ParseTaskIdError)?.split('-');
        let mut number = || parts.next().and_then(parse_base32).ok_or(ParseTaskIdError);
        let pipeline = u32::try_from(number()?).map_err(|_| ParseTaskIdError)?;
        let partition = u32::try_from(number()?).map_err(|_| ParseTaskIdError)?;
        let offset = number()?;
        if parts.next().is_some() {
            return Err(ParseTaskIdError);
        }
        Ok(ShardId::new(PipelineId(pipeline), Partition(partition)).task(Offset(offset)))
    }
}

/// The order of a shard's activations. Whoever writes under an older epoch has been replaced.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(pub u32);

/// The order of a task's tries, from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attempt(pub u32);

/// What a worker must show to speak for an attempt: unique for a task, for ever.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseToken {
    /// The activation that granted the lease.
    pub epoch: Epoch,
    /// The attempt it granted.
    pub attempt: Attempt,
}

/// The right to write for a shard: which shard, and by which of its activations.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tenure {
    /// The shard.
    pub shard: ShardId,
    /// Its activation.
    pub epoch: Epoch,
}

/// A worker process: chosen at random by the worker when it starts, and kept over reconnects.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkerId(pub u128);

/// The order of the checkpoints of one activation, from 1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CheckpointId(pub u64);

impl CheckpointId {
    /// The checkpoint after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A scheduler process: chosen at random when it starts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub u128);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checkpoints_are_counted() {
        assert_eq!(CheckpointId(1).next(), CheckpointId(2));
    }

    proptest! {
        #[test]
        fn an_id_survives_its_text(pipeline: u32, partition: u32, offset: u64) {
            let id = ShardId::new(PipelineId(pipeline), Partition(partition)).task(Offset(offset));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn an_id_has_one_text(text in "t[0-9a-z]{1,3}-[0-9a-z]{1,3}-[0-9a-z]{1,3}") {
            if let Ok(id) = text.parse::<TaskId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "t",
            "t1",
            "t1-0",
            "t1-0-",
            "t1-0-1-1",
            "x1-0-1",
            "t1-0-I",
            "t1-0-zzzzzzzzzzzzzzzz",
            "t01-0-1",
        ] {
            assert_eq!(text.parse::<TaskId>(), Err(ParseTaskIdError), "{text}");
        }
    }
}
