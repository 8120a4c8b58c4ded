//! Recordings: everything that a shard was told, in order, so that its decisions can be replayed bit for bit, and explained.
//!
//! A shard that [records](crate::shard::Shard::recorded) writes what it is told into a [`Tape`]; its driver takes the bytes away into a file.
//! A [`Replay`] runs the same machine again and says where it decides otherwise, which it does not unless it is another version's.
//!
//! ```text
//! "wstape" version (1)   then frames of: length, body
//! the first frame:       now, pipeline, partition, epoch, resume, log start, log end, unclean, grace, state, policy
//! every other frame:     milliseconds since the last, the input's kind and fields, the answer, a digest of the outputs
//! ```
//!
//! The digest is of the outputs as text, so a recording is replayed with the version that made it.

mod input;
mod replay;

use std::fmt::{self, Write as _};

use crate::codec::{put_bytes, put_varint};
use crate::encoding;
use crate::shard::{Answer, Input, Output, ShardConfig};
use crate::time::{Timestamp, millis};

pub use self::replay::{Replay, ReplayError, Step};

const MAGIC: &[u8] = b"wstape\x01";

/// The recording side. See the [module](self).
#[derive(Debug)]
pub struct Tape {
    bytes: Vec<u8>,
    frame: Vec<u8>,
    last: Timestamp,
    /// How many bytes more may be recorded.
    left: usize,
}

impl Tape {
    /// Begins with a shard as it comes up. Once `limit` bytes are recorded it ends, at the end of a frame.
    pub(crate) fn new(now: Timestamp, config: &ShardConfig, limit: usize) -> Self {
        let mut tape = Self {
            bytes: MAGIC.to_vec(),
            frame: Vec::new(),
            last: now,
            left: limit,
        };
        let out = &mut tape.frame;
        put_varint(out, now.as_millis());
        put_varint(out, config.tenure.shard.pipeline.0.into());
        put_varint(out, config.tenure.shard.partition.0.into());
        put_varint(out, config.tenure.epoch.0.into());
        for offset in [config.resume, config.log_start, config.log_end] {
            put_varint(out, offset.0);
        }
        out.push(config.unclean.into());
        put_varint(out, millis(config.grace));
        put_bytes(out, &config.state);
        encoding::put_policy(out, &config.policy);
        tape.end_frame();
        tape
    }

    /// What the shard is told.
    pub(crate) fn heard(&mut self, now: Timestamp, input: &Input) {
        put_varint(
            &mut self.frame,
            now.as_millis().saturating_sub(self.last.as_millis()),
        );
        self.last = now;
        input::put(&mut self.frame, input);
    }

    /// What it decided.
    pub(crate) fn said(&mut self, answer: Answer, outputs: &[Output]) {
        self.frame.push(answer_code(answer));
        self.frame.extend_from_slice(&digest(outputs).to_le_bytes());
        self.end_frame();
    }

    fn end_frame(&mut self) {
        if self.frame.len() > self.left {
            // A recording with a hole in it could not be replayed.
            self.left = 0;
        } else {
            self.left -= self.frame.len();
            put_bytes(&mut self.bytes, &self.frame);
        }
        self.frame.clear();
    }

    /// Takes away what was recorded since the last time.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Whether nothing more is recorded.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }
}

fn answer_code(answer: Answer) -> u8 {
    match answer {
        Answer::Done => 0,
        Answer::Late => 1,
        Answer::Elsewhere => 2,
        Answer::Full => 3,
    }
}

/// The 64-bit FNV-1a hash of the outputs as text.
fn digest(outputs: &[Output]) -> u64 {
    struct Hash(u64);
    impl fmt::Write for Hash {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    // Writing into a number does not fail.
    let _ = write!(hash, "{outputs:?}");
    hash.0
}
