//! Promise 5: memory is bounded by the window, whatever the backlog.

use scheduler_core::policy::PipelinePolicy;
use scheduler_core::shard::Shard;

#[derive(Debug)]
pub(super) struct Memory {
    max_tasks: u64,
    has_gaps: bool,
}

impl Memory {
    pub(super) fn new(policy: &PipelinePolicy) -> Self {
        Self {
            max_tasks: policy.window.max_tasks.into(),
            has_gaps: false,
        }
    }

    pub(super) fn log_has_gap(&mut self) {
        self.has_gaps = true;
    }

    pub(super) fn policy_changed(&mut self, policy: &PipelinePolicy) {
        // What a larger window took in stays.
        self.max_tasks = self.max_tasks.max(policy.window.max_tasks.into());
    }

    pub(super) fn check(&self, shard: &Shard) -> Result<(), String> {
        let counts = shard.counts();
        let live = counts.ready + counts.delayed + counts.running;
        if live > self.max_tasks {
            return Err(format!(
                "{} holds {live} tasks ({counts:?}), and its window {}",
                shard.tenure().shard,
                self.max_tasks
            ));
        }
        Ok(())
    }
}
