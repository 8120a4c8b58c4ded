//! How a pipeline's row is written.
//!
//! Fields are only ever added at the end of the policy; a row that is older than a field has its default.

use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::policy::{
    Aging, CheckpointPolicy, PipelinePolicy, Retention, RetryPolicy, Timeouts, Window,
};
use scheduler_core::port::catalog::{Deployment, Pipeline, Replicas};

use crate::codec::{Decoder, Encode};
use crate::error::Corrupt;

const VERSION: u8 = 1;

pub(crate) fn decode_name(from: &mut Decoder) -> Result<Name, Corrupt> {
    from.text()?.parse().map_err(|_| Corrupt("a name"))
}

pub(crate) fn encode_pipeline(pipeline: &Pipeline) -> Vec<u8> {
    let Pipeline {
        id,
        path,
        version,
        created_at,
        partitions,
        policy,
        paused,
        definition,
        deployment,
        deleting,
    } = pipeline;
    let mut out = Vec::new();
    out.byte(VERSION);
    out.number(id.0.into());
    for name in [&path.client, &path.application, &path.pipeline] {
        out.bytes(name.as_str().as_bytes());
    }
    out.number(*version);
    out.timestamp(*created_at);
    out.number((*partitions).into());
    out.byte((*paused).into());
    out.byte((*deleting).into());
    out.bytes(definition);
    match deployment {
        None => out.byte(0),
        Some(Deployment {
            chart,
            values,
            replicas: Replicas { min, max },
        }) => {
            out.byte(1);
            out.bytes(chart.as_bytes());
            out.bytes(values);
            out.number((*min).into());
            out.number((*max).into());
        }
    }
    out.bytes(&encode_policy(policy));
    out
}

pub(crate) fn decode_pipeline(value: Bytes) -> Result<Pipeline, Corrupt> {
    let mut from = Decoder::new(value);
    if from.u8()? != VERSION {
        return Err(Corrupt("a pipeline's row of a known version"));
    }
    let pipeline = Pipeline {
        id: PipelineId(from.u32()?),
        path: PipelinePath {
            client: decode_name(&mut from)?,
            application: decode_name(&mut from)?,
            pipeline: decode_name(&mut from)?,
        },
        version: from.u64()?,
        created_at: from.timestamp()?,
        partitions: from.u32()?,
        paused: from.bool()?,
        deleting: from.bool()?,
        definition: from.bytes()?,
        deployment: if from.bool()? {
            Some(Deployment {
                chart: from.text()?,
                values: from.bytes()?,
                replicas: Replicas {
                    min: from.u32()?,
                    max: from.u32()?,
                },
            })
        } else {
            None
        },
        policy: decode_policy(from.bytes()?)?,
    };
    from.end()?;
    Ok(pipeline)
}

/// Adds the fields of a policy one by one.
struct PolicyWriter(Vec<u8>);

impl PolicyWriter {
    fn number(&mut self, value: u64) {
        self.0.number(value);
    }

    fn fraction(&mut self, value: f64) {
        self.0.bytes(&value.to_bits().to_be_bytes());
    }

    fn duration(&mut self, value: Duration) {
        self.0.number(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    fn some_duration(&mut self, value: Option<Duration>) {
        self.0.byte(value.is_some().into());
        self.duration(value.unwrap_or_default());
    }
}

fn encode_policy(policy: &PipelinePolicy) -> Vec<u8> {
    // Every field is named, so that a new one cannot be forgotten here.
    let PipelinePolicy {
        retry,
        timeouts,
        aging,
        checkpoint,
        window,
        retention,
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

    let mut out = PolicyWriter(Vec::new());
    out.number((*max_attempts).into());
    out.duration(*initial_backoff);
    out.fraction(*factor);
    out.duration(*max_backoff);
    out.fraction(*jitter);
    out.number(*seed);
    out.some_duration(*start);
    out.duration(*run);
    out.duration(*heartbeat);
    out.some_duration(*total);
    out.duration(*aging);
    out.duration(*interval);
    out.number((*max_ended).into());
    out.number((*max_tasks).into());
    out.number(*max_bytes as u64);
    out.number((*max_span).into());
    out.duration(*park_after);
    out.duration(*results);
    out.duration(*dead);
    out.0
}

/// Takes the fields of a policy one by one, and defaults once they are used up.
struct PolicyReader(Decoder);

impl PolicyReader {
    fn take<T>(
        &mut self,
        into: &mut T,
        read: impl FnOnce(&mut Decoder) -> Result<T, Corrupt>,
    ) -> Result<(), Corrupt> {
        if !self.0.is_empty() {
            *into = read(&mut self.0)?;
        }
        Ok(())
    }

    fn fraction(&mut self, into: &mut f64) -> Result<(), Corrupt> {
        self.take(into, |from| {
            let bits = from.bytes()?;
            Ok(f64::from_bits(u64::from_be_bytes(
                *bits.first_chunk().ok_or(Corrupt("a fraction"))?,
            )))
        })
    }

    fn duration(&mut self, into: &mut Duration) -> Result<(), Corrupt> {
        self.take(into, |from| from.u64().map(Duration::from_nanos))
    }

    fn some_duration(&mut self, into: &mut Option<Duration>) -> Result<(), Corrupt> {
        self.take(into, |from| {
            let there = from.bool()?;
            let value = Duration::from_nanos(from.u64()?);
            Ok(there.then_some(value))
        })
    }
}

fn decode_policy(value: Bytes) -> Result<PipelinePolicy, Corrupt> {
    let mut policy = PipelinePolicy::default();
    let mut from = PolicyReader(Decoder::new(value));
    let PipelinePolicy {
        retry,
        timeouts,
        aging,
        checkpoint,
        window,
        retention,
    } = &mut policy;
    from.take(&mut retry.max_attempts, Decoder::u32)?;
    from.duration(&mut retry.initial_backoff)?;
    from.fraction(&mut retry.factor)?;
    from.duration(&mut retry.max_backoff)?;
    from.fraction(&mut retry.jitter)?;
    from.take(&mut retry.seed, Decoder::u64)?;
    from.some_duration(&mut timeouts.start)?;
    from.duration(&mut timeouts.run)?;
    from.duration(&mut timeouts.heartbeat)?;
    from.some_duration(&mut timeouts.total)?;
    from.duration(&mut aging.0)?;
    from.duration(&mut checkpoint.interval)?;
    from.take(&mut checkpoint.max_ended, Decoder::u32)?;
    from.take(&mut window.max_tasks, Decoder::u32)?;
    from.take(&mut window.max_bytes, |from| {
        usize::try_from(from.u64()?).map_err(|_| Corrupt("a size that this machine can hold"))
    })?;
    from.take(&mut window.max_span, Decoder::u32)?;
    from.duration(&mut window.park_after)?;
    from.duration(&mut retention.results)?;
    from.duration(&mut retention.dead)?;
    from.0.end()?;
    Ok(policy)
}
