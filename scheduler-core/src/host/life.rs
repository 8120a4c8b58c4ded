//! How shards come up here, and go.

use super::durable::Waiting;
use super::read::Reader;
use super::{Activation, Effect, Effects, Host, Hosted, Mark, Stay, Trouble, Waiter, Word};
use crate::activation::Step;
use crate::id::{Epoch, Offset, Partition, Tenure};
use crate::key::SeenKey;
use crate::pipeline::Event;
use crate::port::log::Bounds;
use crate::shard::{Input, Shard};
use crate::time::Timestamp;

impl<W: Waiter, R: Clone> Host<W, R> {
    /// Placement gives partitions to this node.
    pub fn assign(&mut self, now: Timestamp, partitions: &[Partition], effects: &mut Effects<W, R>) {
        self.note_assigned(partitions);
        for partition in partitions {
            self.begin(now, *partition, |activation| activation, effects);
        }
    }

    /// Remembers what placement gives while nothing can come up; see [`Host::come_up`].
    pub fn note_assigned(&mut self, partitions: &[Partition]) {
        self.assigned.extend(partitions);
        self.has_left = false;
    }

    /// Remembers what placement has taken away while nothing was here.
    pub fn note_unassigned(&mut self, partitions: &[Partition]) {
        self.assigned.retain(|partition| !partitions.contains(partition));
        self.has_left = self.assigned.is_empty();
    }

    /// Brings up everything that placement has given.
    pub fn come_up(&mut self, now: Timestamp, effects: &mut Effects<W, R>) {
        for partition in self.assigned.clone() {
            self.begin(now, partition, |activation| activation, effects);
        }
    }

    /// Brings up a shard that was released for a while, if placement has not taken it away since.
    pub fn come_back(&mut self, now: Timestamp, partition: Partition, effects: &mut Effects<W, R>) {
        if self.assigned.contains(&partition) {
            self.begin(now, partition, |activation| activation, effects);
        }
    }

    /// Has a shard record what it is told from its next stay on, up to `limit` bytes: a recording begins with an activation, so the shard is
    /// released, and is to [come back](Host::come_back) when that is done. `false` if it does not run here.
    #[must_use]
    pub fn record(
        &mut self,
        now: Timestamp,
        partition: Partition,
        limit: usize,
        waiter: R,
        effects: &mut Effects<W, R>,
    ) -> bool {
        if self.draining || !self.assigned.contains(&partition) || self.pipeline.shard(partition).is_none() {
            return false;
        }
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return false;
        };
        hosted.released.push(waiter);
        self.to_record.insert(partition, limit);
        self.let_go(now, partition, effects);
        true
    }

    /// Whether the stay that is to be recorded has yet to begin.
    pub fn is_to_record(&self, partition: Partition) -> bool {
        self.to_record.contains_key(&partition)
    }

    /// Takes away what an active shard has recorded since the last time; see [`Shard::take_recorded`].
    pub fn take_recorded(&mut self, partition: Partition) -> Option<Vec<u8>> {
        self.pipeline.take_recorded(partition)
    }

    /// Has an active shard record no more.
    pub fn stop_recording(&mut self, partition: Partition) {
        self.pipeline.stop_recording(partition);
    }

    /// Brings a shard up, unless it is here.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        partition: Partition,
        how: impl FnOnce(Activation) -> Activation,
        effects: &mut Effects<W, R>,
    ) {
        if self.hosted.contains_key(&partition) {
            return;
        }
        self.troubles.remove(&partition);
        let shard = self.shard_id(partition);
        let (activation, step) =
            Activation::begin(shard, self.config.node, self.policy.clone(), self.config.grace);
        let activation = match self.to_record.remove(&partition) {
            Some(limit) => activation.recording(limit),
            None => activation,
        };
        self.stay(partition, how(activation), Vec::new());
        self.step(now, partition, step, effects);
    }

    /// Begins a stay of a shard.
    fn stay(&mut self, partition: Partition, activation: Activation, released: Vec<R>) {
        let stay = Stay {
            partition,
            number: self.next_number(),
        };
        let hosted = Hosted {
            activation,
            stay,
            mark: Mark(self.next_number()),
            reader: None,
            has_records: false,
            waiting: Waiting::default(),
            released,
        };
        self.hosted.insert(partition, hosted);
    }

    /// Ends it; what is done for it is wanted no more.
    fn end_stay(&mut self, partition: Partition, effects: &mut Effects<W, R>) -> Option<Hosted<W, R>> {
        let hosted = self.hosted.remove(&partition)?;
        effects.host.push(Effect::Over(hosted.stay));
        Some(hosted)
    }

    /// Takes what was said to one stay of a shard. `false` if that is over: nothing is heard.
    pub fn hear(&mut self, now: Timestamp, stay: Stay, word: Word, effects: &mut Effects<W, R>) -> bool {
        let partition = stay.partition;
        if !self.is_here(stay) {
            return false;
        }
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return false;
        };
        match word {
            Word::Records(records) => self.records(now, partition, records, effects),
            Word::Truncated(start) => self.truncated(now, partition, start, effects),
            Word::ReadLater => self.read_later(partition, effects),
            Word::ReadFailed(problem) => self.read_failed(partition, problem, effects),
            Word::Saved(id) => self.saved(now, partition, id, effects),
            Word::Claimed(claimed) => {
                let step = hosted.activation.claimed(claimed);
                self.step(now, partition, step, effects);
            }
            Word::Measured(bounds, keys) => self.measured(now, partition, bounds, keys, effects),
            Word::Unpark {
                page,
                tasks,
                next_wake,
                epoch,
            } => {
                if self.is_newer(partition, epoch) {
                    // The rows may be another owner's, of tasks that this one has ended itself.
                    self.fenced(now, partition, epoch, effects);
                } else {
                    let input = Input::Unpark {
                        page,
                        tasks,
                        next_wake,
                    };
                    self.tell(now, partition, input, effects);
                }
            }
            Word::NoParked(problem) => self.trouble_with(partition, Trouble::NoParked(problem), effects),
            Word::Fenced(stored) => self.fenced(now, partition, stored, effects),
            Word::Due => {
                let step = hosted.activation.due(now);
                self.step(now, partition, step, effects);
            }
            Word::Broken(problem) => self.broken(now, partition, problem, effects),
        }
        true
    }

    /// Whether an epoch is one after that of the shard here.
    pub(super) fn is_newer(&self, partition: Partition, epoch: Epoch) -> bool {
        let shard = self.pipeline.shard(partition);
        shard.is_some_and(|shard| shard.tenure().epoch < epoch)
    }

    fn measured(
        &mut self,
        now: Timestamp,
        partition: Partition,
        bounds: Bounds,
        keys: Vec<SeenKey>,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        match hosted.activation.measured(now, bounds) {
            Ok(step) => {
                self.step(now, partition, step, effects);
                // The log's first records come after this.
                self.tell(now, partition, Input::Keys(keys), effects);
            }
            Err(damage) => self.give_up(now, partition, Trouble::Damaged(damage), effects),
        }
    }

    /// Does what an activation wants done.
    pub(super) fn step(
        &mut self,
        now: Timestamp,
        partition: Partition,
        step: Step,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.hosted.get(&partition) else {
            return;
        };
        let stay = hosted.stay;
        match step {
            Step::Claim => effects.host.push(Effect::Claim(stay)),
            Step::Measure => effects.host.push(Effect::Measure(stay)),
            Step::Run {
                shard,
                from,
                missing,
                log_end,
            } => self.bring_up(now, stay, *shard, (from, missing, log_end), effects),
            Step::Leave => {
                self.stop_reading(partition, effects);
                self.tell(now, partition, Input::Leave, effects);
            }
            Step::Flush => {
                self.tell(now, partition, Input::Flush, effects);
            }
            Step::Release(tenure) => self.release(now, partition, tenure, effects),
            Step::Quarantine { owners } => {
                self.give_up(now, partition, Trouble::Quarantined { owners }, effects);
            }
            Step::Retreat(until) => self.retreat(now, partition, until, effects),
            Step::Drop => self.drop_here(now, partition, effects),
            Step::Nothing => (),
        }
    }

    fn bring_up(
        &mut self,
        now: Timestamp,
        stay: Stay,
        shard: Shard,
        (from, missing, log_end): (Offset, u64, Offset),
        effects: &mut Effects<W, R>,
    ) {
        let partition = stay.partition;
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let is_leaving = hosted.activation.is_leaving();
        hosted.reader = (!is_leaving).then(|| Reader::new(from));
        self.troubles.remove(&partition);
        effects.host.push(Effect::Active {
            stay,
            tenure: shard.tenure(),
            from,
            missing,
        });
        self.event(now, Event::Activate(Box::new(shard)), effects);
        if missing > 0 {
            self.trouble_with(partition, Trouble::LostRecords(missing), effects);
        }
        if is_leaving {
            self.let_go(now, partition, effects);
        } else if from >= log_end {
            // There is nothing that it could die of, so the store may know at once that it lives.
            self.tell(now, partition, Input::Flush, effects);
        }
    }

    /// Placement takes partitions away: their shards are saved and released. Whoever waits for that is answered for each of them.
    pub fn revoke(
        &mut self,
        now: Timestamp,
        partitions: &[Partition],
        waiter: &R,
        effects: &mut Effects<W, R>,
    ) {
        self.note_unassigned(partitions);
        for partition in partitions.iter().copied() {
            let was_in_trouble = self.troubles.remove(&partition).is_some();
            if let Some(hosted) = self.hosted.get_mut(&partition) {
                hosted.released.push(waiter.clone());
                self.let_go(now, partition, effects);
                continue;
            }
            if was_in_trouble {
                // It was left alone here, and workers wait for it in their sessions.
                self.deactivate(now, partition, effects);
            }
            effects.host.push(Effect::LetGo(partition, vec![waiter.clone()]));
        }
    }

    /// Has a shard leave as soon as all of it is saved.
    fn let_go(&mut self, now: Timestamp, partition: Partition, effects: &mut Effects<W, R>) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.revoke();
        self.step(now, partition, step, effects);
        if self.pipeline.shard(partition).is_some_and(Shard::is_saved) {
            self.after_save(now, partition, effects);
        }
    }

    fn release(&mut self, now: Timestamp, partition: Partition, tenure: Tenure, effects: &mut Effects<W, R>) {
        self.deactivate(now, partition, effects);
        if let Some(hosted) = self.hosted.remove(&partition) {
            effects.host.push(Effect::Release {
                stay: hosted.stay,
                tenure,
                waiting: hosted.released,
            });
        }
    }

    /// Placement says that partitions are other nodes' already: their shards are dropped as they are, with those who wait.
    pub fn lose(&mut self, now: Timestamp, partitions: &[Partition], effects: &mut Effects<W, R>) {
        self.note_unassigned(partitions);
        for partition in partitions {
            self.lose_here(now, *partition, effects);
        }
    }

    /// Drops a shard as it is; answers who has waited for its release.
    fn lose_here(&mut self, now: Timestamp, partition: Partition, effects: &mut Effects<W, R>) -> Vec<R> {
        let was_in_trouble = self.troubles.remove(&partition).is_some();
        let hosted = self.end_stay(partition, effects);
        if hosted.is_some() || was_in_trouble {
            self.deactivate(now, partition, effects);
        }
        hosted.map(|hosted| hosted.released).unwrap_or_default()
    }

    /// Drops a shard that nobody waits for any more here, but for those who want it gone.
    fn drop_here(&mut self, now: Timestamp, partition: Partition, effects: &mut Effects<W, R>) {
        let waiting = self.lose_here(now, partition, effects);
        answer_gone(partition, waiting, effects);
    }

    /// The store says that the shard has another owner, by this epoch.
    pub(super) fn fenced(
        &mut self,
        now: Timestamp,
        partition: Partition,
        stored: Epoch,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let step = hosted.activation.fenced(now);
        self.step(now, partition, step, effects);
        if self.hosted.contains_key(&partition) {
            self.trouble_with(partition, Trouble::Taken(stored), effects);
        }
    }

    /// Drops a shard that another node has taken, and comes back to it later.
    fn retreat(
        &mut self,
        now: Timestamp,
        partition: Partition,
        until: Timestamp,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.end_stay(partition, effects) else {
            return;
        };
        self.deactivate(now, partition, effects);
        self.stay(partition, hosted.activation, hosted.released);
        if let Some(hosted) = self.hosted.get(&partition) {
            effects.host.push(Effect::Wake(hosted.stay, until));
        }
    }

    /// What a shard needs fails, and always will.
    fn broken(&mut self, now: Timestamp, partition: Partition, problem: String, effects: &mut Effects<W, R>) {
        let hosted = self.hosted.get(&partition);
        let is_leaving = hosted.is_some_and(|hosted| hosted.activation.is_leaving());
        self.drop_here(now, partition, effects);
        if !is_leaving {
            self.trouble_with(partition, Trouble::Broken(problem), effects);
        }
    }

    /// Does not bring a shard up.
    fn give_up(
        &mut self,
        now: Timestamp,
        partition: Partition,
        trouble: Trouble,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.end_stay(partition, effects) else {
            return;
        };
        if hosted.activation.is_leaving() {
            // It was to go while it came up: it is the next owner's trouble, and workers that have come for it hear that it has gone.
            self.deactivate(now, partition, effects);
        } else {
            self.trouble_with(partition, trouble, effects);
        }
        answer_gone(partition, hosted.released, effects);
    }

    fn deactivate(&mut self, now: Timestamp, partition: Partition, effects: &mut Effects<W, R>) {
        let shard = self.pipeline.shard(partition);
        let ran = shard.map(|shard| (shard.tenure(), shard.tail()));
        self.event(now, Event::Deactivate(partition), effects);
        effects.host.push(Effect::Left { partition, ran });
    }
}

/// Answers those who have waited for the release of a shard of which nothing is to be released.
fn answer_gone<W, R>(partition: Partition, waiting: Vec<R>, effects: &mut Effects<W, R>) {
    if !waiting.is_empty() {
        effects.host.push(Effect::LetGo(partition, waiting));
    }
}
