//! Which shard wants to be told the time, and when: of a thousand, a turn that has to do with one looks at one.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::Partition;
use crate::time::Timestamp;

/// The deadlines of shards. What happens to a shard may change its own; that is looked at once, when somebody wants to know.
#[derive(Debug, Default)]
pub(super) struct Dues {
    of: BTreeMap<Partition, Timestamp>,
    by_time: BTreeSet<(Timestamp, Partition)>,
    touched: Vec<Partition>,
}

impl Dues {
    /// Something has happened to a shard.
    pub(super) fn touch(&mut self, partition: Partition) {
        if self.touched.last() != Some(&partition) {
            self.touched.push(partition);
        }
    }

    /// Looks at what has happened; `deadline` is a shard's, if it is there and has one.
    pub(super) fn look(&mut self, deadline: impl Fn(Partition) -> Option<Timestamp>) {
        for partition in self.touched.drain(..) {
            let due = deadline(partition);
            let before = match due {
                Some(due) => self.of.insert(partition, due),
                None => self.of.remove(&partition),
            };
            if before == due {
                continue;
            }
            if let Some(before) = before {
                self.by_time.remove(&(before, partition));
            }
            if let Some(due) = due {
                self.by_time.insert((due, partition));
            }
        }
    }

    /// The next, as of the last look.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Those that are due, by partition.
    pub(super) fn due(&self, now: Timestamp) -> BTreeSet<Partition> {
        let due = self.by_time.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, partition)| *partition).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_what_it_was_at_the_last_look_after_something_happened() {
        let at = Timestamp::from_millis;
        let (one, two) = (Partition(1), Partition(2));
        let mut dues = Dues::default();
        dues.touch(one);
        dues.touch(two);
        dues.look(|partition| Some(at(30 - 10 * u64::from(partition.0))));
        assert_eq!(dues.next(), Some(at(10)));
        assert_eq!(dues.due(at(20)), BTreeSet::from([one, two]));
        dues.look(|_| None);
        assert_eq!(dues.next(), Some(at(10)), "nothing has happened");
        dues.touch(two);
        dues.look(|_| None);
        assert_eq!(dues.next(), Some(at(20)));
        assert_eq!(dues.due(at(20)), BTreeSet::from([one]));
        assert!(dues.due(at(19)).is_empty());
    }
}
