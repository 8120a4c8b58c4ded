//! Results, packed: what a checkpoint finished goes into few rows, in the order of offsets, compressed.
//!
//! A row's offsets lie within [`SPAN`] of its first one, so a result is found by reading one range of first offsets.

use bytes::Bytes;
use scheduler_core::codec::{DecodeError, Reader, put_bytes, put_varint};
use scheduler_core::id::{Attempt, Offset};
use scheduler_core::outcome::{Ending, FinishedTask};
use scheduler_core::time::Timestamp;

/// The offsets of a row differ by less than this.
pub(crate) const SPAN: u64 = 4096;
/// A row grows to about this size before it is compressed.
const ROW_BYTES: usize = 256 << 10;
/// Shorter bytes are not worth compressing.
const COMPRESS_FROM: usize = 256;
/// No byte of LZ4 stands for more than this many.
const LZ4_MAX_RATIO: usize = 255;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// Results of one row.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first: Offset,
    pub(crate) last: Offset,
    pub(crate) body: Vec<u8>,
}

/// Packs results. Of two with the same offset the later one counts.
pub(crate) fn pack(finished: &[FinishedTask]) -> Vec<Segment> {
    let mut sorted: Vec<&FinishedTask> = finished.iter().rev().collect();
    sorted.sort_by_key(|task| task.offset);
    sorted.dedup_by_key(|task| task.offset);
    let mut segments = Vec::new();
    let mut rest = &sorted[..];
    while let Some(head) = rest.first() {
        let (first, mut body, mut packed, mut last) = (head.offset, Vec::new(), 0, head.offset);
        for task in rest {
            if task.offset.0 - first.0 >= SPAN || body.len() >= ROW_BYTES {
                break;
            }
            put(&mut body, task);
            last = task.offset;
            packed += 1;
        }
        rest = &rest[packed..];
        segments.push(Segment {
            first,
            last,
            body: seal(&body),
        });
    }
    segments
}

/// The results of a row, in the order of their offsets.
pub(crate) fn unpack(body: Bytes) -> Result<Vec<FinishedTask>, DecodeError> {
    let mut from = Reader::new(open(body)?);
    let mut tasks = Vec::new();
    while !from.is_empty() {
        tasks.push(take(&mut from)?);
    }
    Ok(tasks)
}

/// Compresses bytes if that pays.
pub(crate) fn seal(plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() / 2 + 16);
    if plain.len() >= COMPRESS_FROM {
        let compressed = lz4_flex::block::compress(plain);
        if compressed.len() < plain.len() {
            sealed.push(LZ4);
            put_varint(&mut sealed, plain.len() as u64);
            sealed.extend_from_slice(&compressed);
            return sealed;
        }
    }
    sealed.push(PLAIN);
    sealed.extend_from_slice(plain);
    sealed
}

/// The inverse of [`seal`].
pub(crate) fn open(sealed: Bytes) -> Result<Bytes, DecodeError> {
    let mut from = Reader::new(sealed);
    match from.byte()? {
        PLAIN => from.take(from.remaining()),
        LZ4 => {
            let len: usize = from.number()?;
            let compressed = from.take(from.remaining())?;
            if len / LZ4_MAX_RATIO > compressed.len() {
                return Err(from.error("a length is more than the compressed bytes can have"));
            }
            let plain = lz4_flex::block::decompress(&compressed, len);
            plain
                .map(Bytes::from)
                .map_err(|_| from.error("compressed bytes are damaged"))
        }
        _ => Err(from.error("the form is unknown")),
    }
}

fn put(out: &mut Vec<u8>, task: &FinishedTask) {
    put_varint(out, task.offset.0);
    out.push(match task.ending {
        Ending::Succeeded => 0,
        Ending::Cancelled => 1,
        Ending::Expired => 2,
        Ending::Duplicate => 3,
    });
    put_varint(out, task.attempts.0.into());
    for moment in [task.submitted_at, task.started_at, task.finished_at] {
        put_varint(out, moment.as_millis());
    }
    put_bytes(out, &task.output);
}

fn take(from: &mut Reader) -> Result<FinishedTask, DecodeError> {
    let moment = |from: &mut Reader| from.varint().map(Timestamp::from_millis);
    Ok(FinishedTask {
        offset: Offset(from.varint()?),
        ending: match from.byte()? {
            0 => Ending::Succeeded,
            1 => Ending::Cancelled,
            2 => Ending::Expired,
            3 => Ending::Duplicate,
            _ => return Err(from.error("how a task ended is unknown")),
        },
        attempts: Attempt(from.number()?),
        submitted_at: moment(from)?,
        started_at: moment(from)?,
        finished_at: moment(from)?,
        output: from.bytes()?,
    })
}
