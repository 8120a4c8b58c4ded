//! Where a page of a list ended, as opaque text.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use scheduler_core::id::{Offset, Partition};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::PageCursor;

use crate::problem::Problem;

/// The lists that have pages. A cursor of one is not one of the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum List {
    Tasks,
    DeadLetters,
}

/// Four bytes of checksum, four of the partition, eight of the offset.
const BYTES: usize = 16;

/// The text of a cursor: URL-safe, and good for this list of this pipeline only.
pub(crate) fn encode(list: List, path: &PipelinePath, cursor: PageCursor) -> String {
    let mut bytes = [0; BYTES];
    bytes[4..8].copy_from_slice(&cursor.partition.0.to_be_bytes());
    bytes[8..].copy_from_slice(&cursor.offset.0.to_be_bytes());
    let sum = checksum(list, path, &bytes[4..]);
    bytes[..4].copy_from_slice(&sum);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(list: List, path: &PipelinePath, text: &str) -> Result<PageCursor, Problem> {
    let wrong = || {
        Problem::invalid(
            "cursor",
            "is not a cursor of this list; take `next` of the page before as it is, or leave it out to begin anew",
        )
    };
    let mut bytes = [0; BYTES];
    match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(BYTES) => {}
        _ => return Err(wrong()),
    }
    let (sum, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (partition, offset) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let offset = offset.first_chunk::<8>().ok_or_else(wrong)?;
    if *sum != checksum(list, path, rest) {
        return Err(wrong());
    }
    Ok(PageCursor {
        partition: Partition(u32::from_be_bytes(*partition)),
        offset: Offset(u64::from_be_bytes(*offset)),
    })
}

/// Finds mistakes, not malice: a forged cursor shows its owner nothing that they could not list anyway.
fn checksum(list: List, path: &PipelinePath, position: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(match list {
        List::Tasks => b"tasks ",
        List::DeadLetters => b"dead ",
    });
    for name in [&path.client, &path.application, &path.pipeline] {
        hasher.update(name.as_str().as_bytes());
        hasher.update(b"/");
    }
    hasher.update(position);
    hasher.finalize().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(pipeline: &str) -> PipelinePath {
        PipelinePath {
            client: "me".parse().unwrap(),
            application: "app".parse().unwrap(),
            pipeline: pipeline.parse().unwrap(),
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(partition: u32, offset: u64) {
            let cursor = PageCursor { partition: Partition(partition), offset: Offset(offset) };
            let text = encode(List::Tasks, &path("ocr"), cursor);
            prop_assert_eq!(decode(List::Tasks, &path("ocr"), &text).unwrap(), cursor);
            prop_assert!(decode(List::DeadLetters, &path("ocr"), &text).is_err());
            prop_assert!(decode(List::Tasks, &path("other"), &text).is_err());
        }

        #[test]
        fn a_changed_cursor_is_refused(offset: u64, at in 0usize..22, to in "[A-Za-z0-9_-]") {
            let cursor = PageCursor { partition: Partition(3), offset: Offset(offset) };
            let text = encode(List::Tasks, &path("ocr"), cursor);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != text);
            prop_assert!(decode(List::Tasks, &path("ocr"), &changed).is_err());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            let _ = decode(List::Tasks, &path("ocr"), &text);
        }
    }
}
