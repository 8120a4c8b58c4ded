use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::LeaseKey;

/// What is known of an attempt that was started and has not ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Running,
    Stopping,
}

/// Attempts that were started and have not ended. A task has one, but for moments.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// One of each task, by the task's partition and offset.
    ones: FxHashMap<(u32, u64), One>,
    /// What there is of the same tasks besides.
    others: BTreeMap<LeaseKey, State>,
}

#[derive(Clone, Copy, Debug)]
struct One {
    epoch: u32,
    attempt: u32,
    state: State,
}

impl One {
    fn is(&self, key: LeaseKey) -> bool {
        (self.epoch, self.attempt) == (key.epoch, key.attempt)
    }
}

fn key((partition, offset): (u32, u64), one: One) -> LeaseKey {
    LeaseKey {
        partition,
        offset,
        epoch: one.epoch,
        attempt: one.attempt,
    }
}

impl Held {
    /// Adds an attempt that is not there.
    pub(super) fn insert(&mut self, lease: LeaseKey, state: State) {
        let task = (lease.partition, lease.offset);
        let one = One {
            epoch: lease.epoch,
            attempt: lease.attempt,
            state,
        };
        if let Some(other) = self.ones.insert(task, one) {
            self.others.insert(key(task, other), other.state);
        }
    }

    pub(super) fn contains(&self, lease: LeaseKey) -> bool {
        self.ones
            .get(&(lease.partition, lease.offset))
            .is_some_and(|one| one.is(lease))
            || self.others.contains_key(&lease)
    }

    pub(super) fn remove(&mut self, lease: LeaseKey) -> Option<State> {
        let task = (lease.partition, lease.offset);
        if self.ones.get(&task).is_some_and(|one| one.is(lease)) {
            return self.ones.remove(&task).map(|one| one.state);
        }
        self.others.remove(&lease)
    }

    /// Whether the attempt was running and is to stop now.
    pub(super) fn stop(&mut self, lease: LeaseKey) -> bool {
        let found = match self.ones.get_mut(&(lease.partition, lease.offset)) {
            Some(one) if one.is(lease) => Some(&mut one.state),
            _ => self.others.get_mut(&lease),
        };
        found.is_some_and(|state| std::mem::replace(state, State::Stopping) == State::Running)
    }

    /// The attempts of a task that are running, which is one or none but for moments.
    pub(super) fn running(&self, partition: u32, offset: u64) -> impl Iterator<Item = LeaseKey> {
        let task = (partition, offset);
        let one = self.ones.get(&task).filter(|one| one.state == State::Running);
        let others = self.others.iter().filter_map(move |(other, state)| {
            ((other.partition, other.offset) == task && *state == State::Running).then_some(*other)
        });
        one.map(|one| key(task, *one)).into_iter().chain(others)
    }

    /// All of them, in order.
    pub(super) fn keys(&self) -> Vec<LeaseKey> {
        let ones = self.ones.iter().map(|(task, one)| key(*task, *one));
        let mut keys: Vec<_> = ones.chain(self.others.keys().copied()).collect();
        keys.sort_unstable();
        keys
    }

    /// Takes those of a partition out.
    pub(super) fn take(&mut self, partition: u32) -> BTreeMap<LeaseKey, State> {
        let ones = self.ones.extract_if(|task, _| task.0 == partition);
        let mut taken: BTreeMap<_, _> = ones.map(|(task, one)| (key(task, one), one.state)).collect();
        taken.extend(
            self.others
                .extract_if(.., |other, _| other.partition == partition),
        );
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.ones.len() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        // A task's only attempt may be the other one.
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(offset: u64, attempt: u32) -> LeaseKey {
        LeaseKey {
            partition: 1,
            offset,
            epoch: 1,
            attempt,
        }
    }

    #[test]
    fn attempts_of_one_task_do_not_hide_each_other() {
        let mut held = Held::default();
        held.insert(lease(7, 1), State::Running);
        held.insert(lease(7, 2), State::Running);
        held.insert(lease(8, 1), State::Running);
        assert_eq!(held.keys(), [lease(7, 1), lease(7, 2), lease(8, 1)]);
        assert!(held.stop(lease(7, 1)));
        assert!(!held.stop(lease(7, 1)), "it stops already");
        assert!(!held.stop(lease(9, 1)), "nothing is known of it");
        assert_eq!(held.running(1, 7).collect::<Vec<_>>(), [lease(7, 2)]);
        assert_eq!(held.remove(lease(7, 2)), Some(State::Running));
        assert_eq!(held.remove(lease(7, 2)), None);
        assert!(held.contains(lease(7, 1)));
        assert_eq!(held.len(), 2);
        assert_eq!(
            held.take(1),
            [(lease(7, 1), State::Stopping), (lease(8, 1), State::Running)].into()
        );
        assert!(held.is_empty());
    }
}
