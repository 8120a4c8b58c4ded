//! The readers of what lies on disk, for tests that feed them any bytes and benchmarks that time them. No part of the API: it changes as they do.
#![doc(hidden)]

use std::path::Path;

use bytes::Bytes;
use scheduler_core::id::{Offset, ShardId};
use scheduler_core::task::{Record, TaskSpec};
use scheduler_core::time::Timestamp;

use crate::codec::{self, Decoder};
use crate::error::{Corrupt, OpenError};
use crate::log::{frame, segment};
use crate::store::{pipeline_row, results, shard_row};

/// What a scan of a segment found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Where its valid part ends.
    pub end: u64,
    /// The group commit that comes next.
    pub next_group: u64,
    /// Bytes of a torn write behind the valid part.
    pub torn: u64,
}

/// The records of frames that lie one after the other.
pub fn frames(bytes: Bytes) -> Result<Vec<Record>, Corrupt> {
    let whole = bytes.len();
    let mut records = Vec::new();
    for (header, frame) in frame::split(bytes)? {
        let mut reader = frame::FrameReader::new(&header, &frame, whole);
        while let Some(record) = reader.next()? {
            records.push(record);
        }
    }
    Ok(records)
}

/// Tasks of a shard, the first at offset `first`, in frames that lie one after the other.
pub fn framed(shard: ShardId, first: Offset, tasks: &[TaskSpec]) -> Bytes {
    let mut bytes = Vec::new();
    let mut next = first.0;
    let mut rest = tasks;
    while !rest.is_empty() {
        let room: usize = rest.iter().map(TaskSpec::weight).sum();
        let mut frame = frame::FrameBuilder::new(shard, next, room);
        while let Some((task, later)) = rest.split_first()
            && !frame.is_full()
        {
            frame.push(task);
            next += 1;
            rest = later;
        }
        bytes.extend_from_slice(&frame.finish(0, rest.is_empty(), Timestamp::ZERO).1);
    }
    bytes.into()
}

/// Scans segment `number` in `directory`; `None` if it was never begun.
pub fn segment(directory: &Path, number: u64, newest: bool) -> Result<Option<Segment>, OpenError> {
    let scanned = segment::scan(directory, number, newest, |_, _| Ok(()))?;
    Ok(scanned.map(|scanned| Segment {
        end: scanned.end,
        next_group: scanned.next_group,
        torn: scanned.torn,
    }))
}

/// Reads a row of one of the tables, and answers it as it would be written.
pub fn row(table: u8, bytes: Bytes) -> Result<Vec<u8>, Corrupt> {
    let whole = bytes.len();
    let mut from = Decoder::new(bytes.clone());
    let mut out = Vec::new();
    match table % 7 {
        0 => codec::encode_spec(&mut out, &codec::decode_spec(&mut from, whole)?),
        1 => codec::encode_finished(&mut out, &codec::decode_finished(&mut from)?),
        2 => codec::encode_dead(&mut out, &codec::decode_dead(&mut from, whole)?),
        3 => codec::encode_parked(&mut out, &codec::decode_parked(&mut from, whole)?),
        4 => {
            for task in results::open(bytes)? {
                codec::encode_finished(&mut out, &task);
            }
            out = results::seal(&out);
        }
        5 => out = shard_row::ShardRow::decode(bytes)?.encode(),
        _ => out = pipeline_row::encode_pipeline(&pipeline_row::decode_pipeline(bytes)?),
    }
    Ok(out)
}
