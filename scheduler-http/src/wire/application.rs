//! Applications.

use scheduler_core::name::Name;
use scheduler_core::port::catalog::Application;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::as_text;
use crate::human::Moment;

/// The name of an application or a pipeline: 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter and not ending in `-`.
#[derive(Debug, ToSchema)]
#[schema(
    as = Name,
    value_type = String,
    pattern = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
    min_length = 1,
    max_length = 63,
    example = "ocr"
)]
pub(crate) struct NameText(pub(crate) Name);

impl<'de> Deserialize<'de> for NameText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// An application to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "myname"}))]
pub(crate) struct NewApplication {
    /// 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter and not ending in `-`; unique for the client.
    pub(crate) name: NameText,
}

/// An application: a group of pipelines.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Application, example = json!({"name": "myname", "created_at": "2026-11-24T08:00:00.000Z"}))]
pub(crate) struct ApplicationBody {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    name: Name,
    /// When it was created.
    created_at: Moment,
}

impl From<Application> for ApplicationBody {
    fn from(application: Application) -> Self {
        Self {
            name: application.name,
            created_at: Moment(application.created_at),
        }
    }
}
