//! How a pipeline's row is written.

use bytes::Bytes;
use scheduler_core::encoding;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
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
    encoding::put_policy(&mut out, policy);
    out
}

pub(crate) fn decode_pipeline(value: Bytes) -> Result<Pipeline, Corrupt> {
    let mut from = Decoder::new(value);
    if from.u8()? != VERSION {
        return Err(Corrupt("a pipeline's row of a known version"));
    }
    Ok(Pipeline {
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
        policy: encoding::policy(from.rest()).map_err(|_| Corrupt("a policy"))?,
    })
}
