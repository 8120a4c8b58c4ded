//! What is used of tokio's `Notify`, on shuttle's lock. A test holds both against the same sentences.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use shuttle::sync::{Mutex, MutexGuard};

/// Wakes one who waits, or the next who will.
#[derive(Debug, Default)]
pub struct Notify {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    permit: bool,
    next: u64,
    /// Who waits, the longest first.
    waiting: VecDeque<(u64, Waker)>,
    /// Who was woken and has not been back.
    told: Vec<u64>,
}

impl Notify {
    /// Wakes the one that has waited longest; without one, the next does not wait.
    pub fn notify_one(&self) {
        let waker = {
            let mut state = self.lock();
            let Some((id, waker)) = state.waiting.pop_front() else {
                state.permit = true;
                return;
            };
            state.told.push(id);
            waker
        };
        waker.wake();
    }

    /// Waits to be told.
    pub fn notified(&self) -> Notified<'_> {
        Notified { of: self, id: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Notified<'a> {
    of: &'a Notify,
    /// Once it has waited.
    id: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let of = self.of;
        let mut state = of.lock();
        let Some(id) = self.id else {
            if std::mem::take(&mut state.permit) {
                return Poll::Ready(());
            }
            let id = state.next;
            state.next += 1;
            state.waiting.push_back((id, context.waker().clone()));
            self.id = Some(id);
            return Poll::Pending;
        };
        if let Some(at) = state.told.iter().position(|told| *told == id) {
            state.told.swap_remove(at);
            self.id = None;
            return Poll::Ready(());
        }
        for (_, waker) in state.waiting.iter_mut().filter(|(waiting, _)| *waiting == id) {
            waker.clone_from(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.of.lock();
        state.waiting.retain(|(waiting, _)| *waiting != id);
        let told = state.told.iter().position(|told| *told == id);
        if let Some(at) = told {
            state.told.swap_remove(at);
            drop(state);
            // It was woken and leaves without: the next has to know.
            self.of.notify_one();
        }
    }
}
