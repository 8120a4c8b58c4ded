//! What a process writes: into two files of bounded size, and the last lines kept at hand.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of the end that are kept in memory.
const TAIL_BYTES: usize = 2048;

/// The end of what a process wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (tail.len() + bytes.len()).saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
        tail.extend(bytes);
    }

    /// The last lines, for people, in one line.
    pub(super) fn last_lines(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

/// Reads until the end, into `path` and, when that has `max_bytes`, into a new one: the old one gets the ending `.1`.
pub(super) async fn keep(
    mut output: impl AsyncRead + Unpin,
    path: PathBuf,
    max_bytes: u64,
    tail: Tail,
) -> std::io::Result<()> {
    let mut file = File::create(&path).await?;
    let mut written = 0;
    let mut buffer = vec![0; 8192];
    loop {
        let count = output.read(&mut buffer).await?;
        if count == 0 {
            return file.flush().await;
        }
        tail.push(&buffer[..count]);
        if written + count as u64 > max_bytes {
            file.flush().await?;
            tokio::fs::rename(&path, path.with_added_extension("1")).await?;
            file = File::create(&path).await?;
            written = 0;
        }
        file.write_all(&buffer[..count]).await?;
        // A person who looks wants to see what there is.
        file.flush().await?;
        written += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_is_bounded_and_keeps_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.log");
        let lines: Vec<String> = (0..5000).map(|n| format!("line {n}\n")).collect();
        let text = lines.concat();
        let tail = Tail::default();
        keep(text.as_bytes(), path.clone(), 10_000, tail.clone())
            .await
            .unwrap();
        let size = |path: &std::path::Path| path.metadata().unwrap().len();
        assert!(size(&path) <= 10_000);
        assert!(size(&path.with_added_extension("1")) <= 10_000);
        assert_eq!(directory.path().read_dir().unwrap().count(), 2);
        assert_eq!(tail.last_lines(), "line 4997 | line 4998 | line 4999");
        assert!(std::fs::read_to_string(path).unwrap().ends_with("line 4999\n"));
    }
}
