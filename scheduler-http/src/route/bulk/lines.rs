//! Cuts a stream of chunks into lines, holding at most one line.

use bytes::{Buf as _, Bytes, BytesMut};

/// A line that is not blank.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// Line `number`, from 1, without its end.
    Whole { number: u64, text: Bytes },
    /// Line `number` is longer than allowed; it was not kept.
    TooLong { number: u64 },
}

/// Cuts chunks into lines. A line within one chunk is a slice of it, not a copy.
#[derive(Debug)]
pub(super) struct Lines {
    limit: usize,
    chunk: Bytes,
    /// The beginning of a line whose end was not in its chunk.
    begun: BytesMut,
    /// The line is too long: it is dropped up to its end.
    skipping: bool,
    number: u64,
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            begun: BytesMut::new(),
            skipping: false,
            number: 0,
        }
    }

    /// Adds a chunk; all lines of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "a chunk came before the last was used up");
        self.chunk = chunk;
    }

    /// The number of the line that is read now.
    pub(super) fn at(&self) -> u64 {
        self.number + 1
    }

    /// The next line that ends in what was pushed.
    pub(super) fn next(&mut self) -> Option<Line> {
        while !self.chunk.is_empty() {
            if let Some(end) = memchr::memchr(b'\n', &self.chunk) {
                let part = self.chunk.split_to(end);
                self.chunk.advance(1);
                self.add(part.as_ref());
                let line = self.close(Some(part));
                if line.is_some() {
                    return line;
                }
            } else {
                let part = std::mem::take(&mut self.chunk);
                if !self.skipping && self.begun.len() + part.len() <= self.limit {
                    self.begun.extend_from_slice(&part);
                } else {
                    self.skip();
                }
            }
        }
        None
    }

    /// The last line, if it has no end.
    pub(super) fn finish(&mut self) -> Option<Line> {
        if self.begun.is_empty() && !self.skipping {
            return None;
        }
        self.close(None)
    }

    fn add(&mut self, part: &[u8]) {
        if self.skipping || self.begun.len() + part.len() > self.limit {
            self.skip();
        } else if !self.begun.is_empty() {
            self.begun.extend_from_slice(part);
        }
    }

    fn skip(&mut self) {
        self.skipping = true;
        self.begun = BytesMut::new();
    }

    /// Ends a line. `part` is all of it, unless some of it came before.
    fn close(&mut self, part: Option<Bytes>) -> Option<Line> {
        self.number += 1;
        let number = self.number;
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong { number });
        }
        let text = if self.begun.is_empty() {
            part.unwrap_or_default()
        } else {
            self.begun.split().freeze()
        };
        (!text.trim_ascii().is_empty()).then_some(Line::Whole { number, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(limit: usize, chunks: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = lines.next() {
                found.push(line);
            }
        }
        found.extend(lines.finish());
        found
    }

    fn whole(number: u64, text: &[u8]) -> Line {
        Line::Whole {
            number,
            text: Bytes::copy_from_slice(text),
        }
    }

    #[test]
    fn a_line_may_lie_in_many_chunks() {
        assert_eq!(
            cut(9, &[b"{", b"}\n\n \r\n", b"[1", b"]"]),
            [whole(1, b"{}"), whole(4, b"[1]")]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_is_not() {
        assert_eq!(
            cut(3, &[b"12", b"34", b"5\nabc\nabcd\nx", b"yzw"]),
            [
                Line::TooLong { number: 1 },
                whole(2, b"abc"),
                Line::TooLong { number: 3 },
                Line::TooLong { number: 4 },
            ]
        );
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6), limit in 1usize..8) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let expected: Vec<Line> = text
                .split('\n')
                .zip(1u64..)
                .filter(|(line, _)| !line.is_empty())
                .map(|(line, number)| {
                    if line.len() > limit { Line::TooLong { number } } else { whole(number, line.as_bytes()) }
                })
                .collect();
            prop_assert_eq!(cut(limit, &chunks), expected);
        }
    }
}
