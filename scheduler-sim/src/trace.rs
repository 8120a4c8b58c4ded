//! What has happened, as a hash that tells two histories apart, and as text if somebody wants to read it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};

#[derive(Debug)]
pub(crate) struct Trace {
    hash: DefaultHasher,
    text: Option<String>,
    now: u64,
}

impl Trace {
    pub(crate) fn new(with_text: bool) -> Self {
        Self {
            // Made without keys: the same in every run.
            hash: DefaultHasher::new(),
            text: with_text.then(String::new),
            now: 0,
        }
    }

    pub(crate) fn at(&mut self, now: u64) {
        self.now = now;
        self.hash.write_u64(now);
    }

    /// Takes note of something by its numbers; the text is made only if it is wanted.
    pub(crate) fn note(&mut self, numbers: &[u64], text: impl FnOnce() -> String) {
        for number in numbers {
            self.hash.write_u64(*number);
        }
        if let Some(all) = &mut self.text {
            let text = text();
            self.hash.write(&[]);
            let _ = writeln!(all, "{:>9} {text}", self.now);
        }
    }

    pub(crate) fn finish(self) -> (u64, Option<String>) {
        (self.hash.finish(), self.text)
    }
}
