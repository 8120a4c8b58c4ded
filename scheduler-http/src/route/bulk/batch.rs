//! Gathers lines into batches, and answers them.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use scheduler_core::id::TaskId;
use scheduler_core::name::PipelinePath;
use scheduler_core::task::TaskSpec;

use super::lines::{Line, Lines};
use super::{Answers, Reader};
use crate::Api;
use crate::problem::{Kind, Problem};
use crate::serve::Draining;

/// Lines that go to the log together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    tasks: Vec<TaskSpec>,
    /// What each line is, in order: the next of the tasks, or a problem.
    lines: Vec<(u64, Option<Problem>)>,
    bytes: usize,
}

/// The batches of a body. One is ready when it is full, or when the client pauses.
pub(super) struct Batches {
    api: Arc<Api>,
    reader: Reader,
    body: Option<BodyDataStream>,
    lines: Lines,
    batch: Batch,
    draining: futures::future::Fuse<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Batches {
    pub(super) fn new(
        api: Arc<Api>,
        reader: Reader,
        body: BodyDataStream,
        draining: Option<Draining>,
    ) -> Self {
        let lines = Lines::new(api.config.max_line);
        let draining: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(Draining::begun(draining));
        Self {
            api,
            reader,
            body: Some(body),
            lines,
            batch: Batch::default(),
            draining: draining.fuse(),
        }
    }

    fn take_line(&mut self, line: Line) {
        let (number, task) = match line {
            Line::Whole { number, text } => (number, self.reader.read(&text, &self.api.config)),
            Line::TooLong { number } => {
                let detail = format!("the line must be at most {} bytes long", self.api.config.max_line);
                (number, Err(Problem::new(Kind::BodyTooLarge, detail)))
            }
        };
        let problem = match task {
            Ok(task) => {
                self.batch.bytes += task.weight();
                self.batch.tasks.push(task);
                None
            }
            Err(problem) => Some(problem),
        };
        self.batch.lines.push((number, problem));
    }

    fn is_full(&self) -> bool {
        self.batch.lines.len() >= self.api.config.bulk_batch_lines
            || self.batch.bytes >= self.api.config.bulk_batch_bytes
    }

    /// Ends the body before its time, with a last line that says why.
    fn stop(&mut self, problem: Problem) {
        self.body = None;
        self.batch.lines.push((self.lines.at(), Some(problem)));
    }
}

impl Stream for Batches {
    type Item = Batch;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let this = &mut *self;
        loop {
            while !this.is_full()
                && let Some(line) = this.lines.next()
            {
                this.take_line(line);
            }
            if this.is_full() {
                break;
            }
            if this.body.is_some() && this.draining.poll_unpin(cx).is_ready() {
                this.stop(Problem::new(
                    Kind::Unavailable,
                    "the node goes down; send this line and those after it again, elsewhere",
                ));
            }
            let Some(body) = &mut this.body else {
                break;
            };
            match body.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(chunk))) => this.lines.push(chunk),
                Poll::Ready(Some(Err(error))) => {
                    let detail = format!("the body could not be read on: {error}; this line was not taken");
                    this.stop(Problem::new(Kind::BodyBroken, detail));
                }
                Poll::Ready(None) => {
                    this.body = None;
                    if let Some(line) = this.lines.finish() {
                        this.take_line(line);
                    }
                }
                Poll::Pending if this.batch.lines.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if this.batch.lines.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(std::mem::take(&mut this.batch)))
    }
}

/// The longest that an overloaded log holds a submission back before its client is told.
const LONGEST_BRAKE: Duration = Duration::from_secs(5);

/// How many lines went which way.
#[derive(Debug, Default)]
pub(super) struct Totals {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Totals {
    /// The last line of an answer that names only the lines that were refused.
    pub(super) fn line(&self) -> Bytes {
        let accepted = self.accepted.load(Ordering::Relaxed);
        let refused = self.refused.load(Ordering::Relaxed);
        Bytes::from(format!("{{\"accepted\":{accepted},\"refused\":{refused}}}\n"))
    }
}

/// Submits a batch and writes its part of the answer.
pub(super) async fn answer(
    api: Arc<Api>,
    path: Arc<PipelinePath>,
    batch: Batch,
    answers: Answers,
    totals: Arc<Totals>,
) -> Bytes {
    let Batch { tasks, lines, .. } = batch;
    let mut outcomes = submit(&api, &path, tasks).await.into_iter();
    let mut text = String::with_capacity(lines.len() * 24);
    for (number, problem) in lines {
        let outcome = match problem {
            Some(problem) => Err(problem),
            None => outcomes
                .next()
                .unwrap_or_else(|| Err(Problem::internal(&"a task was answered without an id"))),
        };
        match outcome {
            Ok(id) => {
                totals.accepted.fetch_add(1, Ordering::Relaxed);
                if answers == Answers::All {
                    // Writing to a string cannot fail, and an id has nothing that JSON would escape.
                    let _ = writeln!(text, "{{\"id\":\"{id}\"}}");
                }
            }
            Err(problem) => {
                totals.refused.fetch_add(1, Ordering::Relaxed);
                let error = serde_json::to_string(&problem.of_line(number)).unwrap_or_default();
                let _ = writeln!(text, "{{\"error\":{error}}}");
            }
        }
    }
    Bytes::from(text)
}

/// Submits tasks; the outcomes are in the order of the tasks. One that is refused does not lose the others.
async fn submit(api: &Api, path: &PipelinePath, tasks: Vec<TaskSpec>) -> Vec<Result<TaskId, Problem>> {
    let mut outcomes: Vec<Option<Result<TaskId, Problem>>> = (0..tasks.len()).map(|_| None).collect();
    let mut open: Vec<(usize, TaskSpec)> = tasks.into_iter().enumerate().collect();
    // Tasks before one that was at fault. They are in order but were not taken, since an `Invalid` error means that none was; they wait until
    // all others are looked at, so that however many are at fault, each is looked at twice at most.
    let mut cleared = Vec::new();
    loop {
        if open.is_empty() {
            std::mem::swap(&mut open, &mut cleared);
        }
        if open.is_empty() {
            break;
        }
        let specs = open.iter().map(|(_, task)| task.clone()).collect();
        let problem = match api.gateway.submit(path, specs).await {
            Ok(ids) => {
                for ((at, _), id) in open.drain(..).zip(ids) {
                    outcomes[at] = Some(Ok(id));
                }
                continue;
            }
            Err(error) => Problem::from(error),
        };
        if let Some((at, field)) = at_fault(&problem, open.len()) {
            let rest = open.split_off(at + 1);
            if let Some((at, _)) = open.pop() {
                outcomes[at] = Some(Err(problem.at(field)));
            }
            cleared.append(&mut open);
            open = rest;
            continue;
        }
        if let Some(wait) = problem.retry_after {
            tokio::time::sleep(wait.min(LONGEST_BRAKE)).await;
        }
        for (at, _) in open.drain(..) {
            outcomes[at] = Some(Err(problem.clone()));
        }
    }
    outcomes
        .into_iter()
        .map(|outcome| {
            outcome.unwrap_or_else(|| Err(Problem::internal(&"a task was answered without an id")))
        })
        .collect()
}

/// Which of `count` tasks the problem is about, and the field in it; `None` if it is about all of them.
fn at_fault(problem: &Problem, count: usize) -> Option<(usize, String)> {
    if problem.kind != Kind::InvalidField {
        return None;
    }
    let field = problem.field.as_deref().unwrap_or_default();
    let numbered = field
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .and_then(|(at, rest)| Some((at.parse::<usize>().ok()?, rest.trim_start_matches('.'))));
    let (at, field) = match numbered {
        Some(numbered) => numbered,
        None if count == 1 => (0, field),
        None => return None,
    };
    let field = if field.is_empty() { "params" } else { field };
    (at < count).then(|| (at, field.to_owned()))
}
