//! Promise 5: memory is bounded by the window, whatever the backlog.
//!
//! A read of the log that waits for records may have been given room that parked tasks have taken since: so by the window and one read.

use scheduler_core::host::MOST_RECORDS;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::shard::Shard;

#[derive(Debug)]
pub(super) struct Memory {
    max_tasks: u64,
}

impl Memory {
    pub(super) fn new(policy: &PipelinePolicy) -> Self {
        Self {
            max_tasks: policy.window.max_tasks.into(),
        }
    }

    pub(super) fn policy_changed(&mut self, policy: &PipelinePolicy) {
        // What a larger window took in stays.
        self.max_tasks = self.max_tasks.max(policy.window.max_tasks.into());
    }

    pub(super) fn check(&self, shard: &Shard) -> Result<(), String> {
        let counts = shard.counts();
        let live = counts.ready + counts.delayed + counts.running;
        if live > self.max_tasks + self.max_tasks.min(MOST_RECORDS as u64) {
            return Err(format!(
                "{} holds {live} tasks ({counts:?}), and its window {}",
                shard.tenure().shard,
                self.max_tasks
            ));
        }
        Ok(())
    }
}
