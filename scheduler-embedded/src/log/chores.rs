//! What the keeper is asked to do.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scheduler_core::id::{PipelineId, ShardId};

/// How long the keeper waits after a failure before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// From whoever finds something to do to the one thread that does it. What comes twice is one thing.
#[derive(Debug)]
pub(crate) struct Chores {
    state: Mutex<State>,
    ready: Condvar,
}

/// What is there to be done.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Segments may have to go.
    pub(crate) segments: bool,
    pub(crate) trim: BTreeSet<ShardId>,
    pub(crate) deleted: BTreeSet<PipelineId>,
}

#[derive(Debug)]
struct State {
    work: Work,
    closed: bool,
}

impl Chores {
    pub(crate) fn new(work: Work) -> Self {
        Self {
            state: Mutex::new(State { work, closed: false }),
            ready: Condvar::new(),
        }
    }

    pub(crate) fn wake(&self) {
        self.lock().work.segments = true;
        self.ready.notify_one();
    }

    /// A partition gave something up; `trim` if some of it lies in the engine.
    pub(crate) fn truncated(&self, trim: Option<ShardId>) {
        let mut state = self.lock();
        state.work.segments = true;
        state.work.trim.extend(trim);
        drop(state);
        self.ready.notify_one();
    }

    pub(crate) fn deleted(&self, pipeline: PipelineId) {
        let mut state = self.lock();
        state.work.segments = true;
        state.work.deleted.insert(pipeline);
        drop(state);
        self.ready.notify_one();
    }

    /// Ends the keeper; what is left is found again when the log is opened.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for something to do and takes it. `None` once closed. One thread at a time may wait.
    pub(crate) fn take(&self) -> Option<Work> {
        let idle = |state: &mut State| !state.closed && state.work.is_none();
        let mut state = self
            .ready
            .wait_while(self.lock(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.closed).then(|| std::mem::take(&mut state.work))
    }

    /// Puts back what could not be done, and waits a little, unless it is closed meanwhile.
    pub(crate) fn put_back(&self, left: Work) {
        let mut state = self.lock();
        state.work.segments = true;
        state.work.trim.extend(left.trim);
        state.work.deleted.extend(left.deleted);
        drop(self.ready.wait_timeout_while(state, PAUSE, |state| !state.closed));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn is_none(&self) -> bool {
        !self.segments && self.trim.is_empty() && self.deleted.is_empty()
    }
}
