//! A pipeline's policy. Fields are only ever added at the end; bytes that are older than a field have its default.

use std::time::Duration;

use bytes::Bytes;

use super::flag;
use crate::codec::{DecodeError, Reader, put_varint};
use crate::policy::{
    Aging, CheckpointPolicy, PipelinePolicy, Retention, RetryPolicy, Settle, Timeouts, Window,
};

fn put_fraction(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_be_bytes());
}

fn put_duration(out: &mut Vec<u8>, value: Duration) {
    put_varint(out, u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
}

fn put_some_duration(out: &mut Vec<u8>, value: Option<Duration>) {
    out.push(value.is_some().into());
    put_duration(out, value.unwrap_or_default());
}

/// Appends a policy, which takes the rest of what it is in.
pub fn put_policy(out: &mut Vec<u8>, policy: &PipelinePolicy) {
    // Every field is named, so that a new one cannot be forgotten here.
    let PipelinePolicy {
        retry,
        timeouts,
        aging,
        checkpoint,
        window,
        retention,
        settle,
    } = policy;
    let RetryPolicy {
        max_attempts,
        initial_backoff,
        factor,
        max_backoff,
        jitter,
        seed,
    } = retry;
    let Timeouts {
        start,
        run,
        heartbeat,
        total,
    } = timeouts;
    let Aging(aging) = aging;
    let CheckpointPolicy { interval, max_ended } = checkpoint;
    let Window {
        max_tasks,
        max_bytes,
        max_span,
        park_after,
    } = window;
    let Retention { results, dead } = retention;

    put_varint(out, (*max_attempts).into());
    put_duration(out, *initial_backoff);
    put_fraction(out, *factor);
    put_duration(out, *max_backoff);
    put_fraction(out, *jitter);
    put_varint(out, *seed);
    put_some_duration(out, *start);
    put_duration(out, *run);
    put_duration(out, *heartbeat);
    put_some_duration(out, *total);
    put_duration(out, *aging);
    put_duration(out, *interval);
    put_varint(out, (*max_ended).into());
    put_varint(out, (*max_tasks).into());
    put_varint(out, *max_bytes as u64);
    put_varint(out, (*max_span).into());
    put_duration(out, *park_after);
    put_duration(out, *results);
    put_duration(out, *dead);
    out.push(match settle {
        Settle::Checkpoint => 0,
        Settle::Commit => 1,
    });
}

/// Takes the fields of a policy one by one, and defaults once they are used up.
struct Fields(Reader);

impl Fields {
    fn take<T>(
        &mut self,
        into: &mut T,
        read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.0.is_empty() {
            *into = read(&mut self.0)?;
        }
        Ok(())
    }

    fn number<T: TryFrom<u64>>(&mut self, into: &mut T) -> Result<(), DecodeError> {
        self.take(into, Reader::number)
    }

    fn fraction(&mut self, into: &mut f64) -> Result<(), DecodeError> {
        self.take(into, |from| {
            let bits = from.take(8)?;
            let bits = bits
                .first_chunk()
                .ok_or_else(|| from.error("a fraction is too short"))?;
            Ok(f64::from_bits(u64::from_be_bytes(*bits)))
        })
    }

    fn duration(&mut self, into: &mut Duration) -> Result<(), DecodeError> {
        self.take(into, |from| from.varint().map(Duration::from_nanos))
    }

    fn some_duration(&mut self, into: &mut Option<Duration>) -> Result<(), DecodeError> {
        self.take(into, |from| {
            let is_there = flag(from)?;
            let value = Duration::from_nanos(from.varint()?);
            Ok(is_there.then_some(value))
        })
    }
}

/// The inverse of [`put_policy`].
pub fn policy(bytes: Bytes) -> Result<PipelinePolicy, DecodeError> {
    let mut policy = PipelinePolicy::default();
    let mut from = Fields(Reader::new(bytes));
    let PipelinePolicy {
        retry,
        timeouts,
        aging,
        checkpoint,
        window,
        retention,
        settle,
    } = &mut policy;
    from.number(&mut retry.max_attempts)?;
    from.duration(&mut retry.initial_backoff)?;
    from.fraction(&mut retry.factor)?;
    from.duration(&mut retry.max_backoff)?;
    from.fraction(&mut retry.jitter)?;
    from.number(&mut retry.seed)?;
    from.some_duration(&mut timeouts.start)?;
    from.duration(&mut timeouts.run)?;
    from.duration(&mut timeouts.heartbeat)?;
    from.some_duration(&mut timeouts.total)?;
    from.duration(&mut aging.0)?;
    from.duration(&mut checkpoint.interval)?;
    from.number(&mut checkpoint.max_ended)?;
    from.number(&mut window.max_tasks)?;
    from.number(&mut window.max_bytes)?;
    from.number(&mut window.max_span)?;
    from.duration(&mut window.park_after)?;
    from.duration(&mut retention.results)?;
    from.duration(&mut retention.dead)?;
    from.take(settle, |from| match from.byte()? {
        0 => Ok(Settle::Checkpoint),
        1 => Ok(Settle::Commit),
        _ => Err(from.error("when reports are settled is unknown")),
    })?;
    if from.0.is_empty() {
        Ok(policy)
    } else {
        Err(from.0.error("there are bytes after the last field of the policy"))
    }
}
