//! What is saved: who waits for it, and what may still be done with what was read from the store before.

use super::{Effect, Effects, Host};
use crate::id::{CheckpointId, Epoch, Partition};
use crate::shard::{Answer, Input};
use crate::time::Timestamp;

/// Of those who wait for checkpoints, those who are gone are looked for when there are more.
const SWEEP: usize = 64;

/// Somebody who waits for a checkpoint.
pub trait Waiter {
    /// Whether nobody waits any more.
    fn has_gone(&self) -> bool;
}

/// When something was read from the store, as a shard counts: what was read at an earlier mark may be older than what it has saved since.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark(pub(super) u64);

/// Where what was read from the store belongs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReadAt {
    /// The shard's mark before the reading.
    pub mark: Mark,
    /// The shard's epoch after it, as the store has it.
    pub epoch: Epoch,
}

/// What came of a change of tasks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changed {
    /// One for each input; none if what they stand on is too old.
    pub answers: Option<Vec<Answer>>,
    /// The shard's mark of now.
    pub mark: Mark,
}

/// Those who wait for checkpoints of one stay.
#[derive(Debug)]
pub(super) struct Waiting<W>(Vec<(CheckpointId, W)>);

impl<W> Default for Waiting<W> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<W: Waiter> Waiting<W> {
    fn push(&mut self, wanted: CheckpointId, waiter: W) {
        // While nothing can be saved, those who ask come and go.
        if self.0.len() >= SWEEP && self.0.len() == self.0.capacity() {
            self.0.retain(|(_, waiter)| !waiter.has_gone());
        }
        self.0.push((wanted, waiter));
    }

    /// Those for whom a checkpoint is enough.
    fn take(&mut self, saved: CheckpointId) -> impl Iterator<Item = W> {
        let enough = self.0.extract_if(.., move |(wanted, _)| *wanted <= saved);
        enough.map(|(_, waiter)| waiter)
    }
}

impl<W: Waiter, R: Clone> Host<W, R> {
    /// Asks for a checkpoint of everything so far of a shard, and says [`Effect::Saved`] when the store has it. `false`, and the waiter is dropped,
    /// if the shard does not run here; if it leaves before, the waiter is dropped then.
    pub fn when_saved(
        &mut self,
        now: Timestamp,
        partition: Partition,
        waiter: W,
        effects: &mut Effects<W, R>,
    ) -> bool {
        let Some(shard) = self.pipeline.shard(partition) else {
            return false;
        };
        if shard.is_saved() {
            effects.host.push(Effect::Saved(waiter));
            return true;
        }
        let wanted = shard.covering();
        self.tell(now, partition, Input::Flush, effects);
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return false;
        };
        hosted.waiting.push(wanted, waiter);
        true
    }

    /// Changes tasks of a partition: nothing of it, if what it stands on was read at another mark than the shard's, or under another owner. If
    /// anything was done, somebody is told when all of it is [saved](Host::when_saved).
    pub fn change(
        &mut self,
        now: Timestamp,
        partition: Partition,
        inputs: Vec<Input>,
        read_at: Option<ReadAt>,
        waiter: impl FnOnce(&[Answer]) -> W,
        effects: &mut Effects<W, R>,
    ) -> Changed {
        if let Some(read_at) = read_at
            && self.is_newer(partition, read_at.epoch)
        {
            self.fenced(now, partition, read_at.epoch, effects);
        }
        let mark = self.mark_of(partition);
        if read_at.is_some_and(|read_at| read_at.mark != mark) {
            return Changed { answers: None, mark };
        }
        let inputs = inputs.into_iter();
        let answers: Vec<Answer> = inputs
            .map(|input| self.tell(now, partition, input, effects))
            .collect();
        if answers.contains(&Answer::Done) {
            self.when_saved(now, partition, waiter(&answers), effects);
        }
        Changed {
            answers: Some(answers),
            mark,
        }
    }

    /// The mark of a shard; one that no shard has if it is not here.
    pub fn mark_of(&self, partition: Partition) -> Mark {
        let hosted = self.hosted.get(&partition);
        hosted.map_or(Mark::default(), |hosted| hosted.mark)
    }

    pub(super) fn saved(
        &mut self,
        now: Timestamp,
        partition: Partition,
        id: CheckpointId,
        effects: &mut Effects<W, R>,
    ) {
        let mark = Mark(self.next_number());
        self.tell(now, partition, Input::Saved(id), effects);
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        hosted.mark = mark;
        effects.host.extend(hosted.waiting.take(id).map(Effect::Saved));
        self.after_save(now, partition, effects);
    }

    pub(super) fn after_save(&mut self, now: Timestamp, partition: Partition, effects: &mut Effects<W, R>) {
        let Some(shard) = self.pipeline.shard(partition) else {
            return;
        };
        let rest = (!shard.is_saved()).then(|| shard.covering());
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.saved(rest);
        self.step(now, partition, step, effects);
    }
}
