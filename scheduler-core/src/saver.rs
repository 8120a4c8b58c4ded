//! Which checkpoints go into one transaction: as many as have come together, and each by itself once they cannot be saved together.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;

/// Most checkpoints in one transaction.
pub const MOST_TOGETHER: usize = 1_000;

/// A checkpoint, and who waits for it.
pub type Order<T> = (Arc<Checkpoint>, T);

/// The checkpoints of all shards of a node, on their way to the store.
///
/// One transaction is under way at a time: [`Saver::begin`] says which, then [`Saver::done`] or [`Saver::failed`] what came of it. Each shard has one
/// checkpoint under way at most, which bounds what waits.
#[derive(Debug)]
pub struct Saver<T> {
    waiting: VecDeque<Order<T>>,
    /// Those of the first that are to be tried one by one.
    apart: usize,
    is_busy: bool,
}

impl<T> Default for Saver<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            apart: 0,
            is_busy: false,
        }
    }
}

impl<T> Saver<T> {
    /// Something is to be saved.
    pub fn order(&mut self, order: Order<T>) {
        self.waiting.push_back(order);
    }

    /// What is to be saved in one transaction now. `None` if one is under way, or nothing waits.
    pub fn begin(&mut self) -> Option<Vec<Order<T>>> {
        if self.is_busy || self.waiting.is_empty() {
            return None;
        }
        self.is_busy = true;
        let most = if self.apart > 0 { 1 } else { MOST_TOGETHER };
        self.apart = self.apart.saturating_sub(1);
        Some(self.waiting.drain(..most.min(self.waiting.len())).collect())
    }

    /// The transaction is over: the store has answered for each of it.
    pub fn done(&mut self) {
        self.is_busy = false;
    }

    /// The transaction has failed and always will. One shard's rows are damaged, and the others must not suffer for it: each is tried by itself.
    /// Answers the one that was.
    pub fn failed(&mut self, orders: Vec<Order<T>>) -> Option<Order<T>> {
        self.is_busy = false;
        if orders.len() <= 1 {
            return orders.into_iter().next();
        }
        self.apart += orders.len();
        for order in orders.into_iter().rev() {
            self.waiting.push_front(order);
        }
        None
    }

    /// Whether nothing waits or is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CheckpointId, Epoch, Offset, Partition, PipelineId, ShardId, Tenure};
    use crate::time::Timestamp;

    fn order(partition: u32) -> Order<u32> {
        let tenure = Tenure {
            shard: ShardId::new(PipelineId(1), Partition(partition)),
            epoch: Epoch(1),
        };
        let checkpoint = Checkpoint::empty(tenure, CheckpointId(1), Timestamp::ZERO, Offset::ZERO);
        (Arc::new(checkpoint), partition)
    }

    fn numbers(orders: Option<Vec<Order<u32>>>) -> Vec<u32> {
        orders.into_iter().flatten().map(|(_, number)| number).collect()
    }

    #[test]
    fn what_came_together_is_saved_together_one_transaction_at_a_time() {
        let mut saver = Saver::default();
        assert!(saver.is_idle() && saver.begin().is_none());
        saver.order(order(1));
        assert_eq!(numbers(saver.begin()), [1]);
        saver.order(order(2));
        saver.order(order(3));
        assert!(saver.begin().is_none());
        saver.done();
        assert_eq!(numbers(saver.begin()), [2, 3]);
        assert!(!saver.is_idle());
        saver.done();
        assert!(saver.is_idle());
    }

    #[test]
    fn one_that_cannot_be_saved_does_not_keep_the_others_from_it() {
        let mut saver = Saver::default();
        (1..=3).for_each(|number| saver.order(order(number)));
        let all = saver.begin().expect("they wait");
        assert!(saver.failed(all).is_none());
        saver.order(order(4));
        saver.order(order(5));
        assert_eq!(numbers(saver.begin()), [1]);
        saver.done();
        let damaged = saver.begin().expect("the others wait");
        assert_eq!(saver.failed(damaged).map(|(_, number)| number), Some(2));
        assert_eq!(numbers(saver.begin()), [3]);
        saver.done();
        // What came later has nothing to do with it.
        assert_eq!(numbers(saver.begin()), [4, 5]);
    }

    #[test]
    fn a_transaction_has_a_bound() {
        let mut saver = Saver::default();
        (0..=1_000).for_each(|number| saver.order(order(number)));
        assert_eq!(saver.begin().map(|orders| orders.len()), Some(MOST_TOGETHER));
        saver.done();
        assert_eq!(numbers(saver.begin()), [1_000]);
    }
}
