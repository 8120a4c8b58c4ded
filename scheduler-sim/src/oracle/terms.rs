//! What a submitter asked for: a task is given out neither before its time nor after it.

use scheduler_core::port::gateway::Lease;
use scheduler_core::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Terms {
    /// What the clock said that was ahead of all others so far. By it an owner may have found that a task's time had come, and have
    /// told the next one so, whose clock is behind.
    furthest: Timestamp,
}

impl Terms {
    /// A node looks at its clock.
    pub(super) fn clock(&mut self, now: Timestamp) {
        self.furthest = self.furthest.max(now);
    }

    /// A task is leased. Where people hasten tasks, one may come before its time.
    pub(super) fn check_lease(
        &self,
        lease: &Lease,
        now: Timestamp,
        may_be_hastened: bool,
    ) -> Result<(), String> {
        let Some(options) = &lease.spec.options else {
            return Ok(());
        };
        let of = (lease.partition, lease.offset);
        if let Some(not_before) = options.not_before
            && self.furthest.max(now) < not_before
            && !may_be_hastened
        {
            return Err(format!(
                "{of:?} is leased at {now:?} and was not to be before {not_before:?}"
            ));
        }
        if let Some(deadline) = options.deadline
            && now >= deadline
        {
            return Err(format!(
                "{of:?} is leased at {now:?}, and its time was over at {deadline:?}"
            ));
        }
        Ok(())
    }
}
