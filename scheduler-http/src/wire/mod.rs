//! What is on the wire: each body has its own type and one conversion; domain types are not serialized.

pub(crate) mod application;
pub(crate) mod dead;
pub(crate) mod options;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod shown;
pub(crate) mod task;

use serde::Serialize;
use utoipa::ToSchema;

/// Everything there is, or a page of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Items<T> {
    /// What is in it.
    pub(crate) items: Vec<T>,
    /// Where to go on: pass it as `cursor`. Absent on the last page, and of lists without pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl<T> Items<T> {
    /// A list without pages.
    pub(crate) fn all(items: impl IntoIterator<Item = T>) -> Self {
        Self {
            items: items.into_iter().collect(),
            next: None,
        }
    }
}

/// Serializes what has a text.
pub(crate) fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
