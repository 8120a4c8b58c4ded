//! How a pipeline's row is written.

use bytes::Bytes;
use scheduler_core::encoding;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{Deployment, Pipeline, Replicas};
use scheduler_core::port::log::TopicSettings;

use crate::codec::{Decoder, Encode};
use crate::error::Corrupt;

/// Before it keys lay in as many partitions as there were.
const WITH_KEYS: u8 = 2;
/// Before it nothing was asked of topics.
const WITH_TOPIC: u8 = 3;
const VERSION: u8 = WITH_TOPIC;

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
        topic,
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
    let mut asked = Vec::new();
    encoding::put_topic_settings(&mut asked, topic);
    out.bytes(&asked);
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
    if !(1..=VERSION).contains(&row_version) {
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
        key_partitions: if row_version >= WITH_KEYS {
            from.u32()?
        } else {
            partitions
        },
        topic: if row_version >= WITH_TOPIC {
            encoding::topic_settings(from.bytes()?).map_err(|_| Corrupt("what was asked of a topic"))?
        } else {
            TopicSettings::default()
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

    /// A row as a version before has written it.
    fn row(version: u8) -> Bytes {
        let mut row = Vec::new();
        row.byte(version);
        row.number(7);
        for name in ["acme", "docs", "ocr"] {
            row.bytes(name.as_bytes());
        }
        row.number(3);
        row.timestamp(scheduler_core::time::Timestamp::from_millis(11));
        row.number(5);
        if version >= WITH_KEYS {
            row.number(2);
        }
        row.byte(0);
        row.byte(0);
        row.bytes(b"{}");
        row.byte(0);
        encoding::put_policy(&mut row, &PipelinePolicy::default());
        row.into()
    }

    #[test]
    fn rows_of_versions_before_are_read() {
        // Keys lie in all the partitions that a pipeline had when nobody counted those of keys.
        for (version, key_partitions) in [(1, 5), (2, 2)] {
            let pipeline = decode_pipeline(row(version)).unwrap();
            assert_eq!(
                (pipeline.partitions, pipeline.key_partitions),
                (5, key_partitions)
            );
            assert_eq!(pipeline.topic, TopicSettings::default());
            assert_eq!(pipeline.definition, "{}");
            let written = encode_pipeline(&pipeline);
            assert_eq!(decode_pipeline(written.into()).unwrap(), pipeline);
        }
    }
}
