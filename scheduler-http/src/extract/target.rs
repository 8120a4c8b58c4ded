//! Who asks, and for what: the API key and the names in the path.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use scheduler_core::id::TaskId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::gateway::Caller;

use crate::Api;
use crate::problem::{Kind, Problem};

/// The caller of a request about nothing in particular.
#[derive(Debug)]
pub(crate) struct Who(pub(crate) Caller);

/// A request about an application.
#[derive(Debug)]
pub(crate) struct InApplication {
    pub(crate) caller: Caller,
    pub(crate) application: Name,
}

/// A request about a pipeline.
#[derive(Debug)]
pub(crate) struct InPipeline(pub(crate) PipelinePath);

/// A request about a task.
#[derive(Debug)]
pub(crate) struct OfTask {
    pub(crate) path: PipelinePath,
    pub(crate) id: TaskId,
}

/// The texts of the parameters of a route.
#[derive(Default)]
struct Texts<'a> {
    app: &'a str,
    name: &'a str,
    id: &'a str,
}

impl<'a> Texts<'a> {
    fn of(params: &'a RawPathParams) -> Self {
        let mut texts = Self::default();
        for (key, value) in params {
            match key {
                "app" => texts.app = value,
                "name" => texts.name = value,
                "id" => texts.id = value,
                _ => {}
            }
        }
        texts
    }
}

fn name(field: &'static str, text: &str) -> Result<Name, Problem> {
    text.parse()
        .map_err(|error| Problem::invalid(field, format!("{error}, found {:?}", shorten(text))))
}

/// At most 80 characters of a text that somebody else chose, for a message.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(80) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

async fn path_params(parts: &mut Parts, api: &Arc<Api>) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, api)
        .await
        .map_err(|rejection| Problem::invalid("path", format!("{rejection}; percent-encode UTF-8")))
}

/// The key as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; the first of them that is there counts.
fn api_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let wrong = |detail| Problem::new(Kind::Unauthenticated, detail);
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value
            .to_str()
            .map_err(|_| wrong("the Authorization header must be visible ASCII"))?;
        return match text.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty() => {
                Ok(Some(key.trim()))
            }
            _ => Err(wrong("the Authorization header must be `Bearer KEY`")),
        };
    }
    match headers.get("x-api-key") {
        Some(value) => value
            .to_str()
            .map(Some)
            .map_err(|_| wrong("the X-Api-Key header must be visible ASCII")),
        None => Ok(None),
    }
}

async fn authenticate(parts: &Parts, api: &Arc<Api>) -> Result<Caller, Problem> {
    let key = api_key(&parts.headers)?;
    Ok(api.gateway.authenticate(key).await?)
}

impl FromRequestParts<Arc<Api>> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        authenticate(parts, api).await.map(Self)
    }
}

impl FromRequestParts<Arc<Api>> for InApplication {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = authenticate(parts, api).await?;
        let params = path_params(parts, api).await?;
        let application = name("app", Texts::of(&params).app)?;
        Ok(Self { caller, application })
    }
}

fn pipeline_path(caller: Caller, texts: &Texts<'_>) -> Result<PipelinePath, Problem> {
    Ok(PipelinePath {
        client: caller.client,
        application: name("app", texts.app)?,
        pipeline: name("name", texts.name)?,
    })
}

impl FromRequestParts<Arc<Api>> for InPipeline {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = authenticate(parts, api).await?;
        let params = path_params(parts, api).await?;
        pipeline_path(caller, &Texts::of(&params)).map(Self)
    }
}

impl FromRequestParts<Arc<Api>> for OfTask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = authenticate(parts, api).await?;
        let params = path_params(parts, api).await?;
        let texts = Texts::of(&params);
        let path = pipeline_path(caller, &texts)?;
        let id = texts
            .id
            .parse()
            .map_err(|error| Problem::invalid("id", format!("{error}, found {:?}", shorten(texts.id))))?;
        Ok(Self { path, id })
    }
}
