//! Bodies: their media type, their size, the time they take, and what is in them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::Api;
use crate::opaque::{NotAnObject, json_object, kind_of};
use crate::problem::{Kind, Problem};

/// A JSON body of type `T`, at most `max_body` long. Unknown fields are refused.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        require_media_type(request.headers(), "application/json")?;
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, body, api, api.config.max_body).await?;
        read_json(&body).map(Self)
    }
}

/// The params of a task: a JSON object, at most `max_params` long, untouched.
pub(crate) async fn read_params(headers: &HeaderMap, body: Body, api: &Api) -> Result<Bytes, Problem> {
    require_media_type(headers, "application/json")?;
    let body = read(headers, body, api, api.config.max_params).await?;
    params_of(&body, "body")
}

/// The JSON object that is the params of a task; `field` is what to call it in an error.
pub(crate) fn params_of(body: &Bytes, field: &'static str) -> Result<Bytes, Problem> {
    json_object(body).map_err(|error| match error {
        NotAnObject::Malformed(error) => malformed(body, &error).at(field),
        NotAnObject::Other(kind) => Problem::invalid(
            field,
            format!(
                "must be a JSON object with the params of the task, found {kind}; without params it is {{}}"
            ),
        ),
    })
}

/// Refuses a body of another media type. For JSON, every `application/…+json` will do.
pub(crate) fn require_media_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let structured = wanted == "application/json"
        && essence
            .get(..12)
            .is_some_and(|start| start.eq_ignore_ascii_case("application/"))
        && essence
            .get(essence.len().saturating_sub(5)..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"));
    if essence.eq_ignore_ascii_case(wanted) || structured {
        return Ok(());
    }
    let found = if given.is_empty() {
        "none was given".into()
    } else {
        format!("found {:?}", super::target::shorten(given))
    };
    Err(Problem::new(
        Kind::UnsupportedMediaType,
        format!("send the body with `Content-Type: {wanted}`; {found}"),
    )
    .at("Content-Type"))
}

/// The whole body, if it is at most `limit` long and comes in time.
async fn read(headers: &HeaderMap, body: Body, api: &Api, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Kind::BodyTooLarge,
            format!("the body must be at most {limit} bytes long"),
        )
        .at("body")
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let timeout = api.config.body_timeout;
    let collected = tokio::time::timeout(timeout, Limited::new(body, limit).collect())
        .await
        .map_err(|_| {
            Problem::new(
                Kind::BodyTimeout,
                format!("the body must arrive within {} s", timeout.as_secs_f64()),
            )
            .at("body")
        })?;
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if is_length_limit(&*error) => Err(too_large()),
        Err(error) => {
            Err(Problem::new(Kind::BodyBroken, format!("the body could not be read: {error}")).at("body"))
        }
    }
}

fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_length_limit)
}

/// Reads a JSON object into a `T`; an error names the field.
pub(crate) fn read_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        // Serde would take an array for the fields in their order.
        return Err(match serde_json::from_slice::<&RawValue>(body) {
            Ok(other) => Problem::invalid("body", format!("must be a JSON object, found {}", kind_of(other))),
            Err(error) => malformed(body, &error),
        });
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let detail = inner.to_string();
            Problem::invalid(field_of(&path, &detail), in_words_of_json(&detail))
        } else {
            malformed(body, &inner)
        }
    })?;
    json.end().map_err(|error| malformed(body, &error))?;
    Ok(value)
}

/// The field at fault: where the reader stood, and the name in the message if it stood before the field.
fn field_of(path: &str, detail: &str) -> String {
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start)?.split('`').next());
    match (path, named) {
        (".", None) => "body".to_owned(),
        (".", Some(name)) => name.to_owned(),
        (path, Some(name)) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
        (path, None) => path.to_owned(),
    }
}

/// A message of the reader, which may name types of this program, in words that a client knows.
fn in_words_of_json(detail: &str) -> String {
    let Some((found, wanted)) = detail.rsplit_once(", expected ") else {
        return detail.to_owned();
    };
    let (wanted, place) = match wanted.rfind(" at line ") {
        Some(at) => wanted.split_at(at),
        None => (wanted, ""),
    };
    let known = match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number that is not negative",
        "f32" | "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "an array",
        wanted if wanted.starts_with("struct ") => "an object",
        wanted => wanted,
    };
    format!("{found}, expected {known}{place}")
}

/// The body is not JSON; `error` says in which line and column.
fn malformed(body: &[u8], error: &serde_json::Error) -> Problem {
    let detail = if body.is_empty() {
        "the body is empty; send a JSON object".to_owned()
    } else if std::str::from_utf8(body).is_err() {
        format!("the body must be UTF-8: {error}")
    } else {
        error.to_string()
    };
    Problem::new(Kind::MalformedJson, detail).at("body")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its reading is tested")]
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its reading is tested")]
        count: u32,
    }

    #[test]
    fn an_error_names_the_field() {
        for (body, field) in [
            (r#"{"inner":{"count":-1}}"#, "inner.count"),
            (r#"{"inner":{"count":1,"more":2}}"#, "inner.more"),
            (r#"{"inner":{}}"#, "inner.count"),
            (r#"{"inner":{"count":1},"x":2}"#, "x"),
            (r#"{"inner":{"count":1,"count":1}}"#, "inner.count"),
            (r"{}", "inner"),
            (r"[]", "body"),
            (r"7", "body"),
        ] {
            let problem = read_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind, Kind::InvalidField, "{body}");
            assert_eq!(
                problem.field.as_deref(),
                Some(field),
                "{body}: {}",
                problem.detail
            );
        }
    }

    #[test]
    fn a_body_is_an_object_even_where_an_array_has_all_fields() {
        for (body, found) in [
            (r#"[{"count":1}]"#, "an array"),
            (" null", "null"),
            (r#""a""#, "a string"),
        ] {
            let problem = read_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.detail, format!("must be a JSON object, found {found}"));
        }
    }

    #[test]
    fn an_error_speaks_of_json_and_not_of_rust() {
        for (body, wanted) in [
            (
                r#"{"inner":{"count":-1}}"#,
                "invalid value: integer `-1`, expected a whole number from 0 to 4294967295 at line 1 column 20",
            ),
            (
                r#"{"inner":{"count":", expected u8"}}"#,
                r#"invalid type: string ", expected u8", expected a whole number from 0 to 4294967295 at line 1 column 33"#,
            ),
            (
                r#"{"inner":7}"#,
                "invalid type: integer `7`, expected an object at line 1 column 10",
            ),
            (
                r#"{"outer":7}"#,
                "unknown field `outer`, expected `inner` at line 1 column 8",
            ),
        ] {
            let problem = read_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.detail, wanted, "{body}");
        }
    }

    #[test]
    fn what_is_not_json_names_line_and_column() {
        for body in ["", "{", "[7,", "{\n  x}", "{\"inner\":{\"count\":1}} more"] {
            let problem = read_json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.kind, Kind::MalformedJson, "{body}");
            assert!(
                body.is_empty() || problem.detail.contains("line"),
                "{}",
                problem.detail
            );
        }
    }
}
