//! What must hold: the promises of the design that one shard can keep.

use std::collections::BTreeMap;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{LeaseToken, Offset};
use scheduler_core::outcome::{AttemptOutcome, Ending};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::Found;
use scheduler_core::task::RecordBody;

use crate::op::GRACE;
use crate::world::{Worker, World};

impl World {
    pub(crate) fn check_lease(&mut self, offset: Offset, token: LeaseToken) {
        assert!(
            self.tokens.insert((offset, token)),
            "{token:?} of {offset:?} was given twice"
        );
        assert!(
            !self.store.results.contains_key(&offset) && !self.store.dead.contains_key(&offset),
            "{offset:?} was saved as ended and runs again"
        );
        assert!(
            !self.ghosts.contains_key(&offset),
            "{offset:?} is leased to {:?} and is leased again",
            self.ghosts[&offset]
        );
        for (until, below) in &self.unsure {
            assert!(
                self.now >= *until || offset >= *below,
                "{offset:?} was leased before workers had time to come back"
            );
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let has_succeeded = worker.unsettled.iter().any(|(of, token, outcome)| {
                *of == offset
                    && matches!(outcome, AttemptOutcome::Succeeded { .. })
                    && !self.void.contains(&(offset, *token))
            });
            assert!(
                !(worker.is_attached && has_succeeded) || self.redriven.contains(&offset),
                "worker {index} has said that {offset:?} succeeded, and it runs again"
            );
        }
    }

    pub(crate) fn settle(&mut self, worker: usize, count: u64) {
        let worker = &mut self.workers[worker];
        assert!(
            worker.is_attached,
            "a worker that is gone was told what is settled"
        );
        assert!(count > worker.settled, "settled went back");
        let new = usize::try_from(count - worker.settled).expect("few");
        assert!(
            new <= worker.unsettled.len(),
            "more was settled than was reported"
        );
        worker.settled = count;
        for (offset, token, outcome) in worker.unsettled.drain(..new) {
            if matches!(outcome, AttemptOutcome::Succeeded { .. }) {
                assert!(
                    self.store.results.contains_key(&offset)
                        || self.store.dead.contains_key(&offset)
                        || self.redriven.contains(&offset)
                        || self.void.contains(&(offset, token)),
                    "the success of {offset:?} was settled and is not saved"
                );
            }
        }
    }

    pub(crate) fn apply(&mut self, checkpoint: &Checkpoint) {
        self.store.apply(checkpoint);
        for offset in self.log.range(..self.store.resume).map(|(offset, _)| offset) {
            assert!(
                self.store.results.contains_key(offset)
                    || self.store.dead.contains_key(offset)
                    || self.store.parked.contains_key(offset),
                "{offset:?} is before the resume offset and in no row"
            );
        }
    }

    /// What must be true whenever the shard rests.
    pub(crate) fn check(&mut self) {
        let mut seen = [0u64; 3];
        let mut adrift = BTreeMap::new();
        for offset in self.log.keys().copied() {
            match self.shard.find(offset) {
                Found::Live(view) => match view.state {
                    TaskState::Queued => seen[0] += 1,
                    TaskState::Delayed => seen[1] += 1,
                    TaskState::Running => {
                        seen[2] += 1;
                        let may_have =
                            |worker: &Worker| !worker.is_attached || worker.held.contains_key(&offset);
                        if !self.workers.iter().any(may_have) {
                            // An earlier owner's stream may still bring it; a lease of this one is lost.
                            let since = self.adrift.get(&offset).copied().unwrap_or(self.now);
                            assert!(
                                self.now <= since + GRACE && !self.granted.contains(&offset),
                                "{offset:?} runs, and every worker says that it does not have it"
                            );
                            adrift.insert(offset, since);
                        }
                    }
                    other => panic!("a live task is {other:?}"),
                },
                Found::Finished(_) | Found::Dead(_) => {}
                Found::Ahead => assert!(offset >= self.store.resume, "{offset:?} is lost"),
                Found::Elsewhere => {
                    let is_kept = self.store.results.contains_key(&offset)
                        || self.store.dead.contains_key(&offset)
                        || self.store.parked.contains_key(&offset);
                    assert!(is_kept || offset >= self.store.resume, "{offset:?} is lost");
                }
            }
        }
        self.adrift = adrift;
        self.check_account();
        let counts = self.shard.counts();
        assert_eq!(
            [counts.ready, counts.delayed, counts.running],
            seen,
            "the counts are off"
        );
        assert!(
            seen.iter().sum::<u64>() <= u64::from(self.policy.window.max_tasks),
            "more tasks than the window"
        );
        assert!(
            self.has_gaps || self.shard.tail().0 - self.truncated.0 <= u64::from(self.policy.window.max_span),
            "wider than the window"
        );
    }

    /// Every offset is somewhere, by the shard's own account and by what the store has.
    fn check_account(&self) {
        let account = self.shard.account();
        if !account.is_complete {
            return;
        }
        let is_parked = |offset: &&Offset| self.shard.find(**offset) == Found::Elsewhere;
        let parked = self.store.parked.keys().filter(is_parked).count() as u64;
        assert_eq!(account.parked(), Some(parked), "{account:?}");
        let absent = account.tail.0 - self.log.range(..account.tail).count() as u64;
        assert_eq!((account.absent, account.lost), (absent, 0), "{account:?}");
    }

    /// Of the tasks of a key, the first has run, and the others have ended as its duplicates.
    pub(crate) fn check_keys(&self) {
        let mut firsts = BTreeMap::new();
        for record in self.log.values() {
            let RecordBody::Task(spec) = &record.body else {
                continue;
            };
            let key = spec
                .options
                .as_ref()
                .and_then(|options| options.idempotency_key.clone());
            let first = key.map_or(record.offset, |key| *firsts.entry(key).or_insert(record.offset));
            let result = self.store.results.get(&record.offset);
            let is_duplicate = result.is_some_and(|result| result.ending == Ending::Duplicate);
            assert_eq!(
                is_duplicate,
                first != record.offset,
                "{:?} of {first:?}",
                record.offset
            );
        }
    }

    pub(crate) fn has_all_ended(&self) -> bool {
        self.log
            .keys()
            .all(|offset| self.store.results.contains_key(offset) || self.store.dead.contains_key(offset))
            && self.store.parked.is_empty()
    }
}
