//! The tasks that run.
//!
//! A task is a task of the runtime's. As long as handlers end at their first step, and quickly, that costs more than the work: then some of them go one after
//! the other in a batch, which reports them together, and only those that wait for something become tasks of their own. The driver itself
//! runs no handler, and a handler that holds a batch up after all is left alone with it: the others are taken away from it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use scheduler_proto::worker::Lease;
use scheduler_proto::worker::report::Outcome;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::Context;
use crate::context::Surroundings;
use crate::handler::{self, Attempt, Begun, TaskService, Work};
use crate::session::LeaseKey;
use crate::worker::Options;

/// Tasks of a batch, at most.
const BATCH: usize = 32;
/// A task that ends at its first step within this time is quick.
const QUICK: Duration = Duration::from_micros(50);
/// So many quick tasks in a row make batches worth while.
const QUICK_IN_A_ROW: u32 = 64;
/// A batch that takes longer is held up by one of its tasks.
const PATIENCE: Duration = Duration::from_millis(10);

/// What tasks tell the driver.
#[derive(Debug)]
pub(crate) enum Said {
    Progressed {
        lease: LeaseKey,
        progress: Bytes,
    },
    /// One that runs by itself has ended.
    Ended {
        lease: LeaseKey,
        outcome: Outcome,
        was_quick: bool,
    },
    /// A batch is over.
    Began {
        ended: Vec<(LeaseKey, Outcome)>,
        waiting: Vec<Waiting>,
        were_quick: bool,
    },
}

/// A task of a batch that waits for something.
pub(crate) struct Waiting {
    context: Context,
    work: Work,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiting").field(&self.context).finish()
    }
}

/// The tasks that run, and how they are run.
pub(crate) struct Tasks {
    service: TaskService,
    options: Options,
    surroundings: Arc<Surroundings>,
    running: FxHashMap<LeaseKey, Running>,
    batches: Vec<Batch>,
    /// To be stopped, and in a batch still.
    stopping: FxHashSet<LeaseKey>,
    /// Every task is to stop.
    stops_all: bool,
    /// Quick tasks, one after the other.
    quick: u32,
}

struct Running {
    context: Context,
    /// The handler at work, or who waits for it to heed its cancellation.
    task: Option<AbortOnDropHandle<()>>,
    is_cancelled: bool,
}

/// Which step of a task is its next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    First,
    Later,
}

struct Batch {
    rest: Arc<Rest>,
    task: AbortOnDropHandle<()>,
    since: Instant,
}

/// The leases that a batch has not begun with.
#[derive(Debug)]
struct Rest(Mutex<vec::IntoIter<Lease>>);

impl Rest {
    fn next(&self) -> Option<Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() == 0
    }
}

impl Tasks {
    pub(crate) fn new(service: TaskService, options: Options, said: mpsc::Sender<Said>) -> Self {
        let definition = Bytes::new();
        Self {
            service,
            options,
            surroundings: Arc::new(Surroundings { definition, said }),
            running: FxHashMap::default(),
            batches: Vec::new(),
            stopping: FxHashSet::default(),
            stops_all: false,
            quick: 0,
        }
    }

    /// What tasks that are started from now on are to run.
    pub(crate) fn define(&mut self, definition: Bytes) {
        let said = self.surroundings.said.clone();
        self.surroundings = Arc::new(Surroundings { definition, said });
    }

    pub(crate) fn start(&mut self, mut leases: Vec<Lease>) {
        self.batches.retain(|batch| !batch.task.is_finished());
        if self.quick < QUICK_IN_A_ROW || leases.len() == 1 {
            for lease in leases {
                self.start_one(lease);
            }
            return;
        }
        while leases.len() > BATCH {
            let rest = leases.split_off(leases.len() - BATCH);
            self.start_batch(rest);
        }
        self.start_batch(leases);
    }

    fn start_batch(&mut self, leases: Vec<Lease>) {
        let rest = Arc::new(Rest(Mutex::new(leases.into_iter())));
        let task = tokio::spawn(run_batch(
            Arc::clone(&rest),
            self.service.clone(),
            Arc::clone(&self.surroundings),
            self.options.max_output_bytes,
        ));
        self.batches.push(Batch {
            rest,
            task: AbortOnDropHandle::new(task),
            since: Instant::now(),
        });
    }

    fn start_one(&mut self, mut lease: Lease) {
        let params = std::mem::take(&mut lease.params);
        let context = Context::new(lease, Arc::clone(&self.surroundings));
        let attempt = Attempt {
            params,
            context: context.clone(),
        };
        let work = handler::run(self.service.clone(), attempt, self.options.max_output_bytes);
        self.run(context, Box::pin(work), Step::First);
    }

    fn run(&mut self, context: Context, work: Work, step: Step) {
        let task = tokio::spawn(run_one(
            context.clone(),
            Arc::clone(&self.surroundings),
            work,
            step,
        ));
        let lease = context.lease();
        let running = Running {
            context,
            task: Some(AbortOnDropHandle::new(task)),
            is_cancelled: false,
        };
        self.running.insert(lease, running);
    }

    /// A task that ran by itself has ended.
    pub(crate) fn ended(&mut self, lease: LeaseKey, was_quick: bool) {
        self.running.remove(&lease);
        self.quick = if was_quick {
            self.quick.saturating_add(1)
        } else {
            0
        };
    }

    /// A batch is over.
    pub(crate) fn began(&mut self, ended: &[(LeaseKey, Outcome)], waiting: Vec<Waiting>, were_quick: bool) {
        if !were_quick {
            self.quick = 0;
        }
        if !self.stopping.is_empty() {
            for (lease, _) in ended {
                self.stopping.remove(lease);
            }
        }
        for Waiting { context, work } in waiting {
            let lease = context.lease();
            self.run(context, work, Step::Later);
            if self.stopping.remove(&lease) || self.stops_all {
                self.cancel(lease);
            }
        }
    }

    /// When [`Tasks::help`] has something to do, should batches not be over by then.
    pub(crate) fn next_help(&self) -> Option<Instant> {
        let begun = self.batches.iter().filter(|batch| !batch.rest.is_empty());
        begun.map(|batch| batch.since + PATIENCE).min()
    }

    /// Takes the tasks that have not begun from batches that are held up.
    pub(crate) fn help(&mut self) {
        if self.batches.is_empty() {
            return;
        }
        let now = Instant::now();
        let held_up = self.batches.iter().filter(|batch| batch.since + PATIENCE <= now);
        let rests: Vec<_> = held_up.map(|batch| Arc::clone(&batch.rest)).collect();
        for rest in rests {
            while let Some(lease) = rest.next() {
                self.quick = 0;
                let key = lease.r#ref.map(LeaseKey::from).unwrap_or_default();
                self.start_one(lease);
                if self.stopping.remove(&key) || self.stops_all {
                    self.cancel(key);
                }
            }
        }
    }

    pub(crate) fn cancel(&mut self, lease: LeaseKey) {
        if let Some(running) = self.running.get_mut(&lease) {
            running.cancel(self.options.cancel_grace, &self.surroundings);
        } else {
            self.stopping.insert(lease);
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.stops_all = true;
        for running in self.running.values_mut() {
            running.cancel(self.options.cancel_grace, &self.surroundings);
        }
    }
}

impl Running {
    fn cancel(&mut self, grace: Duration, surroundings: &Arc<Surroundings>) {
        self.context.cancelled().cancel();
        if !std::mem::replace(&mut self.is_cancelled, true)
            && let Some(task) = self.task.take()
        {
            let (context, surroundings) = (self.context.clone(), Arc::clone(surroundings));
            let waits = tokio::spawn(end_within(grace, task, context, surroundings));
            self.task = Some(AbortOnDropHandle::new(waits));
        }
    }
}

/// Runs one task to its end.
async fn run_one(context: Context, surroundings: Arc<Surroundings>, mut work: Work, step: Step) {
    let begun = Instant::now();
    let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    let was_quick = step == Step::First && first.is_ready() && begun.elapsed() <= QUICK;
    let outcome = match first {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => work.await,
    };
    say_end(&context, &surroundings, outcome, was_quick).await;
}

/// Begins with one task after the other.
async fn run_batch(
    rest: Arc<Rest>,
    service: TaskService,
    surroundings: Arc<Surroundings>,
    max_output_bytes: usize,
) {
    let begun = Instant::now();
    let (mut ended, mut waiting) = (Vec::with_capacity(BATCH), Vec::new());
    let mut count = 0;
    poll_fn(|cx| {
        let mut mine = service.clone();
        while let Some(mut lease) = rest.next() {
            count += 1;
            let params = std::mem::take(&mut lease.params);
            let context = Context::new(lease, Arc::clone(&surroundings));
            let attempt = Attempt {
                params,
                context: context.clone(),
            };
            match handler::begin(&mut mine, attempt, max_output_bytes, cx) {
                Begun::Ended(outcome) => ended.push((context.lease(), outcome)),
                Begun::Waits(work) => waiting.push(Waiting { context, work }),
            }
        }
        Poll::Ready(())
    })
    .await;
    let were_quick = waiting.is_empty() && begun.elapsed() <= QUICK * count;
    let began = Said::Began {
        ended,
        waiting,
        were_quick,
    };
    // An error says that the worker has ended.
    let _ = surroundings.said.send(began).await;
}

/// Drops a task that has been told to stop and does not end within the grace.
async fn end_within(
    grace: Duration,
    mut task: AbortOnDropHandle<()>,
    context: Context,
    surroundings: Arc<Surroundings>,
) {
    if tokio::time::timeout(grace, &mut task).await.is_err() {
        task.abort();
        if task.await.is_err_and(|error| error.is_cancelled()) {
            let why = "the worker was told to stop and dropped the task";
            say_end(&context, &surroundings, Outcome::Failed(why.to_owned()), false).await;
        }
    }
}

async fn say_end(context: &Context, surroundings: &Surroundings, outcome: Outcome, was_quick: bool) {
    let ended = Said::Ended {
        lease: context.lease(),
        outcome,
        was_quick,
    };
    // An error says that the worker has ended.
    let _ = surroundings.said.send(ended).await;
}

#[cfg(test)]
mod tests;
