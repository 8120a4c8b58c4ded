//! Query parameters. Unknown ones are refused, so that a mistyped option is not lost in silence.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::Api;
use crate::config::HttpConfig;
use crate::human::parse_duration;
use crate::problem::Problem;

/// The query of a request, as pairs that each handler's type takes in.
pub(crate) type Pairs<'a> = form_urlencoded::Parse<'a>;

/// A type that is read from the query.
pub(crate) trait FromPairs: Sized {
    /// Takes every pair or refuses the query.
    fn from_pairs(pairs: Pairs<'_>, config: &HttpConfig) -> Result<Self, Problem>;
}

/// The query as a `T`.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: FromPairs> FromRequestParts<Arc<Api>> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        T::from_pairs(form_urlencoded::parse(query.as_bytes()), &api.config).map(Self)
    }
}

/// The query parameter `name` is not known here.
pub(crate) fn unknown(name: &str, known: &str) -> Problem {
    let name = super::target::shorten(name).into_owned();
    Problem::invalid(
        name,
        format!("is not a query parameter of this path; there is {known}"),
    )
}

/// Puts a value that must come once.
pub(crate) fn once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::invalid(name, "is given twice; give it once")),
    }
}

/// `?wait=30s`.
pub(crate) fn wait_of(text: &str, config: &HttpConfig) -> Result<Duration, Problem> {
    let wait = parse_duration(text).map_err(|detail| Problem::invalid("wait", detail))?;
    if wait > config.max_wait {
        let detail = format!(
            "must be at most {} s; ask again when it is over",
            config.max_wait.as_secs_f64()
        );
        return Err(Problem::invalid("wait", detail));
    }
    Ok(wait)
}

/// A number from 1 to `most`, as `?limit=` takes it.
pub(crate) fn limit_of(text: &str, most: usize) -> Result<usize, Problem> {
    text.parse()
        .ok()
        .filter(|limit| (1..=most).contains(limit))
        .ok_or_else(|| Problem::invalid("limit", format!("must be 1 to {most}, found {text:?}")))
}

/// The query of a path that takes none but `wait`.
#[derive(Debug)]
pub(crate) struct WaitQuery {
    pub(crate) wait: Option<Duration>,
}

impl FromPairs for WaitQuery {
    fn from_pairs(pairs: Pairs<'_>, config: &HttpConfig) -> Result<Self, Problem> {
        let mut wait = None;
        for (name, value) in pairs {
            match &*name {
                "wait" => once(&mut wait, "wait", wait_of(&value, config)?)?,
                _ => return Err(unknown(&name, "`wait`")),
            }
        }
        Ok(Self { wait })
    }
}
