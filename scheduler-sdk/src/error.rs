use std::error::Error;
use std::fmt;

/// Characters of an error that are reported, at most.
const MAX_TEXT: usize = 16 * 1024;

/// Why an attempt failed, and whether another may succeed.
///
/// Any error becomes a retryable one with `?`, its causes in its text. Like `anyhow::Error` it is therefore no
/// [`Error`] itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskError {
    permanent: bool,
    text: String,
}

impl TaskError {
    /// Another attempt may succeed.
    pub fn retryable(text: impl fmt::Display) -> Self {
        Self {
            permanent: false,
            text: bounded(text.to_string()),
        }
    }

    /// No attempt will ever succeed; the task becomes a dead letter at once.
    pub fn permanent(text: impl fmt::Display) -> Self {
        Self {
            permanent: true,
            text: bounded(text.to_string()),
        }
    }

    /// Whether no attempt will ever succeed.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E: Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::retryable(text)
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}
