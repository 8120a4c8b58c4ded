//! One shell command with `{{name}}` placeholders, and how values get into it without ever becoming code.

mod command;
mod error;
mod interpreter;
mod scan;
mod word;

use std::fmt;

pub use self::error::{TemplateError, TemplateProblem};
use crate::params::{ParamError, Params};

/// Linux gives a program no single argument longer than this, and the command is one argument of the shell.
pub const MAX_RENDERED_BYTES: usize = 128 * 1024 - 1;

/// One shell command with `{{name}}` placeholders, read and found safe to fill in.
///
/// A command is read once, when the pipeline is defined, by a scanner that understands a strict subset of the shell:
/// it knows the quoting at each placeholder and which command the surrounding word belongs to. What it does not
/// understand, or what no quoting can make safe, is refused there and then. Commands without placeholders are not
/// read at all: they may use everything their shell offers.
///
/// # What is promised
///
/// In `sh` (dash, busybox ash) and in bash, a value arrives unchanged, as one word or as a part of the one word its
/// placeholder stands in. It is never split, expanded, run, or taken for an option of the tool.
///
/// # What is refused
///
/// Placeholders in backticks, arithmetic, `${…}`, here-documents, comments and `[[ … ]]`; as (part of) the name of a
/// command or an option; in what the shell or another interpreter takes for code (`sh -c "… {{x}} …"`, `eval`,
/// `awk`/`sed`/`python -c` scripts, `ssh`). Together with any placeholder: `case`, functions, `eval`, commands whose
/// name is an expansion, interpreters that read their script from standard input.
///
/// For code that needs a value, hand it over as an argument: `sh -c 'convert "$1" out.png' sh {{picture}}`.
///
/// # What cannot be promised
///
/// A tool may treat a plain argument as code or as a path (`tar --to-command={{x}}`, `cat {{file}}`); and once the
/// author has stored a value in a shell variable, an unquoted `$variable` is split by the shell as ever. Restrict
/// such values with the pipeline's parameter schema.
#[derive(Clone)]
pub struct Template {
    source: Box<str>,
    placeholders: Box<[Placeholder]>,
}

/// Where a value goes, and what it takes to stay one there.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Placeholder {
    /// Byte range of `{{name}}` in the source.
    start: usize,
    end: usize,
    name: Box<str>,
    place: Place,
    /// The value opens a word that the tool may read as an option.
    opens_argument: bool,
}

/// The quoting around a placeholder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Bare,
    InSingleQuotes,
    InDoubleQuotes,
}

impl Template {
    /// Reads a shell command.
    ///
    /// # Errors
    ///
    /// Says at which character the command cannot be filled in safely, why, and what to write instead.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        if let Some(at) = source.find('\0') {
            return Err(TemplateError::new(source, at, TemplateProblem::Nul));
        }
        let placeholders = if source.contains("{{") {
            scan::placeholders(source)?
        } else {
            Vec::new()
        };
        Ok(Self {
            source: source.into(),
            placeholders: placeholders.into(),
        })
    }

    /// The command as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names of the placeholders in order of appearance, with repetitions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.placeholders.iter().map(|placeholder| &*placeholder.name)
    }

    /// Fills the values in, each quoted for its place.
    ///
    /// # Errors
    ///
    /// A parameter is missing, holds a NUL character (no program can be given one), begins with `-` where the tool
    /// would take it for an option, or makes the command longer than [`MAX_RENDERED_BYTES`].
    pub fn render(&self, params: &Params) -> Result<String, ParamError> {
        let mut out = String::with_capacity(self.source.len() + 16 * self.placeholders.len());
        let mut copied = 0;
        for placeholder in &self.placeholders {
            out.push_str(&self.source[copied..placeholder.start]);
            copied = placeholder.end;
            let value = placeholder.value(params)?;
            if out.len() + value.len() > MAX_RENDERED_BYTES {
                return Err(ParamError::CommandTooLong {
                    name: placeholder.name.to_string(),
                });
            }
            placeholder.place.quote(&value, &mut out);
        }
        out.push_str(&self.source[copied..]);
        match self.placeholders.last() {
            Some(last) if out.len() > MAX_RENDERED_BYTES => Err(ParamError::CommandTooLong {
                name: last.name.to_string(),
            }),
            _ => Ok(out),
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Eq for Template {}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Placeholder {
    fn value<'a>(&self, params: &'a Params) -> Result<std::borrow::Cow<'a, str>, ParamError> {
        let text = params.text(&self.name)?;
        if self.opens_argument && reads_as_option(&text) && !params.may_open_with_dash(&self.name) {
            return Err(ParamError::LeadingDash {
                name: self.name.to_string(),
            });
        }
        Ok(text)
    }
}

/// `-` alone is standard input to most tools, `-5` is a number.
fn reads_as_option(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| {
        let number = rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        !number
    })
}

impl Place {
    fn quote(self, value: &str, out: &mut String) {
        // Between single quotes everything but the single quote is itself, in every shell. From double quotes it is
        // reached by closing and reopening them, which also keeps `"$name{{x}}"` from becoming another variable.
        let (open, close) = match self {
            Self::Bare => ("'", "'"),
            Self::InSingleQuotes => ("", ""),
            Self::InDoubleQuotes => ("\"'", "'\""),
        };
        out.push_str(open);
        for (index, piece) in value.split('\'').enumerate() {
            if index > 0 {
                out.push_str(r"'\''");
            }
            out.push_str(piece);
        }
        out.push_str(close);
    }
}

#[cfg(test)]
mod tests;
