//! What a task is submitted with: a JSON object of named values.

mod schema;

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub use self::schema::{ParamKind, ParamsSchema};

/// The placeholder for the directory that the steps of a task share.
pub const PIPE: &str = "pipe";

/// Whether this can name a parameter: a letter or `_`, then letters, digits, `_` or `-`; at most 64 bytes.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The values of one task, by name.
///
/// The name `pipe` belongs to the worker, which sets it with [`Params::with_pipe`]; a value submitted under it is not
/// used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    values: Map<String, Value>,
    pipe: Option<String>,
    dash_allowed: BTreeSet<String>,
}

impl Params {
    /// Values that are parsed already.
    pub fn new(values: Map<String, Value>) -> Self {
        Self {
            values,
            ..Self::default()
        }
    }

    /// Reads the JSON object of a task; nothing at all is an empty object.
    ///
    /// # Errors
    ///
    /// [`ParamError::NotAnObject`] for anything else.
    pub fn from_json(json: &[u8]) -> Result<Self, ParamError> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(json) {
            Ok(Value::Object(values)) => Ok(Self::new(values)),
            Ok(other) => Err(ParamError::NotAnObject {
                found: kind_of(&other).to_owned(),
            }),
            Err(error) => Err(ParamError::NotAnObject {
                found: format!("invalid JSON ({error})"),
            }),
        }
    }

    /// Sets what `{{pipe}}` stands for.
    #[must_use]
    pub fn with_pipe(mut self, directory: impl Into<String>) -> Self {
        self.pipe = Some(directory.into());
        self
    }

    /// The values as a JSON object.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// A value as plain text: a string is itself, everything else its JSON.
    ///
    /// # Errors
    ///
    /// The parameter is missing or holds a NUL character.
    pub fn text(&self, name: &str) -> Result<Cow<'_, str>, ParamError> {
        if name == PIPE {
            let missing = || ParamError::Missing {
                name: name.to_owned(),
            };
            return self.pipe.as_deref().map(Cow::Borrowed).ok_or_else(missing);
        }
        let text = match self.values.get(name) {
            None => {
                return Err(ParamError::Missing {
                    name: name.to_owned(),
                });
            }
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(other) => Cow::Owned(other.to_string()),
        };
        if text.contains('\0') {
            return Err(ParamError::Nul {
                name: name.to_owned(),
            });
        }
        Ok(text)
    }

    pub(crate) fn may_open_with_dash(&self, name: &str) -> bool {
        self.dash_allowed.contains(name)
    }
}

/// Values that a pipeline cannot take. Running the task again would not help.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// The params are not a JSON object.
    #[error("params must be a JSON object such as {{\"url\": \"…\"}}, found {found}")]
    NotAnObject {
        /// What was found instead.
        found: String,
    },
    /// A required parameter, or one that a command uses.
    #[error("param `{name}` is missing")]
    Missing {
        /// The parameter.
        name: String,
    },
    /// The schema admits no parameters but its own.
    #[error("param `{name}` is not one that this pipeline takes")]
    Unknown {
        /// The parameter.
        name: String,
    },
    /// No program can be given such an argument.
    #[error("param `{name}` holds a NUL character, which no command can be given")]
    Nul {
        /// The parameter.
        name: String,
    },
    /// It would become an option of the tool.
    #[error(
        "param `{name}` begins with `-` and the tool would read it as an option; put `--` before the placeholder, or \
         set `leadingDash: true` for it in the params schema if that is meant"
    )]
    LeadingDash {
        /// The parameter.
        name: String,
    },
    /// The command would not fit into one argument.
    #[error(
        "param `{name}` makes the command longer than {} bytes; pass large values in a file",
        crate::MAX_RENDERED_BYTES
    )]
    CommandTooLong {
        /// The parameter.
        name: String,
    },
    /// Not of the type that the schema says.
    #[error("param `{name}` must be {expected}, found {found}")]
    Type {
        /// The parameter.
        name: String,
        /// The type of the schema.
        expected: ParamKind,
        /// The type of the value.
        found: &'static str,
    },
    /// Longer than the schema admits.
    #[error("param `{name}` has {length} characters, at most {max} are taken")]
    TooLong {
        /// The parameter.
        name: String,
        /// Its length in characters.
        length: usize,
        /// The longest admitted.
        max: usize,
    },
    /// The schema's pattern is not found in it.
    #[error("param `{name}` does not match the pattern `{pattern}`")]
    Pattern {
        /// The parameter.
        name: String,
        /// The regular expression.
        pattern: String,
    },
    /// Not one of the schema's values.
    #[error("param `{name}` must be one of {allowed}")]
    NotAllowed {
        /// The parameter.
        name: String,
        /// The values, as JSON.
        allowed: String,
    },
}

impl ParamError {
    /// The parameter at fault, unless the params as a whole are.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::NotAnObject { .. } => None,
            Self::Missing { name }
            | Self::Unknown { name }
            | Self::Nul { name }
            | Self::LeadingDash { name }
            | Self::CommandTooLong { name }
            | Self::Type { name, .. }
            | Self::TooLong { name, .. }
            | Self::Pattern { name, .. }
            | Self::NotAllowed { name, .. } => Some(name),
        }
    }
}

pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
