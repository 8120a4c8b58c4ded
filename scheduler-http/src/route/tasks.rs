//! Tasks that were submitted.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use scheduler_core::id::{Partition, TaskId};
use scheduler_core::port::gateway::{Page, PageCursor, TaskFilter};
use utoipa::IntoParams;

use super::pipelines::PipelineParams;
use super::submit::{WaitParams, wait_for, waited};
use crate::Api;
use crate::config::HttpConfig;
use crate::cursor::{self, List};
use crate::extract::{
    FromPairs, InPipeline, OfTask, Pairs, Query, WaitQuery, limit_of, once, shorten, unknown,
};
use crate::problem::Problem;
use crate::serve::Draining;
use crate::wire::Items;
use crate::wire::task::{StateText, TaskBody, state_of};

/// A task in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub(super) struct OneTaskParams {
    /// The application's name.
    #[param(example = "myname")]
    app: String,
    /// The pipeline's name.
    #[param(example = "ocr")]
    name: String,
    /// The task's id, as the submission answered it.
    #[param(example = "t1-0-2f")]
    id: String,
}

/// Which part of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only")]
pub(super) struct PageParams {
    /// `next` of the page before; from the beginning if left out.
    cursor: Option<String>,
    /// Most items on the page. Default 100, at most 1000 unless the server is configured otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Which tasks.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only")]
struct FilterParams {
    /// In one of these states, separated by commas (`running,queued`); in any if left out.
    #[param(style = Form, explode = false)]
    state: Option<Vec<StateText>>,
    /// Of this partition of the pipeline, counted from 0; of all if left out.
    partition: Option<u32>,
}

/// A page that is asked for.
#[derive(Debug)]
pub(super) struct PageQuery {
    pub(super) cursor: Option<String>,
    pub(super) limit: usize,
}

const USUAL_PAGE: usize = 100;

/// Takes a pair of a page's; answers whether it is one.
fn take_page(
    cursor: &mut Option<String>,
    limit: &mut Option<usize>,
    name: &str,
    value: &str,
    config: &HttpConfig,
) -> Result<bool, Problem> {
    match name {
        "cursor" => once(cursor, "cursor", value.to_owned())?,
        "limit" => once(limit, "limit", limit_of(value, config.max_page)?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

impl FromPairs for PageQuery {
    fn from_pairs(pairs: Pairs<'_>, config: &HttpConfig) -> Result<Self, Problem> {
        let (mut cursor, mut limit) = (None, None);
        for (name, value) in pairs {
            if !take_page(&mut cursor, &mut limit, &name, &value, config)? {
                return Err(unknown(&name, "`cursor`, `limit`"));
            }
        }
        Ok(Self {
            cursor,
            limit: limit.unwrap_or(USUAL_PAGE.min(config.max_page)),
        })
    }
}

/// A page of tasks that is asked for.
#[derive(Debug)]
pub(crate) struct TasksQuery {
    page: PageQuery,
    filter: TaskFilter,
}

impl FromPairs for TasksQuery {
    fn from_pairs(pairs: Pairs<'_>, config: &HttpConfig) -> Result<Self, Problem> {
        let (mut cursor, mut limit) = (None, None);
        let mut filter = TaskFilter::default();
        for (name, value) in pairs {
            if name == "state" {
                for text in value.split(',') {
                    let state = state_of(text).ok_or_else(|| {
                        let found = shorten(text);
                        Problem::invalid("state", format!("must be of queued, delayed, running, succeeded, dead, cancelled, expired, separated by commas; found {found:?}"))
                    })?;
                    if !filter.states.contains(&state) {
                        filter.states.push(state);
                    }
                }
            } else if name == "partition" {
                once(&mut filter.partition, "partition", partition_of(&value)?)?;
            } else if !take_page(&mut cursor, &mut limit, &name, &value, config)? {
                return Err(unknown(&name, "`state`, `partition`, `cursor`, `limit`"));
            }
        }
        let limit = limit.unwrap_or(USUAL_PAGE.min(config.max_page));
        Ok(Self {
            page: PageQuery { cursor, limit },
            filter,
        })
    }
}

fn partition_of(text: &str) -> Result<Partition, Problem> {
    let found = shorten(text);
    let number = text
        .parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.map(Partition).ok_or_else(|| {
        Problem::invalid(
            "partition",
            format!("must be the number of a partition, from 0; found {found:?}"),
        )
    })
}

/// The beginning of a page, as much of it as fits into `limit` bytes, and at least one item.
pub(super) fn within<T>(mut page: Page<T>, limit: usize, weigh: impl Fn(&T) -> (TaskId, usize)) -> Page<T> {
    let mut room = limit;
    let mut last = None;
    for (at, item) in page.items.iter().enumerate() {
        let (id, weight) = weigh(item);
        if let Some(last) = last
            && weight > room
        {
            page.items.truncate(at);
            page.next = Some(last);
            return page;
        }
        room = room.saturating_sub(weight);
        last = Some(PageCursor {
            partition: id.shard.partition,
            offset: id.offset,
        });
    }
    page
}

/// List tasks, partition by partition and the newest first.
///
/// A page may have fewer items than asked for, or none, and still a `next`.
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}/tasks", tag = "tasks", operation_id = "list_tasks",
    params(PipelineParams, FilterParams, PageParams),
    responses((status = 200, description = "A page of them.", body = Items<TaskBody>)))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    InPipeline(path): InPipeline,
    Query(query): Query<TasksQuery>,
) -> Result<Json<Items<TaskBody>>, Problem> {
    let after = query
        .page
        .cursor
        .map(|text| cursor::decode(List::Tasks, &path, &text))
        .transpose()?;
    let page = api
        .gateway
        .tasks(&path, &query.filter, after, query.page.limit)
        .await?;
    let page = within(page, api.config.max_page_bytes, |task| {
        let params = task.params.as_ref().map_or(0, Bytes::len);
        (task.id, task.output.len() + task.progress.len() + params)
    });
    Ok(Json(Items {
        items: page.items.into_iter().map(TaskBody::from).collect(),
        next: page.next.map(|next| cursor::encode(List::Tasks, &path, next)),
    }))
}

/// Get a task.
///
/// With `wait`, this answers when the task has ended (200) or as it is when the time is over (202).
#[utoipa::path(get, path = "/api/applications/{app}/pipelines/{name}/tasks/{id}", tag = "tasks", operation_id = "get_task", params(OneTaskParams, WaitParams),
    responses(
        (status = 200, description = "The task.", body = TaskBody),
        (status = 202, description = "With `wait`: the task, which has not ended.", body = TaskBody),
    ))]
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    OfTask { path, id }: OfTask,
    Query(query): Query<WaitQuery>,
    draining: Option<Extension<Draining>>,
) -> Result<Response, Problem> {
    let Some(patience) = query.wait else {
        let view = api.gateway.task(&path, id).await?;
        return Ok(Json(TaskBody::from(view)).into_response());
    };
    let draining = draining.map(|Extension(draining)| draining);
    let view = match wait_for(&api, &path, id, patience, draining).await? {
        Some(view) => view,
        None => api.gateway.task(&path, id).await?,
    };
    Ok(waited(view))
}

/// Cancel a task that has not ended. A running attempt is told to stop.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/tasks/{id}/cancel", tag = "tasks", operation_id = "cancel_task", params(OneTaskParams),
    responses(
        (status = 200, description = "The task as it is now.", body = TaskBody),
        (status = 409, description = "It has ended.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel(
    State(api): State<Arc<Api>>,
    OfTask { path, id }: OfTask,
) -> Result<Json<TaskBody>, Problem> {
    Ok(Json(api.gateway.cancel(&path, id).await?.into()))
}

/// Try a task again: a delayed one now, a dead one with fresh attempts.
#[utoipa::path(post, path = "/api/applications/{app}/pipelines/{name}/tasks/{id}/retry", tag = "tasks", operation_id = "retry_task", params(OneTaskParams),
    responses(
        (status = 200, description = "The task as it is now.", body = TaskBody),
        (status = 409, description = "It is neither delayed nor dead.", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    OfTask { path, id }: OfTask,
) -> Result<Json<TaskBody>, Problem> {
    Ok(Json(api.gateway.retry(&path, id).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::id::{Offset, Partition, PipelineId, ShardId};

    fn cut(weights: &[usize], limit: usize) -> (usize, Option<u64>) {
        let id = |at: usize| ShardId::new(PipelineId(1), Partition(0)).task(Offset(at as u64));
        let page = Page {
            items: weights.iter().copied().enumerate().collect(),
            next: None,
        };
        let page = within(page, limit, |(at, weight)| (id(*at), *weight));
        (page.items.len(), page.next.map(|next| next.offset.0))
    }

    #[test]
    fn a_page_is_cut_where_it_gets_too_long() {
        assert_eq!(cut(&[], 10), (0, None));
        assert_eq!(cut(&[5, 5], 10), (2, None));
        assert_eq!(cut(&[5, 5, 1], 10), (2, Some(1)));
        assert_eq!(cut(&[50, 1], 10), (1, Some(0)));
    }
}
