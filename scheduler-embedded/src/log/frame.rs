//! Frames: what the log is made of. A frame holds consecutive records of one partition that were written together.
//!
//! ```text
//! magic u32 | crc32 u32 | body length u32 | count u32 | pipeline u32 | partition u32 |
//! first offset u64 | appended at u64 | write u64 | body
//! ```
//! All little-endian. The checksum covers everything after itself. `write` is twice the number of the group commit that wrote
//! the frame, plus one in its last frame: so after a crash a torn tail can be told from damage to what was durable.

use bytes::Bytes;
use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

use crate::codec::{Decoder, decode_spec, encode_spec};
use crate::error::Corrupt;

pub(crate) const HEADER: usize = 48;
/// Past this many bytes of records, a new frame is begun.
pub(crate) const TARGET_BODY: usize = 64 << 10;
pub(crate) const MAGIC: [u8; 4] = *b"wsf\x01";

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FrameHeader {
    pub(crate) crc: u32,
    pub(crate) body_len: usize,
    pub(crate) count: u32,
    pub(crate) shard: ShardId,
    pub(crate) first: u64,
    pub(crate) appended_at: Timestamp,
    pub(crate) write: u64,
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl FrameHeader {
    /// Reads the header at the front of `bytes`; the checksum is still to be checked.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Corrupt> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Corrupt("the header of a frame"))?;
        if header[..4] != MAGIC {
            return Err(Corrupt("the beginning of a frame"));
        }
        Ok(Self {
            crc: u32_at(header, 4),
            body_len: u32_at(header, 8) as usize,
            count: u32_at(header, 12),
            shard: ShardId::new(PipelineId(u32_at(header, 16)), Partition(u32_at(header, 20))),
            first: u64_at(header, 24),
            appended_at: Timestamp::from_millis(u64_at(header, 32)),
            write: u64_at(header, 40),
        })
    }

    /// Reads the frame at the front of `bytes` as far as its header goes, and checks it with its body.
    pub(crate) fn check(bytes: &[u8]) -> Result<Self, Corrupt> {
        let header = Self::parse(bytes)?;
        let whole = bytes
            .get(8..HEADER + header.body_len)
            .ok_or(Corrupt("a whole frame"))?;
        if crc32fast::hash(whole) == header.crc {
            Ok(header)
        } else {
            Err(Corrupt("a frame with its checksum"))
        }
    }

    pub(crate) fn frame_len(&self) -> usize {
        HEADER + self.body_len
    }

    /// One past the last offset.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    pub(crate) fn group(&self) -> u64 {
        self.write >> 1
    }

    pub(crate) fn is_last_of_group(&self) -> bool {
        self.write & 1 == 1
    }
}

/// A frame that is being filled.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    shard: ShardId,
    first: u64,
    count: u32,
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// `room` is how many bytes of records are expected.
    pub(crate) fn new(shard: ShardId, first: u64, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + room.min(TARGET_BODY + TARGET_BODY / 4));
        bytes.resize(HEADER, 0);
        Self {
            shard,
            first,
            count: 0,
            bytes,
        }
    }

    pub(crate) fn push(&mut self, task: &TaskSpec) {
        encode_spec(&mut self.bytes, task);
        self.count += 1;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= HEADER + TARGET_BODY
    }

    /// Closes the frame as one of the group commit `group`.
    pub(crate) fn finish(self, group: u64, last: bool, now: Timestamp) -> (FrameHeader, Bytes) {
        let Self {
            shard,
            first,
            count,
            mut bytes,
        } = self;
        let body_len = bytes.len() - HEADER;
        let write = group << 1 | u64::from(last);
        bytes[..4].copy_from_slice(&MAGIC);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        // A frame ends soon after its target, and one task is limited far below 4 GiB.
        put(8, &u32::try_from(body_len).unwrap_or(u32::MAX).to_le_bytes());
        put(12, &count.to_le_bytes());
        put(16, &shard.pipeline.0.to_le_bytes());
        put(20, &shard.partition.0.to_le_bytes());
        put(24, &first.to_le_bytes());
        put(32, &now.as_millis().to_le_bytes());
        put(40, &write.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (
            FrameHeader {
                crc,
                body_len,
                count,
                shard,
                first,
                appended_at: now,
                write,
            },
            bytes.into(),
        )
    }
}

/// Takes the records of a frame, one after the other.
#[derive(Debug)]
pub(crate) struct FrameReader {
    next: u64,
    end: u64,
    appended_at: Timestamp,
    whole: usize,
    body: Decoder,
}

impl FrameReader {
    /// `frame` has been checked, and shares a buffer of `whole` bytes.
    pub(crate) fn new(header: &FrameHeader, frame: &Bytes, whole: usize) -> Self {
        let body = frame.slice(HEADER..header.frame_len());
        Self {
            next: header.first,
            end: header.end(),
            appended_at: header.appended_at,
            whole,
            body: Decoder::new(body),
        }
    }

    /// One past the last offset.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The next record, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Corrupt> {
        if self.next == self.end {
            return Ok(None);
        }
        let spec = decode_spec(&mut self.body, self.whole)?;
        let offset = Offset(self.next);
        self.next += 1;
        Ok(Some(Record {
            offset,
            appended_at: self.appended_at,
            body: RecordBody::Task(spec),
        }))
    }
}

/// Takes checked frames off the front of `bytes`, which are whole frames one after the other.
pub(crate) fn split(mut bytes: Bytes) -> Result<Vec<(FrameHeader, Bytes)>, Corrupt> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let header = FrameHeader::check(&bytes)?;
        frames.push((header, bytes.split_to(header.frame_len())));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use scheduler_testkit::strategy;

    use super::*;

    proptest! {
        #[test]
        fn records_survive_a_frame(specs in vec(strategy::task_spec(), 1..20), first in 0..u64::MAX / 2, group in 0..u64::MAX / 2) {
            let shard = ShardId::new(PipelineId(7), Partition(3));
            let mut builder = FrameBuilder::new(shard, first, 0);
            for spec in &specs {
                builder.push(spec);
            }
            let (header, bytes) = builder.finish(group, true, Timestamp::from_millis(5));
            prop_assert_eq!(FrameHeader::check(&bytes), Ok(header));
            prop_assert_eq!((header.group(), header.is_last_of_group()), (group, true));
            let mut reader = FrameReader::new(&header, &bytes, bytes.len());
            for (at, spec) in specs.iter().enumerate() {
                let record = reader.next().unwrap().unwrap();
                prop_assert_eq!(record.offset, Offset(first + at as u64));
                prop_assert_eq!(record.body, RecordBody::Task(spec.clone()));
            }
            prop_assert!(reader.next().unwrap().is_none());
        }

        #[test]
        fn no_changed_frame_passes(at in 0usize..200, bit in 0u8..8) {
            let mut builder = FrameBuilder::new(ShardId::new(PipelineId(1), Partition(0)), 9, 0);
            builder.push(&TaskSpec::new(vec![7u8; 150]));
            let (header, bytes) = builder.finish(1, false, Timestamp::from_millis(5));
            let mut changed = bytes.to_vec();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            prop_assert_ne!(FrameHeader::check(&changed), Ok(header));
        }

        #[test]
        fn no_bytes_break_the_splitting(bytes in vec(any::<u8>(), 0..200)) {
            let _ = split(bytes.into());
        }
    }
}
