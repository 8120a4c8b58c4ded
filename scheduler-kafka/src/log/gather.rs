//! Requests that come while one is under way, and go together into the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What waits for the next request.
#[derive(Debug)]
pub(crate) struct Gathered<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// Somebody is at work, and will look again.
    at_work: bool,
}

impl<T> Gathered<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            waiting: Vec::new(),
            at_work: false,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Adds one. If the answer is `true` nobody is at work, and the caller has to: [`take`](Self::take) until there is nothing.
    #[must_use]
    pub(crate) fn add(&self, one: T) -> bool {
        let mut state = self.lock();
        state.waiting.push(one);
        !std::mem::replace(&mut state.at_work, true)
    }

    /// Up to `most` of those that have come. `None` if there is nothing, and with that the caller is no longer at work.
    pub(crate) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        let count = state.waiting.len().min(most);
        state.at_work = count > 0;
        (count > 0).then(|| state.waiting.drain(..count).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
