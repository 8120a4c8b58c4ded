//! Submitting any number of tasks as one stream of lines, in bounded memory.
//!
//! Lines are read as they come, go to the log in batches of which a few are in flight, and are answered in order. When the
//! log is behind or the client does not read the answer, the body is not read on; when the client hangs up, everything stops.

mod batch;
mod lines;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use scheduler_core::name::PipelinePath;
use scheduler_core::task::{Priority, TaskSpec};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use self::batch::{Batches, Totals, answer};
use super::pipelines::PipelineParams;
use super::submit::{TaskParams, trace_of};
use crate::Api;
use crate::config::HttpConfig;
use crate::extract::{
    FromPairs, InPipeline, Pairs, Query, once, params_of, read_json, require_media_type, shorten, unknown,
};
use crate::human::{HumanDuration, Moment, now};
use crate::problem::{Kind, LineError, Problem};
use crate::serve::Draining;
use crate::wire::options::{Due, TaskChoices, delay_twice, key_of, traceparent_of};

/// What can be said about the lines and the answer in the query.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only")]
struct BulkParams {
    /// Whether each line is an envelope with options of its own, `{"params": {…}, "priority": 7, …}`, instead of the bare params.
    envelope: Option<bool>,
    /// `all` (default): one line for each line of the request. `errors`: only lines that were refused, and at last
    /// `{"accepted": n, "refused": m}`; for clients that do not read while they write.
    #[param(inline)]
    answer: Option<Answers>,
}

/// What is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ToSchema)]
#[schema(rename_all = "snake_case")]
enum Answers {
    /// A line for each line.
    #[default]
    All,
    /// Lines that were refused, and a total.
    Errors,
}

/// A line of a bulk submission with `envelope=true`. What is not said is as in the query.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"params": {"url": "https://example.com/pic.png"}, "priority": 7, "delay": "10s", "idempotency_key": "order-4711"}))]
struct Envelope<'a> {
    /// The params of the task.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    params: &'a RawValue,
    /// 0 (last) to 9 (first).
    #[schema(nullable = false, minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// It starts so long after the submission at the earliest.
    #[schema(nullable = false)]
    delay: Option<HumanDuration>,
    /// It starts at this moment at the earliest; instead of `delay`.
    #[schema(nullable = false)]
    not_before: Option<Moment>,
    /// It expires if it has not ended by then: a moment, or a duration from the submission.
    #[schema(nullable = false)]
    deadline: Option<String>,
    /// Tasks with the same key within 24 hours are one task.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
    /// The W3C trace context.
    #[schema(nullable = false)]
    traceparent: Option<String>,
}

/// A line of the answer: either `id` or `error`.
#[derive(ToSchema)]
#[schema(as = BulkAnswer, example = json!({"id": "t1-0-2f"}))]
#[expect(dead_code, reason = "describes what is written by hand")]
struct BulkAnswer<'a> {
    /// The id of the task that was accepted.
    #[schema(nullable = false)]
    id: Option<String>,
    /// Why the line was refused.
    #[schema(nullable = false)]
    error: Option<LineError<'a>>,
}

/// How a line is read.
#[derive(Debug, Default)]
struct Reader {
    envelope: bool,
    choices: TaskChoices,
}

impl Reader {
    fn read(&self, line: &Bytes, config: &HttpConfig) -> Result<TaskSpec, Problem> {
        let (params, choices) = if self.envelope {
            let envelope: Envelope<'_> = read_json(line)?;
            // A slice of the line, so that the params are not copied.
            let params = line.slice_ref(envelope.params.get().as_bytes());
            (params, envelope.choices()?.or(&self.choices))
        } else {
            (line.clone(), self.choices.clone())
        };
        let params = params_of(&params, "params")?;
        if params.len() > config.max_params {
            let detail = format!("must be at most {} bytes long", config.max_params);
            return Err(Problem::new(Kind::BodyTooLarge, detail).at("params"));
        }
        choices.into_spec(params, now)
    }
}

impl Envelope<'_> {
    fn choices(&self) -> Result<TaskChoices, Problem> {
        let priority = self
            .priority
            .map(|level| {
                Priority::new(level).ok_or_else(|| {
                    Problem::invalid(
                        "priority",
                        format!("must be 0 (last) to 9 (first), found {level}"),
                    )
                })
            })
            .transpose()?;
        let not_before = match (&self.delay, &self.not_before) {
            (Some(_), Some(_)) => return Err(delay_twice()),
            (Some(delay), None) => Some(Due::In(delay.0)),
            (None, Some(moment)) => Some(Due::At(moment.0)),
            (None, None) => None,
        };
        let deadline = self.deadline.as_deref().map(Due::parse).transpose();
        let key =
            |field, key: &Option<String>| key.as_ref().map(|key| key_of(field, key.as_bytes())).transpose();
        let traceparent = self.traceparent.as_ref().map(|text| {
            traceparent_of(text.as_bytes()).ok_or_else(|| {
                Problem::invalid(
                    "traceparent",
                    "must be a W3C trace context, 00-<32 hex digits>-<16>-<2>",
                )
            })
        });
        Ok(TaskChoices {
            priority,
            not_before,
            deadline: deadline.map_err(|detail| Problem::invalid("deadline", detail))?,
            idempotency_key: key("idempotency_key", &self.idempotency_key)?,
            traceparent: traceparent.transpose()?,
        })
    }
}

#[derive(Debug, Default)]
struct BulkQuery {
    reader: Reader,
    answers: Answers,
}

impl FromPairs for BulkQuery {
    fn from_pairs(pairs: Pairs<'_>, _: &HttpConfig) -> Result<Self, Problem> {
        let (mut envelope, mut answers) = (None, None);
        let mut choices = TaskChoices::default();
        for (name, value) in pairs {
            match (&*name, &*value) {
                ("envelope", "true") => once(&mut envelope, "envelope", true)?,
                ("envelope", "false") => once(&mut envelope, "envelope", false)?,
                ("envelope", other) => {
                    let detail = format!("must be true or false, found {:?}", shorten(other));
                    return Err(Problem::invalid("envelope", detail));
                }
                ("answer", "all") => once(&mut answers, "answer", Answers::All)?,
                ("answer", "errors") => once(&mut answers, "answer", Answers::Errors)?,
                ("answer", other) => {
                    let detail = format!("must be all or errors, found {:?}", shorten(other));
                    return Err(Problem::invalid("answer", detail));
                }
                _ if choices.take(&name, &value)? => {}
                _ => {
                    let known = "`envelope`, `answer`, `priority`, `delay`, `not_before`, `deadline`";
                    return Err(unknown(&name, known));
                }
            }
        }
        Ok(Self {
            reader: Reader {
                envelope: envelope.unwrap_or_default(),
                choices,
            },
            answers: answers.unwrap_or_default(),
        })
    }
}

/// A stream of tasks on its way in.
pub(crate) struct BulkSubmission {
    path: PipelinePath,
    query: BulkQuery,
    body: Body,
    draining: Option<Draining>,
}

impl FromRequest<Arc<Api>> for BulkSubmission {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let InPipeline(path) = InPipeline::from_request_parts(&mut parts, api).await?;
        let Query(mut query) = Query::<BulkQuery>::from_request_parts(&mut parts, api).await?;
        require_media_type(&parts.headers, "application/x-ndjson")?;
        if parts.headers.contains_key("idempotency-key") {
            return Err(Problem::invalid(
                "Idempotency-Key",
                "would make all lines one task; use envelope=true and give each line its `idempotency_key`",
            ));
        }
        query.reader.choices.traceparent = trace_of(&parts.headers);
        Ok(Self {
            path,
            query,
            body,
            draining: parts.extensions.remove(),
        })
    }
}

/// Submit any number of tasks as a stream.
///
/// The body has one JSON object a line: the params of a task, or with `envelope=true` an envelope that may hold options of its own. Blank lines are
/// skipped. The answer has a line for each of the others, in their order: `{"id": …}` for a task that is accepted and durable, or `{"error": {"line", "type",
/// "detail", "field", "retry_after"}}` for one that was refused; the others are not affected. Tasks may begin in another order than that of their lines.
///
/// Read the answer while you write: the server does not read on while many answers wait for you. Options in the query are for
/// all lines that do not say otherwise.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/tasks/bulk", tag = "tasks", operation_id = "submit_tasks",
    params(PipelineParams, BulkParams, TaskParams),
    request_body(content = Envelope<'_>, description = "Lines of JSON; each at most 520 KiB, its params at most 512 KiB, unless the server is configured otherwise.",
        content_type = "application/x-ndjson"),
    responses((status = 200, description = "Lines of JSON.", body = BulkAnswer<'_>, content_type = "application/x-ndjson")))]
pub(crate) async fn submit(
    State(api): State<Arc<Api>>,
    submission: BulkSubmission,
) -> Result<Response, Problem> {
    let BulkSubmission {
        path,
        query,
        body,
        draining,
    } = submission;
    // Once the answer has begun its status cannot change, so whether there is such a pipeline is asked before.
    api.gateway.pipeline(&path).await?;

    let answers = query.answers;
    let totals = Arc::new(Totals::default());
    let sum = Arc::clone(&totals);
    let in_flight = api.config.bulk_batches_in_flight.max(1);
    let path = Arc::new(path);
    let batches = Batches::new(Arc::clone(&api), query.reader, body.into_data_stream(), draining);
    let lines = batches
        .map(move |batch| {
            answer(
                Arc::clone(&api),
                Arc::clone(&path),
                batch,
                answers,
                Arc::clone(&totals),
            )
        })
        .buffered(in_flight)
        .chain(futures::stream::once(async move {
            match answers {
                Answers::All => Bytes::new(),
                Answers::Errors => sum.line(),
            }
        }))
        .filter(|bytes| std::future::ready(!bytes.is_empty()))
        .map(Ok::<_, Infallible>);
    Ok((
        [(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))],
        Body::from_stream(lines),
    )
        .into_response())
}
