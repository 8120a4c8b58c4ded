//! Idempotency keys: tasks of one key, within a day of each other, are one task.
//!
//! A key's tasks lie in one partition, so its shard sees them all: the first runs, a later one ends at once as a duplicate of it.
//! What a shard has seen is saved with its checkpoints, and is bounded: over [`MAX_KEYS`] the oldest are forgotten early.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{Offset, Partition};
use crate::time::Timestamp;

/// How long a key is remembered after its task was submitted.
pub const KEY_PERIOD: Duration = Duration::from_hours(24);
/// How many keys a shard remembers.
pub const MAX_KEYS: usize = 65_536;

/// The 128-bit FNV-1a hash of a key: the same on every node and in every version.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The hash of `key`.
    pub fn of(key: &[u8]) -> Self {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        Self(
            key.iter()
                .fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME)),
        )
    }

    /// The partition, of so many, in which tasks of the key lie.
    #[expect(clippy::cast_possible_truncation, reason = "less than a u32")]
    pub fn partition(self, partitions: u32) -> Partition {
        Partition((self.0 % u128::from(partitions.max(1))) as u32)
    }
}

/// A key that a shard has seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SeenKey {
    /// Which.
    pub hash: KeyHash,
    /// The task that runs for it.
    pub offset: Offset,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}

/// The keys that a shard remembers.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_hash: BTreeMap<KeyHash, SeenKey>,
    by_expiry: BTreeSet<(Timestamp, KeyHash)>,
}

impl Keys {
    /// The task that runs for a key.
    pub(crate) fn find(&self, hash: KeyHash, now: Timestamp) -> Option<Offset> {
        self.by_hash
            .get(&hash)
            .filter(|seen| seen.expires_at > now)
            .map(|seen| seen.offset)
    }

    /// Remembers a key; forgets what has expired by `now`, and the oldest where there are too many.
    pub(crate) fn insert(&mut self, seen: SeenKey, now: Timestamp) {
        if let Some(old) = self.by_hash.insert(seen.hash, seen) {
            self.by_expiry.remove(&(old.expires_at, old.hash));
        }
        self.by_expiry.insert((seen.expires_at, seen.hash));
        while let Some(&(expires_at, hash)) = self.by_expiry.first()
            && (expires_at <= now || self.by_expiry.len() > MAX_KEYS)
        {
            self.by_expiry.pop_first();
            self.by_hash.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(key: &str, offset: u64, expires_at: u64) -> SeenKey {
        SeenKey {
            hash: KeyHash::of(key.as_bytes()),
            offset: Offset(offset),
            expires_at: Timestamp::from_millis(expires_at),
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // From the reference vectors of FNV-1a with 128 bits.
        assert_eq!(KeyHash::of(b"").0, 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(KeyHash::of(b"a").0, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn a_key_is_forgotten_when_its_time_is_over() {
        let mut keys = Keys::default();
        keys.insert(seen("a", 1, 10), Timestamp::ZERO);
        assert_eq!(
            keys.find(KeyHash::of(b"a"), Timestamp::from_millis(9)),
            Some(Offset(1))
        );
        assert_eq!(keys.find(KeyHash::of(b"a"), Timestamp::from_millis(10)), None);
        keys.insert(seen("b", 2, 20), Timestamp::from_millis(10));
        assert_eq!(keys.by_hash.len(), 1);
    }

    #[test]
    fn too_many_keys_push_out_the_oldest() {
        let mut keys = Keys::default();
        for number in 0..=MAX_KEYS as u64 {
            keys.insert(seen(&number.to_string(), number, 1_000 + number), Timestamp::ZERO);
        }
        assert_eq!(keys.find(KeyHash::of(b"0"), Timestamp::ZERO), None);
        assert_eq!(keys.find(KeyHash::of(b"1"), Timestamp::ZERO), Some(Offset(1)));
        assert_eq!(keys.by_hash.len(), MAX_KEYS);
    }
}
