//! A look at the engine's journal before the engine opens it.
//!
//! The engine takes a journal that ends too early as the trace of a crash, but not one whose last batch has wrong bytes, as a power cut
//! leaves behind when the disk wrote some sectors of it and not others. Every batch here is made durable before the next one is
//! written, so what is wrong in the last batch was never acknowledged: it is cut off. Anything wrong before that is damage.
//!
//! This knows the engine's format 3. A journal of another format is left to the engine.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::OpenError;

const VERSION_FILE: &[u8] = b"FJL\x03";
const TRAILER: &[u8] = b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// How much of a file is read at once.
const CHUNK: usize = 64 << 10;

/// Cuts a torn last batch off the newest journal of the engine at `path`.
pub(crate) fn repair(path: &Path) -> Result<(), OpenError> {
    match std::fs::read(path.join("version")) {
        Ok(version) if version == VERSION_FILE => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpenError::io(&path.join("version"))(error)),
    }
    let Some(journal) = newest_journal(path)? else {
        return Ok(());
    };
    let bytes = read_written(&journal).map_err(OpenError::io(&journal))?;
    let damaged = |position: usize, problem: &str| OpenError::Damaged {
        file: journal.clone(),
        position: position as u64,
        problem: problem.to_owned(),
    };
    let mut end = 0;
    let mut sequence = None;
    while let Some(batch) = Batch::parse(&bytes[end..]) {
        // The checksum does not cover the sequence number.
        if sequence.is_some_and(|last| batch.sequence <= last) {
            return Err(damaged(end, "a batch is not newer than the one before it"));
        }
        sequence = Some(batch.sequence);
        end += batch.len;
    }
    if end == bytes.len() {
        return Ok(());
    }
    let tail = &bytes[end..];
    if (1..tail.len()).any(|at| tail[at] == START && Batch::parse(&tail[at..]).is_some()) {
        return Err(damaged(
            end,
            "a batch does not check, and others that do follow it",
        ));
    }
    tracing::warn!(
        file = %journal.display(), position = end, bytes = tail.len(),
        "cut off a batch that a crash left torn; it had not been acknowledged"
    );
    let cut = || {
        let file = OpenOptions::new().write(true).open(&journal)?;
        file.set_len(end as u64)?;
        file.sync_all()
    };
    cut().map_err(OpenError::io(&journal))
}

fn newest_journal(path: &Path) -> Result<Option<PathBuf>, OpenError> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in path.read_dir().map_err(OpenError::io(path))? {
        let file = entry.map_err(OpenError::io(path))?.path();
        let number = file
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|&(other, _)| other < number)
        {
            newest = Some((number, file));
        }
    }
    Ok(newest.map(|(_, file)| file))
}

/// The file up to its last byte that is not zero, and a few bytes more: journals are made longer than they are.
fn read_written(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    let mut zeros = 0;
    let mut chunk = vec![0; CHUNK];
    let nothing = vec![0; CHUNK];
    loop {
        let len = read_full(&mut file, &mut chunk)?;
        if len == 0 {
            break;
        }
        if chunk[..len] == nothing[..len] {
            zeros += len;
        } else {
            bytes.resize(bytes.len() + zeros, 0);
            zeros = 0;
            bytes.extend_from_slice(&chunk[..len]);
        }
    }
    // A batch ends in its trailer, which is not zero.
    bytes.truncate(
        bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1),
    );
    Ok(bytes)
}

fn read_full(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < into.len() {
        match file.read(&mut into[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Little-endian numbers off the front of some bytes.
struct Fields<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.all.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        self.take(len).map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte))
        })
    }

    fn len(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.number(bytes)?).ok()
    }
}

/// What a batch says about itself.
struct Batch {
    len: usize,
    sequence: u64,
}

impl Batch {
    /// Reads the batch at the front of `bytes`, if it is whole and checks.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields { all: bytes, at: 0 };
        if fields.u8()? != START {
            return None;
        }
        let items = fields.number(4)?;
        let sequence = fields.number(8)?;
        let mut checksum = Xxh3::new();
        for _ in 0..items {
            let begin = fields.at;
            match fields.u8()? {
                ITEM => {
                    let (_kind, _compression, _keyspace) = (fields.u8()?, fields.u8()?, fields.number(8)?);
                    let (key, _value, stored) = (fields.len(2)?, fields.len(4)?, fields.len(4)?);
                    fields.take(key)?;
                    fields.take(stored)?;
                }
                CLEAR => {
                    fields.number(8)?;
                }
                _ => return None,
            }
            checksum.update(&bytes[begin..fields.at]);
        }
        if fields.u8()? != END
            || fields.number(8)? != checksum.digest()
            || fields.take(TRAILER.len())? != TRAILER
        {
            return None;
        }
        Some(Self {
            len: fields.at,
            sequence,
        })
    }
}
