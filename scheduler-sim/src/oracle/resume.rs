//! Promise 6: the resume offset goes forward; one old task does not hold it.

use std::collections::BTreeMap;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{CheckpointId, Offset, Tenure};
use scheduler_core::policy::PipelinePolicy;

use crate::store::ShardRows;

#[derive(Debug)]
pub(super) struct Resume {
    max_span: u64,
    has_gaps: bool,
    /// How many rows a checkpoint must leave behind, if its span is too wide.
    owed: BTreeMap<(Tenure, CheckpointId), usize>,
    last: BTreeMap<scheduler_core::id::ShardId, Offset>,
    /// Where the tail was when the tenure's last checkpoint had been made: the next one is made no earlier.
    tails: BTreeMap<Tenure, Offset>,
}

impl Resume {
    pub(super) fn new(policy: &PipelinePolicy) -> Self {
        Self {
            max_span: policy.window.max_span.into(),
            has_gaps: false,
            owed: BTreeMap::new(),
            last: BTreeMap::new(),
            tails: BTreeMap::new(),
        }
    }

    pub(super) fn log_has_gap(&mut self) {
        self.has_gaps = true;
    }

    pub(super) fn policy_changed(&mut self, policy: &PipelinePolicy) {
        self.max_span = self.max_span.max(policy.window.max_span.into());
    }

    /// A shard has made a checkpoint.
    pub(super) fn made(
        &mut self,
        checkpoint: &Checkpoint,
        tail: Offset,
        policy: &PipelinePolicy,
    ) -> Result<(), String> {
        let span = tail.0.saturating_sub(checkpoint.resume.0);
        if span > self.max_span && !self.has_gaps {
            return Err(format!(
                "{:?} of {} resumes at {:?}, {span} before the tail; the window's span is {}",
                checkpoint.id, checkpoint.tenure.shard, checkpoint.resume, self.max_span
            ));
        }
        let before = self.tails.insert(checkpoint.tenure, tail).unwrap_or_default();
        if before.0.saturating_sub(checkpoint.resume.0) > u64::from(policy.window.max_span) / 2 {
            let rows = (policy.window.max_tasks as usize / 2).max(1);
            if self.has_gaps {
                return Ok(());
            }
            self.owed.insert((checkpoint.tenure, checkpoint.id), rows);
        }
        Ok(())
    }

    /// A checkpoint is stored.
    pub(super) fn saved(&mut self, rows: &ShardRows, checkpoint: &Checkpoint) -> Result<(), String> {
        let last = self.last.entry(checkpoint.tenure.shard).or_default();
        if checkpoint.resume < *last {
            return Err(format!(
                "the resume offset of {} goes back from {last:?} to {:?}",
                checkpoint.tenure.shard, checkpoint.resume
            ));
        }
        *last = checkpoint.resume;
        if let Some(owed) = self.owed.remove(&(checkpoint.tenure, checkpoint.id))
            && rows.parked.len() < owed
        {
            return Err(format!(
                "{} is held at {:?} by an old task, and only {} are carried over of {owed} that may be",
                checkpoint.tenure.shard,
                checkpoint.resume,
                rows.parked.len()
            ));
        }
        Ok(())
    }
}
