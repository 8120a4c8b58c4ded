//! Names that people choose: of clients, applications and pipelines.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A DNS label: 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter and not ending in `-`.
///
/// The form of a Kubernetes namespace, so that an application's name can be one.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest a name can be, in bytes.
    pub const MAX_LEN: usize = 63;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be 1 to 63 of a-z, 0-9 and '-', begin with a letter and not end in '-'")]
pub struct ParseNameError;

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = (1..=Self::MAX_LEN).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-');
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(ParseNameError)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The full name of a pipeline.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PipelinePath {
    /// The tenant.
    pub client: Name,
    /// Its application.
    pub application: Name,
    /// The pipeline in it.
    pub pipeline: Name,
}

impl fmt::Display for PipelinePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.client, self.application, self.pipeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "ocr", "a-1", &"a".repeat(63)] {
            let name: Name = good.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string().as_str()), (good, good));
        }
        for bad in [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "a.b",
            "a/b",
            "ä",
            "a b",
            &"a".repeat(64),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(ParseNameError), "{bad}");
        }
    }
}
