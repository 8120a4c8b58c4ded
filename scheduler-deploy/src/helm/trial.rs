//! Whether what was deployed works: looked at until its workers have been ready, or it is known that they do not come.
//!
//! What this finds is only written down. Who brings the release to what is wanted reads it there, so it is of no matter which process finds it.

use std::time::{Duration, Instant};

use kube::Client;
use scheduler_core::id::PipelineId;
use scheduler_core::port::deploy::DeployError;

use super::revision;
use super::rollout::{self, Seen};

/// The wait before the next look; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often a reason is looked for that no pod tells: one that pulls its image once more has none for a moment.
const UNEXPLAINED: u32 = 6;

/// What is looked at.
pub(super) struct Trial {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) pipeline: PipelineId,
    /// The digest of what is deployed.
    pub(super) meant: String,
}

/// What is to be said of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// All workers are ready.
    Good,
    /// They do not come.
    Bad,
    Unknown,
}

/// What was seen before.
#[derive(Debug, Default)]
struct Memory {
    /// Kubernetes has given it up.
    is_given_up: bool,
    /// Since when workers are wanted and none is ready.
    waiting: Option<Instant>,
    /// What a pod said last of what is wrong.
    told: String,
    unexplained: u32,
}

impl Memory {
    fn judge(&mut self, seen: &Seen, now: Instant) -> Verdict {
        if seen.wanted > 0 && seen.is_up() {
            return Verdict::Good;
        }
        let was_given_up = std::mem::replace(&mut self.is_given_up, seen.is_given_up);
        // Once may be about what was deployed before, if it is looked at just when the controller has seen only half of the change.
        if was_given_up && seen.is_given_up {
            return Verdict::Bad;
        }
        // What is deployed while no worker is wanted is complete for Kubernetes, which then waits for workers as long as it takes.
        if seen.wanted == 0 || seen.ready > 0 {
            self.waiting = None;
            return Verdict::Unknown;
        }
        let since = *self.waiting.get_or_insert(now);
        if now.saturating_duration_since(since) > seen.patience {
            Verdict::Bad
        } else {
            Verdict::Unknown
        }
    }
}

impl Trial {
    /// Looks until it is to be taken back, which is then written down. One that shows that it works, or that has nothing before it, is left alone for
    /// ever.
    pub(super) async fn run(self) {
        let mut memory = Memory::default();
        let mut wait = FIRST_WAIT;
        loop {
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
            match self.look(&mut memory).await {
                Ok(Ended::ToBeTakenBack) => return,
                Ok(Ended::Proven) => std::future::pending().await,
                Ok(Ended::InDoubt) => wait = FIRST_WAIT,
                Ok(Ended::NotYet) => (),
                Err(problem) => {
                    let problem = &problem as &dyn std::error::Error;
                    tracing::debug!(
                        namespace = self.namespace,
                        error = problem,
                        "a rollout is not seen"
                    );
                }
            }
        }
    }

    async fn look(&self, memory: &mut Memory) -> Result<Ended, DeployError> {
        let (client, namespace) = (&self.client, &self.namespace);
        let seen = rollout::look(client, namespace, self.pipeline).await?;
        if let Some(told) = &seen.told {
            memory.told.clone_from(told);
        }
        let verdict = memory.judge(&seen, Instant::now());
        if verdict == Verdict::Unknown {
            let is_in_doubt = memory.is_given_up;
            return Ok(if is_in_doubt {
                Ended::InDoubt
            } else {
                Ended::NotYet
            });
        }
        let revisions = revision::list(client, namespace, Some(self.pipeline)).await?;
        let Some(last) = revisions
            .last()
            .filter(|last| last.status == "deployed" && last.wanted == self.meant)
        else {
            return Ok(Ended::NotYet);
        };
        if verdict == Verdict::Good {
            revision::prove(client, namespace, last).await?;
            return Ok(Ended::Proven);
        }
        let Some(instead) = revision::proven_before(&revisions, &self.meant) else {
            return Ok(Ended::NotYet);
        };
        if memory.told.is_empty() && memory.unexplained < UNEXPLAINED {
            memory.unexplained += 1;
            return Ok(Ended::InDoubt);
        }
        let told = Some(&memory.told).filter(|told| !told.is_empty());
        let problem = told.unwrap_or(&seen.problem);
        revision::refuse(client, namespace, instead, &self.meant, problem).await?;
        Ok(Ended::ToBeTakenBack)
    }
}

/// How a look ended.
enum Ended {
    NotYet,
    /// The next one is to be soon.
    InDoubt,
    Proven,
    ToBeTakenBack,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(10);

    fn seen(wanted: u32, ready: u32) -> Seen {
        Seen {
            wanted,
            ready,
            is_current: true,
            patience: PATIENCE,
            ..Seen::default()
        }
    }

    #[test]
    fn workers_that_are_all_ready_and_new_are_good_and_none_at_all_say_nothing() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.judge(&seen(2, 2), now), Verdict::Good);
        let old = Seen {
            is_current: false,
            ..seen(2, 2)
        };
        assert_eq!(memory.judge(&old, now), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(2, 1), now), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(0, 0), now), Verdict::Unknown);
    }

    #[test]
    fn what_kubernetes_gives_up_is_bad_when_it_is_seen_twice() {
        let given_up = Seen {
            is_given_up: true,
            ..seen(2, 1)
        };
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.judge(&given_up, now), Verdict::Unknown);
        // The change was only half seen.
        assert_eq!(memory.judge(&seen(2, 1), now), Verdict::Unknown);
        assert_eq!(memory.judge(&given_up, now), Verdict::Unknown);
        assert_eq!(memory.judge(&given_up, now), Verdict::Bad);
    }

    #[test]
    fn workers_of_which_none_comes_are_bad_when_their_time_is_over() {
        let mut memory = Memory::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(memory.judge(&seen(0, 0), begun), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(1, 0), after(900)), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(1, 0), after(1500)), Verdict::Unknown);
        // They were not wanted any more in between.
        assert_eq!(memory.judge(&seen(0, 0), after(1501)), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(1, 0), after(1502)), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(1, 0), after(2102)), Verdict::Unknown);
        assert_eq!(memory.judge(&seen(1, 0), after(2103)), Verdict::Bad);
    }
}
