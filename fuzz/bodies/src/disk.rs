//! What adapters read from their store. Damage is an error, and what checks is read as it was written.

use std::path::Path;

use bytes::Bytes;
use scheduler_core::outcome::FinishedTask;
use scheduler_embedded::decode;

use crate::split_byte;

const FILE_HEADER: usize = 32;
const FRAME_HEADER: usize = 48;

/// A segment of the log. An even first byte has the checksums put right, so that what is behind them is reached.
///
/// What a crash has torn is found once: the file cut off there is whole.
pub fn segment(data: &[u8]) {
    let (kind, data) = split_byte(data);
    let mut file = data.to_vec();
    if kind % 2 == 0 {
        put_checksums_right(&mut file);
        let _ = decode::frames(Bytes::copy_from_slice(
            file.get(FILE_HEADER..).unwrap_or_default(),
        ));
    } else {
        let _ = decode::frames(Bytes::copy_from_slice(&file));
    }
    // In memory, where there is such a directory: it is written thousands of times a second.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let Ok(directory) = directory else { return };
    let path = directory.path().join("000000000001.segment");
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).is_ok();
    if !write(&file) {
        return;
    }
    let Ok(Some(found)) = decode::segment(directory.path(), 1, true) else {
        return;
    };
    let end = usize::try_from(found.end).unwrap_or(usize::MAX);
    assert!(end <= file.len(), "it ends at {end} of {}", file.len());
    assert!(write(&file[..end]));
    let again = decode::segment(directory.path(), 1, true);
    assert!(
        matches!(again, Ok(Some(again)) if (again.end, again.torn, again.next_group) == (found.end, 0, found.next_group)),
        "{found:?}, and then {again:?}"
    );
}

/// Makes the checksums of a segment's header and of its frames those of what they cover.
fn put_checksums_right(file: &mut [u8]) {
    if file.len() < FILE_HEADER {
        return;
    }
    file[..12].copy_from_slice(b"wsegment\x01\0\0\0");
    file[16..24].copy_from_slice(&1u64.to_le_bytes());
    let crc = crc32fast::hash(&file[16..FILE_HEADER]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut rest = &mut file[FILE_HEADER..];
    while rest.len() >= FRAME_HEADER {
        let length = [rest[8], rest[9], rest[10], rest[11]];
        let length = FRAME_HEADER + u32::from_le_bytes(length) as usize;
        if length > rest.len() {
            return;
        }
        rest[..4].copy_from_slice(b"wsf\x01");
        let crc = crc32fast::hash(&rest[8..length]);
        rest[4..8].copy_from_slice(&crc.to_le_bytes());
        rest = rest.split_at_mut(length).1;
    }
}

/// A row of the store; the first byte says of which table. What is read is written and read again as the same.
pub fn rows(data: &[u8]) {
    let (table, data) = split_byte(data);
    if let Ok(written) = decode::row(table, Bytes::copy_from_slice(data)) {
        assert_eq!(decode::row(table, written.clone().into()), Ok(written));
    }
}

/// The file of the TiDB adapter by itself: the adapter would bring a database client along.
#[path = "../../../scheduler-tidb/src/packed.rs"]
mod packed;

/// A row of results in TiDB. What is unpacked is packed and unpacked again as the same, each offset once.
pub fn packed_results(data: &[u8]) {
    let Ok(mut found) = packed::unpack(Bytes::copy_from_slice(data)) else {
        return;
    };
    let mut again = Vec::new();
    for segment in packed::pack(&found) {
        assert!(segment.first <= segment.last && segment.last.0 - segment.first.0 < packed::SPAN);
        let Ok(tasks) = packed::unpack(segment.body.into()) else {
            panic!("what was packed cannot be unpacked");
        };
        again.extend(tasks);
    }
    // Of two with the same offset the later one counts.
    found.reverse();
    found.sort_by_key(|task: &FinishedTask| task.offset);
    found.dedup_by_key(|task| task.offset);
    assert_eq!(again, found);
}
