//! Segments: the files of the log. All partitions share them, so that one fdatasync makes a whole group commit durable.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{FrameHeader, HEADER, MAGIC};
use crate::directory::sync_directory;
use crate::error::OpenError;

/// `wsegment`, the version of the frames, their checksum with what follows: the segment's number and its first group commit.
const FILE_HEADER: usize = 32;
const FILE_MAGIC: [u8; 8] = *b"wsegment";
const FILE_VERSION: u32 = 1;

/// How much of a file is read at once while it is scanned.
const SCAN_CHUNK: usize = 1 << 20;

/// A file of the log that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
}

impl Segment {
    /// Reads `len` bytes at `position`.
    pub(crate) fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, position)?;
        Ok(bytes.into())
    }
}

pub(crate) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.segment"))
}

fn file_header(number: u64, group: u64) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..].copy_from_slice(&group.to_le_bytes());
    let crc = crc32fast::hash(&header[16..]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The first group commit of segment `number`, if this is its header.
fn first_group(header: &[u8], number: u64) -> Option<u64> {
    let group = u64::from_le_bytes(*header.last_chunk()?);
    (header == file_header(number, group)).then_some(group)
}

/// The numbers of the segments in `dir`, the oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in dir.read_dir().map_err(OpenError::io(dir))? {
        let name = entry.map_err(OpenError::io(dir))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".segment")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    pub(crate) segment: Segment,
    file: File,
    /// Where the next frame goes.
    pub(crate) position: u64,
    /// Up to here the file has blocks that were written before.
    filled: u64,
    size: u64,
}

/// A commit of fewer bytes is mostly its sync.
const SMALL_COMMIT: u64 = 32 << 10;
/// So many blocks are filled with zeros at a time, ahead of small commits: a sync of blocks that exist has no metadata to write.
const BLOCKS_AHEAD: u64 = 64;
/// Written one by one, so that a small commit to one of them does not make the system write all of them again.
const BLOCK: usize = 4 << 10;

impl SegmentWriter {
    /// Begins segment `number`, with room for `size` bytes, whose first group commit will be `group`.
    /// Its name and header are durable when this answers.
    pub(crate) fn create(dir: &Path, number: u64, group: u64, size: u64) -> Result<Self, OpenError> {
        let path = path_of(dir, number);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(OpenError::io(&path))?;
        let begin = || {
            let mut writer = &file;
            writer.write_all(&file_header(number, group))?;
            // The length is set ahead, so that a commit has no new length to make durable. The rest is a hole.
            file.set_len(size.max(FILE_HEADER as u64))?;
            file.sync_all()
        };
        begin().map_err(OpenError::io(&path))?;
        sync_directory(dir)?;
        Self::at(path, file, number, FILE_HEADER as u64, size)
    }

    /// Goes on with a segment whose valid part ends at `position`; the rest is cut off.
    pub(crate) fn resume(segment: &Segment, position: u64, size: u64) -> Result<Self, OpenError> {
        let path = segment.path.clone();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(OpenError::io(&path))?;
        file.set_len(position)
            .and_then(|()| file.set_len(size.max(position)))
            .and_then(|()| file.sync_all())
            .map_err(OpenError::io(&path))?;
        Self::at(path, file, segment.number, position, size)
    }

    fn at(path: PathBuf, mut file: File, number: u64, position: u64, size: u64) -> Result<Self, OpenError> {
        let reader =
            File::open(&path).and_then(|reader| file.seek(SeekFrom::Start(position)).map(|_| reader));
        let reader = reader.map_err(OpenError::io(&path))?;
        Ok(Self {
            segment: Segment {
                number,
                path,
                file: Arc::new(reader),
            },
            file,
            position,
            filled: position,
            size,
        })
    }

    /// Writes frames one after the other and makes them durable.
    pub(crate) fn commit(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        self.fill_ahead(bytes);
        self.file.sync_data()?;
        self.position += bytes;
        Ok(())
    }

    /// Makes blocks for small commits to come, which are durable with this one.
    fn fill_ahead(&mut self, bytes: u64) {
        let end = self.position + bytes;
        if bytes < SMALL_COMMIT && end > self.filled && end < self.size {
            let first = end.next_multiple_of(BLOCK as u64);
            let last = (first + BLOCKS_AHEAD * BLOCK as u64).min(self.size);
            for at in (first..last).step_by(BLOCK) {
                // Without room for it, commits are slower, and that is all.
                if self.file.write_all_at(&[0; BLOCK], at).is_err() {
                    break;
                }
            }
            self.filled = last;
        }
    }

    /// Takes back what a failed [`commit`](Self::commit) may have written.
    pub(crate) fn roll_back(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(self.position)?;
        self.file.set_len(size.max(self.position))?;
        self.file.sync_all()?;
        self.filled = self.position;
        self.file.seek(SeekFrom::Start(self.position)).map(|_| ())
    }

    /// Ends the segment: gives back the room that it did not use.
    pub(crate) fn seal(&self) -> io::Result<()> {
        self.file.set_len(self.position)?;
        self.file.sync_all()
    }
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) segment: Segment,
    /// Where the valid part ends.
    pub(crate) end: u64,
    /// The group commit that comes next: a torn one is written again under its own number.
    pub(crate) next_group: u64,
    /// Bytes of a torn write behind the valid part.
    pub(crate) torn: u64,
}

/// Opens segment `number` and reports every frame with its position to `found`.
///
/// A torn write is allowed at the end of the newest segment only, and only if nothing was written after it; anything else that does not
/// check is [`OpenError::Damaged`].
///
/// Answers `None` for a newest segment whose very header is torn: it holds nothing yet.
pub(crate) fn scan(
    dir: &Path,
    number: u64,
    newest: bool,
    mut found: impl FnMut(&FrameHeader, u64) -> Result<(), &'static str>,
) -> Result<Option<Scanned>, OpenError> {
    let path = path_of(dir, number);
    let file = File::open(&path).map_err(OpenError::io(&path))?;
    let damaged = |position: u64, problem: &str| OpenError::Damaged {
        file: path.clone(),
        position,
        problem: problem.to_owned(),
    };
    let length = file.metadata().map_err(OpenError::io(&path))?.len();

    let mut window = Window {
        file: &file,
        start: 0,
        bytes: Vec::new(),
        length,
    };
    let header = window.at(0, FILE_HEADER).map_err(OpenError::io(&path))?;
    let Some(first_group) = first_group(header, number) else {
        let never_begun = header.len() < FILE_HEADER || header.iter().all(|&b| b == 0);
        if newest && never_begun {
            return Ok(None);
        }
        return Err(damaged(
            0,
            "its header is not that of this segment in a known format",
        ));
    };

    let mut position = FILE_HEADER as u64;
    let mut last_write = None;
    while let Ok(header) = FrameHeader::parse(window.at(position, HEADER).map_err(OpenError::io(&path))?) {
        let len = header.frame_len();
        if position + len as u64 > length {
            break;
        }
        let Ok(header) = FrameHeader::check(window.at(position, len).map_err(OpenError::io(&path))?) else {
            break;
        };
        if header.group() < last_write.map_or(first_group, |(group, _)| group) {
            return Err(damaged(position, "a frame is older than the one before it"));
        }
        found(&header, position).map_err(|problem| damaged(position, problem))?;
        last_write = Some((header.group(), header.is_last_of_group()));
        position += len as u64;
    }

    // Whatever was torn was written last: a frame of a later group proves that this place had been durable.
    let next_group = match last_write {
        Some((group, true)) => group + 1,
        Some((group, false)) => group,
        None => first_group,
    };
    let torn = window.count_written(position).map_err(OpenError::io(&path))?;
    if torn > 0 {
        let later = window
            .find_later(position, next_group)
            .map_err(OpenError::io(&path))?;
        if !newest || later {
            return Err(damaged(
                position,
                "a frame does not check, and what follows shows that it had been durable",
            ));
        }
    }
    let segment = Segment {
        number,
        path,
        file: Arc::new(file),
    };
    Ok(Some(Scanned {
        segment,
        end: position,
        next_group,
        torn,
    }))
}

/// A part of a file in memory that moves along.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Vec<u8>,
    length: u64,
}

impl Window<'_> {
    /// `len` bytes at `position`, or fewer at the end of the file.
    fn at(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let end = (position + len as u64).min(self.length);
        if position < self.start || end > self.start + self.bytes.len() as u64 {
            let want = len.max(SCAN_CHUNK) as u64;
            let take = want.min(self.length.saturating_sub(position));
            self.start = position;
            self.bytes.resize(usize::try_from(take).unwrap_or(usize::MAX), 0);
            self.file.read_exact_at(&mut self.bytes, position)?;
        }
        let from = usize::try_from(position - self.start)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let to = (from + len).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    /// How many bytes from `position` on are there up to the last that is not zero.
    fn count_written(&mut self, position: u64) -> io::Result<u64> {
        let mut last = position;
        let mut at = position;
        while at < self.length {
            let chunk = self.at(at, SCAN_CHUNK)?;
            let len = chunk.len() as u64;
            if let Some(written) = chunk.iter().rposition(|&b| b != 0) {
                last = at + written as u64 + 1;
            }
            at += len;
        }
        Ok(last - position)
    }

    /// Whether a whole frame of a group after `group` lies anywhere behind `position`.
    fn find_later(&mut self, position: u64, group: u64) -> io::Result<bool> {
        let mut at = position;
        while at + HEADER as u64 <= self.length {
            let chunk = self.at(at, SCAN_CHUNK)?;
            let Some(next) = chunk.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) else {
                at += (chunk.len() - (MAGIC.len() - 1)) as u64;
                continue;
            };
            let start = at + next as u64;
            let parsed = FrameHeader::parse(self.at(start, HEADER)?);
            if let Ok(header) = parsed
                && header.group() > group
                && start + header.frame_len() as u64 <= self.length
                && FrameHeader::check(self.at(start, header.frame_len())?).is_ok()
            {
                return Ok(true);
            }
            at = start + 1;
        }
        Ok(false)
    }
}
