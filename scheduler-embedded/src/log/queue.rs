//! What waits for the committer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// From many who ask to the one thread that does; bounded by the permits that its commands hold.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

#[derive(Debug)]
struct State<T> {
    commands: VecDeque<T>,
    closed: bool,
}

/// The queue takes nothing any more.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Closed;

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            commands: VecDeque::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, command: T) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        state.commands.push_back(command);
        // Whoever takes takes all, so it sleeps only while there is nothing.
        if state.commands.len() == 1 {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// No more is taken in; what waits is still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// No more is taken in, and what waits is dropped: nobody takes it any more.
    pub(crate) fn abandon(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.commands)
        };
        drop(dropped);
    }

    /// Waits for work and takes all of it. `None` once it is closed and empty. One thread at a time may wait.
    pub(crate) fn take(&self) -> Option<VecDeque<T>> {
        let waiting = |state: &mut State<T>| state.commands.is_empty() && !state.closed;
        let mut state = self
            .ready
            .wait_while(self.lock(), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        let commands = std::mem::take(&mut state.commands);
        (!commands.is_empty()).then_some(commands)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
