//! Results, packed: what a checkpoint finished goes into few rows, each with results of one stretch of offsets.
//!
//! The key is shard, stretch, epoch, checkpoint, piece. So a result is found by reading the rows of its stretch, one range, and a
//! checkpoint that is saved again overwrites what it wrote.

use bytes::Bytes;
use scheduler_core::id::{CheckpointId, Offset, ShardId, Tenure};
use scheduler_core::outcome::FinishedTask;

use crate::codec::{Decoder, Encode, decode_finished, encode_finished};
use crate::engine::Key;
use crate::error::Corrupt;

/// A stretch holds this many offsets.
const STRETCH: u64 = 4096;
/// A row grows to about this size before it is compressed.
const ROW_BYTES: usize = 256 << 10;
/// Shorter rows are not worth compressing.
const COMPRESS_FROM: usize = 512;
/// No byte of LZ4 stands for more than this many.
const LZ4_MAX_RATIO: usize = 255;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// The rows of the stretch that `offset` lies in.
pub(crate) fn stretch_prefix(shard: ShardId, offset: Offset) -> Key {
    Key::bare().shard(shard).u64(offset.0 / STRETCH)
}

/// Keys of all rows with offsets below `before`, and of some rows with higher ones of the same stretch.
pub(crate) fn range_below(shard: ShardId, before: Offset) -> std::ops::Range<Key> {
    Key::bare().shard(shard)..Key::bare().shard(shard).u64(before.0.div_ceil(STRETCH))
}

/// The stretch that a row belongs to.
pub(crate) fn stretch_of(key: &[u8]) -> Option<u64> {
    Key::number_at(key, 8)
}

/// Packs results; the rows are still to be [sealed](seal).
pub(crate) fn pack(
    tenure: Tenure,
    checkpoint: CheckpointId,
    finished: &[FinishedTask],
) -> Vec<(Key, Vec<u8>)> {
    let mut sorted: Vec<&FinishedTask> = finished.iter().collect();
    sorted.sort_unstable_by_key(|task| task.offset);
    let mut rows: Vec<(Key, Vec<u8>)> = Vec::new();
    let mut current = None;
    for task in sorted {
        let stretch = task.offset.0 / STRETCH;
        let piece = match current {
            Some((of, piece)) if of == stretch => {
                let full = rows.last().is_some_and(|(_, row)| row.len() >= ROW_BYTES);
                piece + u32::from(full)
            }
            _ => 0,
        };
        if current != Some((stretch, piece)) {
            current = Some((stretch, piece));
            let key = Key::bare().shard(tenure.shard).u64(stretch);
            rows.push((key.u32(tenure.epoch.0).u64(checkpoint.0).u32(piece), Vec::new()));
        }
        if let Some((_, row)) = rows.last_mut() {
            encode_finished(row, task);
        }
    }
    rows
}

/// Compresses a packed row if that pays.
pub(crate) fn seal(row: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(row.len() / 2 + 16);
    if row.len() >= COMPRESS_FROM {
        let compressed = lz4_flex::block::compress(row);
        if compressed.len() < row.len() {
            sealed.byte(LZ4);
            sealed.number(row.len() as u64);
            sealed.raw(&compressed);
            return sealed;
        }
    }
    sealed.byte(PLAIN);
    sealed.raw(row);
    sealed
}

/// The results of a row, in the order of their offsets.
pub(crate) fn open(row: Bytes) -> Result<Vec<FinishedTask>, Corrupt> {
    let mut from = Decoder::new(row);
    let plain = match from.u8()? {
        PLAIN => from.rest(),
        LZ4 => {
            let len = usize::try_from(from.u64()?).map_err(|_| Corrupt("a length"))?;
            let compressed = from.rest();
            if len / LZ4_MAX_RATIO > compressed.len() {
                return Err(Corrupt("a length that the compressed bytes can have"));
            }
            lz4_flex::block::decompress(&compressed, len)
                .map_err(|_| Corrupt("compressed results"))?
                .into()
        }
        _ => return Err(Corrupt("results in a known form")),
    };
    let mut from = Decoder::new(plain);
    let mut results = Vec::new();
    while !from.is_empty() {
        results.push(decode_finished(&mut from)?);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use scheduler_core::id::{Epoch, Partition, PipelineId};
    use scheduler_testkit::strategy;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_found_in_its_stretch(tasks in vec((0u64..20_000, strategy::finished_task()), 0..50)) {
            let shard = ShardId::new(PipelineId(1), Partition(2));
            let tasks: BTreeMap<u64, FinishedTask> = tasks
                .into_iter()
                .map(|(offset, task)| (offset, FinishedTask { offset: Offset(offset), ..task }))
                .collect();
            let finished: Vec<FinishedTask> = tasks.values().rev().cloned().collect();
            let rows = pack(Tenure { shard, epoch: Epoch(1) }, CheckpointId(1), &finished);
            let mut found = Vec::new();
            for (key, row) in rows {
                for task in open(seal(&row).into()).unwrap() {
                    prop_assert!(key.bytes().starts_with(stretch_prefix(shard, task.offset).bytes()));
                    found.push(task);
                }
            }
            prop_assert_eq!(found, tasks.into_values().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_break_the_opening(bytes in vec(any::<u8>(), 0..200)) {
            let _ = open(bytes.into());
        }
    }
}
