use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};

use super::{ParamError, Params, is_name, kind_of};
use crate::definition::DefinitionError;

/// Parameters in one schema, at most.
const MAX_PROPERTIES: usize = 128;
const MAX_PATTERN_BYTES: usize = 1024;
/// Memory of one compiled pattern, at most.
const MAX_PATTERN_SIZE: usize = 256 * 1024;

/// Which params a pipeline takes. A small part of JSON Schema, with its meaning:
///
/// ```yaml
/// params:
///   required: [url]
///   additionalProperties: false      # default true
///   properties:
///     url: { type: string, maxLength: 2048, pattern: "^https?://" }
///     language: { type: string, enum: [eng, deu], default: eng }
///     note: { type: string, leadingDash: true }
/// ```
///
/// `type` is `string`, `number`, `integer` or `boolean`; `maxLength` counts characters; `pattern` is a regular
/// expression found anywhere unless anchored; `default` stands in for a missing value; `description` is for people.
/// `leadingDash` (ours) lets a string that begins with `-` stand where a tool could read it as an option. Any other
/// keyword is refused, so that none is believed to be checked that is not.
#[derive(Clone, Debug, Default)]
pub struct ParamsSchema {
    required: Vec<String>,
    properties: BTreeMap<String, Property>,
    closed: bool,
}

/// The types a parameter can be restricted to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParamKind {
    /// Any JSON string.
    String,
    /// Any JSON number.
    Number,
    /// A number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Property {
    kind: Option<ParamKind>,
    max_length: Option<usize>,
    pattern: Option<Regex>,
    allowed: Vec<Value>,
    default: Option<Value>,
    description: Option<String>,
    leading_dash: bool,
}

impl ParamsSchema {
    /// Checks the values of a task and fills in the defaults.
    ///
    /// # Errors
    ///
    /// The first parameter that does not fit, and how.
    pub fn check(&self, mut params: Params) -> Result<Params, ParamError> {
        for (name, property) in &self.properties {
            match (params.values.get(name), &property.default) {
                (Some(value), _) => property.check(name, value)?,
                (None, Some(default)) => {
                    params.values.insert(name.clone(), default.clone());
                }
                (None, None) => {}
            }
            if property.leading_dash {
                params.dash_allowed.insert(name.clone());
            }
        }
        if let Some(name) = self
            .required
            .iter()
            .find(|name| !params.values.contains_key(*name))
        {
            return Err(ParamError::Missing { name: name.clone() });
        }
        if self.closed
            && let Some(name) = params
                .values
                .keys()
                .find(|name| !self.properties.contains_key(*name))
        {
            return Err(ParamError::Unknown { name: name.clone() });
        }
        Ok(params)
    }

    pub(crate) fn from_value(value: &Value, path: &str) -> Result<Self, DefinitionError> {
        let Value::Object(fields) = value else {
            return Err(DefinitionError::new(
                path,
                format!("must be an object, found {}", kind_of(value)),
            ));
        };
        let mut schema = Self::default();
        for (key, value) in fields {
            let path = format!("{path}.{key}");
            match (key.as_str(), value) {
                ("type", Value::String(kind)) if kind == "object" => {}
                ("type", _) => return Err(DefinitionError::new(path, "must be \"object\"")),
                ("required", Value::Array(names)) => {
                    for (index, name) in names.iter().enumerate() {
                        let name = name.as_str().filter(|name| is_name(name)).ok_or_else(|| {
                            DefinitionError::new(format!("{path}[{index}]"), "must be the name of a param")
                        })?;
                        schema.required.push(name.to_owned());
                    }
                }
                ("required", _) => return Err(DefinitionError::new(path, "must be an array of names")),
                ("properties", Value::Object(properties)) => schema.read_properties(properties, &path)?,
                ("properties", _) => {
                    return Err(DefinitionError::new(path, "must be an object of params by name"));
                }
                ("additionalProperties", Value::Bool(allowed)) => schema.closed = !allowed,
                ("additionalProperties", _) => {
                    return Err(DefinitionError::new(path, "must be true or false"));
                }
                ("description" | "title" | "$schema" | "$id", _) => {}
                _ => {
                    return Err(DefinitionError::new(
                        path,
                        "is not supported; use type, required, properties or additionalProperties",
                    ));
                }
            }
        }
        if schema.required.len() > MAX_PROPERTIES {
            return Err(DefinitionError::new(
                format!("{path}.required"),
                format!(
                    "names {} params, at most {MAX_PROPERTIES} are possible",
                    schema.required.len()
                ),
            ));
        }
        Ok(schema)
    }

    fn read_properties(
        &mut self,
        properties: &Map<String, Value>,
        path: &str,
    ) -> Result<(), DefinitionError> {
        if properties.len() > MAX_PROPERTIES {
            let message = format!(
                "has {} params, at most {MAX_PROPERTIES} are possible",
                properties.len()
            );
            return Err(DefinitionError::new(path, message));
        }
        for (name, value) in properties {
            let path = format!("{path}.{name}");
            if !is_name(name) {
                return Err(DefinitionError::new(
                    path,
                    "is not a name; use a letter or `_`, then letters, digits, `_` or `-`, at most 64 bytes",
                ));
            }
            if name == super::PIPE {
                return Err(DefinitionError::new(
                    path,
                    "is set by the worker; choose another name",
                ));
            }
            self.properties
                .insert(name.clone(), Property::from_value(value, &path)?);
        }
        Ok(())
    }

    pub(crate) fn to_value(&self) -> Value {
        let properties: Map<_, _> = self
            .properties
            .iter()
            .map(|(name, property)| (name.clone(), property.to_value()))
            .collect();
        let mut value = json!({ "properties": properties });
        if !self.required.is_empty() {
            value["required"] = json!(self.required);
        }
        if self.closed {
            value["additionalProperties"] = json!(false);
        }
        value
    }
}

impl PartialEq for ParamsSchema {
    fn eq(&self, other: &Self) -> bool {
        self.to_value() == other.to_value()
    }
}

impl Property {
    fn from_value(value: &Value, path: &str) -> Result<Self, DefinitionError> {
        let Value::Object(fields) = value else {
            return Err(DefinitionError::new(
                path,
                format!("must be an object, found {}", kind_of(value)),
            ));
        };
        let mut property = Self::default();
        for (key, value) in fields {
            let path = format!("{path}.{key}");
            match (key.as_str(), value) {
                ("type", value) => property.kind = Some(kind(value, &path)?),
                ("maxLength", value) => {
                    let length = value.as_u64().and_then(|length| usize::try_from(length).ok());
                    let length = length
                        .ok_or_else(|| DefinitionError::new(&path, "must be a number of characters"))?;
                    property.max_length = Some(length);
                }
                ("pattern", Value::String(text)) => property.pattern = Some(pattern(text, &path)?),
                ("pattern", _) => return Err(DefinitionError::new(path, "must be a regular expression")),
                ("enum", Value::Array(values)) if !values.is_empty() => property.allowed.clone_from(values),
                ("enum", _) => {
                    return Err(DefinitionError::new(
                        path,
                        "must be an array of values, not empty",
                    ));
                }
                ("default", value) => property.default = Some(value.clone()),
                ("description", Value::String(text)) => property.description = Some(text.clone()),
                ("leadingDash", Value::Bool(allowed)) => property.leading_dash = *allowed,
                ("leadingDash", _) => return Err(DefinitionError::new(path, "must be true or false")),
                _ => {
                    return Err(DefinitionError::new(
                        path,
                        "is not supported; use type, maxLength, pattern, enum, default, description or leadingDash",
                    ));
                }
            }
        }
        if let Some(default) = &property.default {
            let fits = property.check("default", default);
            fits.map_err(|error| DefinitionError::new(format!("{path}.default"), error.to_string()))?;
        }
        Ok(property)
    }

    fn check(&self, name: &str, value: &Value) -> Result<(), ParamError> {
        let name = || name.to_owned();
        if let Some(expected) = self.kind
            && !expected.holds(value)
        {
            return Err(ParamError::Type {
                name: name(),
                expected,
                found: kind_of(value),
            });
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            return Err(ParamError::NotAllowed {
                name: name(),
                allowed: Value::from(self.allowed.clone()).to_string(),
            });
        }
        let Value::String(text) = value else { return Ok(()) };
        if let Some(max) = self.max_length {
            let length = text.chars().count();
            if length > max {
                return Err(ParamError::TooLong {
                    name: name(),
                    length,
                    max,
                });
            }
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(text) => Err(ParamError::Pattern {
                name: name(),
                pattern: pattern.as_str().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn to_value(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value);
            }
        };
        put("type", self.kind.map(|kind| json!(kind.keyword())));
        put("maxLength", self.max_length.map(|length| json!(length)));
        put(
            "pattern",
            self.pattern.as_ref().map(|pattern| json!(pattern.as_str())),
        );
        put("enum", (!self.allowed.is_empty()).then(|| json!(self.allowed)));
        put("default", self.default.clone());
        put("description", self.description.as_ref().map(|text| json!(text)));
        put("leadingDash", self.leading_dash.then_some(Value::Bool(true)));
        Value::Object(fields)
    }
}

impl ParamKind {
    fn keyword(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

fn kind(value: &Value, path: &str) -> Result<ParamKind, DefinitionError> {
    [
        ParamKind::String,
        ParamKind::Number,
        ParamKind::Integer,
        ParamKind::Boolean,
    ]
    .into_iter()
    .find(|kind| value == kind.keyword())
    .ok_or_else(|| DefinitionError::new(path, "must be \"string\", \"number\", \"integer\" or \"boolean\""))
}

fn pattern(text: &str, path: &str) -> Result<Regex, DefinitionError> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(DefinitionError::new(
            path,
            format!("is longer than {MAX_PATTERN_BYTES} bytes"),
        ));
    }
    RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_SIZE)
        .build()
        .map_err(|error| DefinitionError::new(path, format!("is not a usable regular expression: {error}")))
}
