//! A store for one shard: what a checkpoint says, applied to maps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, Offset, Partition, PipelineId, ShardId, Tenure};
use scheduler_core::key::SeenKey;
use scheduler_core::outcome::{DeadTask, FinishedTask, ParkedTask};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::shard::{Input, PageId, Shard, ShardConfig};
use scheduler_core::tape::Replay;
use scheduler_core::time::Timestamp;

pub(crate) const SHARD: ShardId = ShardId::new(PipelineId(1), Partition(0));

/// What [`scheduler_core::shard::Output::LoadParked`] asks for: which page, after, until, limit.
pub(crate) type Load = (PageId, Option<(Timestamp, Offset)>, Timestamp, usize);

#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) epoch: u32,
    pub(crate) resume: Offset,
    pub(crate) state: Bytes,
    pub(crate) results: BTreeMap<Offset, FinishedTask>,
    pub(crate) dead: BTreeMap<Offset, DeadTask>,
    pub(crate) parked: BTreeMap<Offset, ParkedTask>,
    pub(crate) keys: Vec<SeenKey>,
    /// Where the log begins.
    pub(crate) log_start: Offset,
}

impl Store {
    /// Applies a checkpoint; once more is the same as once.
    pub(crate) fn apply(&mut self, checkpoint: &Checkpoint) {
        assert!(self.resume <= checkpoint.resume, "the resume offset went back");
        self.resume = checkpoint.resume;
        self.state = checkpoint.state.clone();
        for offset in &checkpoint.revived {
            self.dead.remove(offset);
        }
        for task in &checkpoint.finished {
            let before = self.results.insert(task.offset, task.clone());
            assert!(
                before.as_ref().is_none_or(|before| before == task),
                "an outcome changed from {before:?} to {task:?}"
            );
            assert!(
                !self.dead.contains_key(&task.offset),
                "a dead letter has a result: {task:?}"
            );
        }
        for task in &checkpoint.dead {
            assert!(
                !self.results.contains_key(&task.offset),
                "a result became a dead letter: {task:?}"
            );
            self.dead.insert(task.offset, task.clone());
        }
        self.keys.extend(&checkpoint.keys);
        for offset in &checkpoint.unparked {
            self.parked.remove(offset);
        }
        for task in &checkpoint.parked {
            assert!(
                !checkpoint.unparked.contains(&task.offset),
                "{:?} is both parked and unparked",
                task.offset
            );
            self.parked.insert(task.offset, task.clone());
        }
        for offset in self.parked.keys() {
            let is_elsewhere = self.results.contains_key(offset) || self.dead.contains_key(offset);
            assert!(!is_elsewhere, "the row of {offset:?} outlived the task");
        }
    }

    /// What the driver reads for [`scheduler_core::shard::Output::LoadParked`].
    pub(crate) fn page(&self, (page_id, after, until, limit): Load) -> Input {
        let mut rows: Vec<&ParkedTask> = self
            .parked
            .values()
            .filter(|task| after.is_none_or(|after| (task.wake_at, task.offset) > after))
            .collect();
        rows.sort_by_key(|task| (task.wake_at, task.offset));
        let page = rows.iter().take_while(|task| task.wake_at <= until).take(limit);
        let tasks: Vec<ParkedTask> = page.map(|task| (*task).clone()).collect();
        let next_wake = rows.get(tasks.len()).map_or(Timestamp::MAX, |task| task.wake_at);
        Input::Unpark {
            page: page_id,
            tasks,
            next_wake,
        }
    }

    /// A shard of the next epoch.
    pub(crate) fn activate(
        &mut self,
        now: Timestamp,
        policy: Arc<PipelinePolicy>,
        log_end: Offset,
        unclean: bool,
        grace: Duration,
    ) -> Shard {
        self.epoch += 1;
        let config = ShardConfig {
            tenure: Tenure {
                shard: SHARD,
                epoch: Epoch(self.epoch),
            },
            policy,
            resume: self.resume,
            state: self.state.clone(),
            log_start: self.log_start,
            log_end,
            unclean,
            grace,
        };
        Shard::recorded(now, config, usize::MAX).expect("what a shard has saved can be read")
    }
}

/// A replay of what a shard was told decides as the shard did.
pub(crate) fn check_recording(shard: &mut Shard) {
    let recording = shard.take_recorded().expect("it records");
    let mut replay = Replay::new(&recording.into()).expect("a recording");
    for step in replay.by_ref() {
        let step = step.expect("a step");
        assert!(step.agrees, "the replay decides otherwise: {step:?}");
    }
    assert_eq!(replay.shard().account(), shard.account());
    assert_eq!(replay.shard().counts(), shard.counts());
}
