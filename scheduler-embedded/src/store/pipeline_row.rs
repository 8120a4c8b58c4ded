//! How a pipeline's row is written.

use bytes::Bytes;
use scheduler_core::encoding;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{Deployment, Pipeline, Replicas};

use crate::codec::{Decoder, Encode};
use crate::error::Corrupt;

/// Before it, keys lay in as many partitions as there were.
const WITHOUT_KEYS: u8 = 1;
const VERSION: u8 = 2;

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
        key_partitions,
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
    out.number((*key_partitions).into());
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
    let row_version = from.u8()?;
    if !(WITHOUT_KEYS..=VERSION).contains(&row_version) {
        return Err(Corrupt("a pipeline's row of a known version"));
    }
    let id = PipelineId(from.u32()?);
    let path = PipelinePath {
        client: decode_name(&mut from)?,
        application: decode_name(&mut from)?,
        pipeline: decode_name(&mut from)?,
    };
    let version = from.u64()?;
    let created_at = from.timestamp()?;
    let partitions = from.u32()?;
    Ok(Pipeline {
        id,
        path,
        version,
        created_at,
        partitions,
        key_partitions: if row_version == WITHOUT_KEYS {
            partitions
        } else {
            from.u32()?
        },
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

#[cfg(test)]
mod tests {
    use scheduler_core::policy::PipelinePolicy;

    use super::*;

    #[test]
    fn keys_of_a_pipeline_that_was_kept_before_lie_in_all_the_partitions_that_it_had() {
        let mut row = Vec::new();
        row.byte(WITHOUT_KEYS);
        row.number(7);
        for name in ["acme", "docs", "ocr"] {
            row.bytes(name.as_bytes());
        }
        row.number(3);
        row.timestamp(scheduler_core::time::Timestamp::from_millis(11));
        row.number(5);
        row.byte(0);
        row.byte(0);
        row.bytes(b"{}");
        row.byte(0);
        encoding::put_policy(&mut row, &PipelinePolicy::default());
        let pipeline = decode_pipeline(row.into()).unwrap();
        assert_eq!((pipeline.partitions, pipeline.key_partitions), (5, 5));
        assert_eq!(pipeline.definition, "{}");
        assert_eq!(
            decode_pipeline(encode_pipeline(&pipeline).into()).unwrap(),
            pipeline
        );
    }
}
