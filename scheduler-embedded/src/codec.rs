//! How values become bytes: variable-length integers, length-prefixed bytes, and the core's types made of them.
//!
//! Every decoder takes any bytes and answers a value or [`Corrupt`]; it allocates no more than the bytes at hand justify.

use bytes::{Buf, Bytes};
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::outcome::{DeadReason, DeadTask, Ending, FinishedTask, ParkedTask};
use scheduler_core::task::{Priority, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

use crate::error::Corrupt;

/// Takes values off the front of some bytes.
#[derive(Debug)]
pub(crate) struct Decoder {
    rest: Bytes,
}

impl Decoder {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Corrupt> {
        if self.rest.is_empty() {
            return Err(Corrupt("a byte"));
        }
        Ok(self.rest.get_u8())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest.advance(at + 1);
                return Ok(value);
            }
        }
        Err(Corrupt("a number"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Corrupt> {
        u32::try_from(self.u64()?).map_err(|_| Corrupt("a number of 32 bits"))
    }

    fn len(&mut self) -> Result<usize, Corrupt> {
        let len = usize::try_from(self.u64()?).map_err(|_| Corrupt("a length"))?;
        if len > self.rest.len() {
            Err(Corrupt("as many bytes as announced"))
        } else {
            Ok(len)
        }
    }

    /// Length-prefixed bytes, sharing the memory that is decoded.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Corrupt> {
        let len = self.len()?;
        Ok(self.rest.split_to(len))
    }

    /// Length-prefixed bytes in memory of their own, unless they are a good part of `whole`, which sharing would keep alive.
    pub(crate) fn own_bytes(&mut self, whole: usize) -> Result<Bytes, Corrupt> {
        let len = self.len()?;
        if len >= whole / 4 {
            return Ok(self.rest.split_to(len));
        }
        let own = Bytes::copy_from_slice(&self.rest[..len]);
        self.rest.advance(len);
        Ok(own)
    }

    pub(crate) fn text(&mut self) -> Result<String, Corrupt> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| Corrupt("UTF-8"))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Corrupt> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt("a yes or no")),
        }
    }

    pub(crate) fn timestamp(&mut self) -> Result<Timestamp, Corrupt> {
        self.u64().map(Timestamp::from_millis)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), Corrupt> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Corrupt("the end of the value"))
        }
    }
}

/// Puts values behind some bytes.
pub(crate) trait Encode {
    fn raw(&mut self, bytes: &[u8]);

    fn byte(&mut self, value: u8) {
        self.raw(&[value]);
    }

    fn number(&mut self, mut value: u64) {
        let mut text = [0u8; 10];
        let mut len = 0;
        loop {
            // The mask leaves seven bits.
            text[len] = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                break;
            }
            text[len] |= 0x80;
            len += 1;
        }
        self.raw(&text[..=len]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    fn timestamp(&mut self, value: Timestamp) {
        self.number(value.as_millis());
    }
}

impl Encode for Vec<u8> {
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn byte(&mut self, value: u8) {
        self.push(value);
    }
}

const HAS_OPTIONS: u8 = 0x10;
const PRIORITY: u8 = 0x0f;

const NOT_BEFORE: u8 = 1;
const DEADLINE: u8 = 2;
const IDEMPOTENCY_KEY: u8 = 4;
const TRACEPARENT: u8 = 8;

pub(crate) fn encode_spec(out: &mut Vec<u8>, spec: &TaskSpec) {
    let Some(options) = &spec.options else {
        out.byte(spec.priority.level());
        out.bytes(&spec.params);
        return;
    };
    out.byte(spec.priority.level() | HAS_OPTIONS);
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.byte(
        flag(options.not_before.is_some(), NOT_BEFORE)
            | flag(options.deadline.is_some(), DEADLINE)
            | flag(options.idempotency_key.is_some(), IDEMPOTENCY_KEY)
            | flag(options.traceparent.is_some(), TRACEPARENT),
    );
    for moment in [options.not_before, options.deadline].into_iter().flatten() {
        out.timestamp(moment);
    }
    for bytes in [&options.idempotency_key, &options.traceparent]
        .into_iter()
        .flatten()
    {
        out.bytes(bytes);
    }
    out.bytes(&spec.params);
}

/// `whole` is the size of the buffer that is decoded; see [`Decoder::own_bytes`].
pub(crate) fn decode_spec(from: &mut Decoder, whole: usize) -> Result<TaskSpec, Corrupt> {
    let head = from.u8()?;
    if head & !(HAS_OPTIONS | PRIORITY) != 0 {
        return Err(Corrupt("a task's head"));
    }
    let priority = Priority::new(head & PRIORITY).ok_or(Corrupt("a priority from 0 to 9"))?;
    let options = if head & HAS_OPTIONS == 0 {
        None
    } else {
        let flags = from.u8()?;
        if flags & !(NOT_BEFORE | DEADLINE | IDEMPOTENCY_KEY | TRACEPARENT) != 0 {
            return Err(Corrupt("a task's options"));
        }
        let mut options = TaskOptions::default();
        if flags & NOT_BEFORE != 0 {
            options.not_before = Some(from.timestamp()?);
        }
        if flags & DEADLINE != 0 {
            options.deadline = Some(from.timestamp()?);
        }
        if flags & IDEMPOTENCY_KEY != 0 {
            options.idempotency_key = Some(from.own_bytes(whole)?);
        }
        if flags & TRACEPARENT != 0 {
            options.traceparent = Some(from.own_bytes(whole)?);
        }
        Some(Box::new(options))
    };
    Ok(TaskSpec {
        params: from.own_bytes(whole)?,
        priority,
        options,
    })
}

pub(crate) fn encode_finished(out: &mut Vec<u8>, task: &FinishedTask) {
    out.number(task.offset.0);
    out.byte(match task.ending {
        Ending::Succeeded => 0,
        Ending::Cancelled => 1,
        Ending::Expired => 2,
        Ending::Duplicate => 3,
    });
    out.number(task.attempts.0.into());
    out.timestamp(task.submitted_at);
    out.timestamp(task.started_at);
    out.timestamp(task.finished_at);
    out.bytes(&task.output);
}

pub(crate) fn decode_finished(from: &mut Decoder) -> Result<FinishedTask, Corrupt> {
    Ok(FinishedTask {
        offset: Offset(from.u64()?),
        ending: match from.u8()? {
            0 => Ending::Succeeded,
            1 => Ending::Cancelled,
            2 => Ending::Expired,
            3 => Ending::Duplicate,
            _ => return Err(Corrupt("how a task ended")),
        },
        attempts: Attempt(from.u32()?),
        submitted_at: from.timestamp()?,
        started_at: from.timestamp()?,
        finished_at: from.timestamp()?,
        output: from.bytes()?,
    })
}

pub(crate) fn encode_dead(out: &mut Vec<u8>, task: &DeadTask) {
    out.number(task.offset.0);
    out.byte(match task.reason {
        DeadReason::AttemptsExhausted => 0,
        DeadReason::Rejected => 1,
        DeadReason::Undecodable => 2,
    });
    out.bytes(task.error.as_bytes());
    out.number(task.attempts.0.into());
    out.timestamp(task.submitted_at);
    out.timestamp(task.died_at);
    encode_spec(out, &task.spec);
}

pub(crate) fn decode_dead(from: &mut Decoder, whole: usize) -> Result<DeadTask, Corrupt> {
    Ok(DeadTask {
        offset: Offset(from.u64()?),
        reason: match from.u8()? {
            0 => DeadReason::AttemptsExhausted,
            1 => DeadReason::Rejected,
            2 => DeadReason::Undecodable,
            _ => return Err(Corrupt("why a task died")),
        },
        error: from.text()?,
        attempts: Attempt(from.u32()?),
        submitted_at: from.timestamp()?,
        died_at: from.timestamp()?,
        spec: decode_spec(from, whole)?,
    })
}

pub(crate) fn encode_parked(out: &mut Vec<u8>, task: &ParkedTask) {
    out.number(task.offset.0);
    out.timestamp(task.wake_at);
    out.number(task.attempts.0.into());
    out.number(task.forgiven.into());
    out.timestamp(task.submitted_at);
    encode_spec(out, &task.spec);
}

pub(crate) fn decode_parked(from: &mut Decoder, whole: usize) -> Result<ParkedTask, Corrupt> {
    Ok(ParkedTask {
        offset: Offset(from.u64()?),
        wake_at: from.timestamp()?,
        attempts: Attempt(from.u32()?),
        forgiven: u16::try_from(from.u32()?).map_err(|_| Corrupt("a number of 16 bits"))?,
        submitted_at: from.timestamp()?,
        spec: decode_spec(from, whole)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scheduler_testkit::strategy;

    use super::*;

    fn back<T>(
        encode: impl Fn(&mut Vec<u8>),
        decode: impl Fn(&mut Decoder, usize) -> Result<T, Corrupt>,
    ) -> Result<T, Corrupt> {
        let mut out = Vec::new();
        encode(&mut out);
        let whole = out.len();
        let mut decoder = Decoder::new(out.into());
        let value = decode(&mut decoder, whole)?;
        decoder.end()?;
        Ok(value)
    }

    proptest! {
        #[test]
        fn a_number_survives(value: u64) {
            prop_assert_eq!(back(|out| out.number(value), |from, _| from.u64()), Ok(value));
        }

        #[test]
        fn a_spec_survives(spec in strategy::task_spec()) {
            prop_assert_eq!(back(|out| encode_spec(out, &spec), decode_spec), Ok(spec));
        }

        #[test]
        fn a_finished_task_survives(task in strategy::finished_task()) {
            prop_assert_eq!(back(|out| encode_finished(out, &task), |from, _| decode_finished(from)), Ok(task));
        }

        #[test]
        fn a_dead_task_survives(task in strategy::dead_task()) {
            prop_assert_eq!(back(|out| encode_dead(out, &task), decode_dead), Ok(task));
        }

        #[test]
        fn a_parked_task_survives(task in strategy::parked_task()) {
            prop_assert_eq!(back(|out| encode_parked(out, &task), decode_parked), Ok(task));
        }

        #[test]
        fn no_bytes_break_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let whole = bytes.len();
            let decoder = || Decoder::new(bytes.clone().into());
            let _ = decode_spec(&mut decoder(), whole);
            let _ = decode_finished(&mut decoder());
            let _ = decode_dead(&mut decoder(), whole);
            let _ = decode_parked(&mut decoder(), whole);
        }
    }
}
