//! How a shard comes up where its partition is assigned, and how it lets go.
//!
//! ```text
//! Claiming ──► Measuring ──► Active ──► Draining ──► Released
//!     │            │           └───────► Fenced
//!     │            └──► Damaged
//!     └──► Quarantined
//! ```
//!
//! The driver does what each [`Step`] says and comes back with its result. Replay and grace are the [`Shard`]'s own: it is given
//! tasks from the resume offset on, and knows which of them its last owner may have leased.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::DecodeError;
use crate::id::{CheckpointId, Offset, ShardId, Tenure};
use crate::policy::PipelinePolicy;
use crate::port::log::Bounds;
use crate::port::store::{Claimed, PreviousOwner};
use crate::shard::{Shard, ShardConfig};
use crate::time::Timestamp;

/// How many owners in a row may die without saving anything before a shard is left alone.
pub const QUARANTINE_AFTER: u32 = 3;

/// Where an activation is.
#[derive(Clone, Debug)]
enum Phase {
    Claiming,
    Measuring(Claimed),
    Active(Tenure),
    Draining(Tenure),
    Ended,
}

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step {
    /// Claim the shard in the store, then say [`Activation::claimed`].
    Claim,
    /// Find the bounds of its log, then say [`Activation::measured`].
    Measure,
    /// Run the shard: hand it the log's records from `from` on. If the shard is to leave already ([`Activation::is_leaving`]), hand it none,
    /// and say [`Activation::revoke`] again.
    Run {
        /// The machine.
        shard: Box<Shard>,
        /// Where the reader begins.
        from: Offset,
        /// How many records the log has lost before their time: nobody will ever run them.
        missing: u64,
        /// One past the last record of the log now: what is before it is replayed.
        log_end: Offset,
    },
    /// Save until nothing is unsaved, then say [`Activation::saved`].
    Flush,
    /// Release the tenure in the store; the shard is done with here.
    Release(Tenure),
    /// Leave the shard alone: its last owners died before they saved anything, and so would we.
    Quarantine {
        /// How many of them.
        owners: u32,
    },
    /// Wait.
    Nothing,
}

/// The life of one shard on this node. See the [module](self).
#[derive(Debug)]
pub struct Activation {
    shard: ShardId,
    policy: Arc<PipelinePolicy>,
    grace: Duration,
    phase: Phase,
    /// Whether it was revoked before it came up.
    leaving: bool,
    /// Whether it comes up however many owners died.
    insist: bool,
}

impl Activation {
    /// Begins: the partition was assigned to this node.
    pub fn begin(shard: ShardId, policy: Arc<PipelinePolicy>, grace: Duration) -> (Self, Step) {
        (
            Self {
                shard,
                policy,
                grace,
                phase: Phase::Claiming,
                leaving: false,
                insist: false,
            },
            Step::Claim,
        )
    }

    /// Brings the shard up even if it is quarantined: somebody who knows why its owners died says so.
    #[must_use]
    pub fn insisting(mut self) -> Self {
        self.insist = true;
        self
    }

    /// The store gave us the shard.
    pub fn claimed(&mut self, claimed: Claimed) -> Step {
        if !matches!(self.phase, Phase::Claiming) {
            return Step::Nothing;
        }
        if self.leaving && claimed.previous != PreviousOwner::Vanished {
            return self.release_unused(&claimed);
        }
        if claimed.barren_epochs >= QUARANTINE_AFTER && !self.insist {
            self.phase = Phase::Ended;
            return Step::Quarantine {
                owners: claimed.barren_epochs,
            };
        }
        self.phase = Phase::Measuring(claimed);
        Step::Measure
    }

    /// The log is so long.
    pub fn measured(&mut self, now: Timestamp, bounds: Bounds) -> Result<Step, DecodeError> {
        let Phase::Measuring(claimed) = &self.phase else {
            return Ok(Step::Nothing);
        };
        let tenure = Tenure {
            shard: self.shard,
            epoch: claimed.epoch,
        };
        let config = ShardConfig {
            tenure,
            policy: self.policy.clone(),
            resume: claimed.resume,
            state: claimed.state.clone(),
            log_end: bounds.end,
            unclean: claimed.previous == PreviousOwner::Vanished,
            grace: self.grace,
        };
        let shard = match Shard::new(now, config) {
            Ok(shard) => shard,
            Err(damage) => {
                // It is not released: whoever can read the state must know that its last owner vanished.
                self.phase = Phase::Ended;
                return Err(damage);
            }
        };
        let from = claimed.resume.max(bounds.start);
        let missing = from.0 - claimed.resume.0;
        self.phase = Phase::Active(tenure);
        Ok(Step::Run {
            shard: Box::new(shard),
            from,
            missing,
            log_end: bounds.end,
        })
    }

    /// The partition goes to another node, or this one goes down.
    pub fn revoke(&mut self) -> Step {
        match self.phase {
            Phase::Active(tenure) => {
                self.phase = Phase::Draining(tenure);
                Step::Flush
            }
            Phase::Measuring(ref claimed) if claimed.previous != PreviousOwner::Vanished => {
                let claimed = claimed.clone();
                self.release_unused(&claimed)
            }
            // A claim under way cannot be taken back; and to release what a vanished owner left would say that nothing of it is unknown.
            // So the shard comes up first, and leaves with a checkpoint that says what it knows.
            Phase::Claiming | Phase::Measuring(_) => {
                self.leaving = true;
                Step::Nothing
            }
            Phase::Draining(_) | Phase::Ended => Step::Nothing,
        }
    }

    /// What was claimed and not begun is nobody's work lost.
    fn release_unused(&mut self, claimed: &Claimed) -> Step {
        self.phase = Phase::Ended;
        Step::Release(Tenure {
            shard: self.shard,
            epoch: claimed.epoch,
        })
    }

    /// A checkpoint is saved; `rest` is the one that would cover what has happened since, if anything has.
    pub fn saved(&mut self, rest: Option<CheckpointId>) -> Step {
        match (&self.phase, rest) {
            (Phase::Draining(_), Some(_)) => Step::Flush,
            (Phase::Draining(tenure), None) => {
                let tenure = *tenure;
                self.phase = Phase::Ended;
                Step::Release(tenure)
            }
            _ => Step::Nothing,
        }
    }

    /// The store says that the shard has another owner, or placement that it is lost: drop it without saving.
    pub fn fenced(&mut self) {
        self.phase = Phase::Ended;
    }

    /// By what right the shard acts, while it does.
    pub fn tenure(&self) -> Option<Tenure> {
        match self.phase {
            Phase::Active(tenure) | Phase::Draining(tenure) => Some(tenure),
            Phase::Claiming | Phase::Measuring(_) | Phase::Ended => None,
        }
    }

    /// Whether it is on its way to let go.
    pub fn is_leaving(&self) -> bool {
        self.leaving || matches!(self.phase, Phase::Draining(_))
    }

    /// Whether nothing will happen any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{Epoch, Partition, PipelineId};

    fn claimed(barren_epochs: u32) -> Claimed {
        Claimed {
            epoch: Epoch(7),
            previous: PreviousOwner::Vanished,
            resume: Offset(10),
            state: Bytes::new(),
            barren_epochs,
        }
    }

    fn activation() -> Activation {
        let shard = ShardId::new(PipelineId(1), Partition(0));
        Activation::begin(shard, Arc::default(), Duration::from_secs(5)).0
    }

    #[test]
    fn a_shard_comes_up_where_its_checkpoint_ended_and_lets_go_when_all_is_saved() {
        let mut activation = activation();
        assert!(matches!(activation.claimed(claimed(0)), Step::Measure));
        let bounds = Bounds {
            start: Offset(4),
            end: Offset(20),
        };
        let step = activation
            .measured(Timestamp::ZERO, bounds)
            .expect("no state is a good state");
        assert!(matches!(
            step,
            Step::Run {
                from: Offset(10),
                missing: 0,
                ..
            }
        ));
        assert!(matches!(activation.revoke(), Step::Flush));
        assert!(matches!(activation.saved(Some(CheckpointId(2))), Step::Flush));
        assert!(matches!(
            activation.saved(None),
            Step::Release(Tenure { epoch: Epoch(7), .. })
        ));
        assert_eq!(activation.tenure(), None);
    }

    #[test]
    fn records_that_the_log_has_lost_are_counted() {
        let mut activation = activation();
        activation.claimed(claimed(0));
        let bounds = Bounds {
            start: Offset(14),
            end: Offset(20),
        };
        let step = activation
            .measured(Timestamp::ZERO, bounds)
            .expect("no state is a good state");
        assert!(matches!(
            step,
            Step::Run {
                from: Offset(14),
                missing: 4,
                ..
            }
        ));
    }

    #[test]
    fn a_shard_that_killed_its_last_owners_is_left_alone() {
        assert!(matches!(
            activation().claimed(claimed(QUARANTINE_AFTER)),
            Step::Quarantine { owners: 3 }
        ));
        assert!(matches!(
            activation().claimed(claimed(QUARANTINE_AFTER - 1)),
            Step::Measure
        ));
    }

    #[test]
    fn a_shard_that_is_revoked_before_its_claim_answers_is_released_when_it_does() {
        let mut activation = activation();
        assert!(matches!(activation.revoke(), Step::Nothing));
        assert!(!activation.has_ended());
        let clean = Claimed {
            previous: PreviousOwner::Released,
            ..claimed(0)
        };
        assert!(matches!(activation.claimed(clean), Step::Release(_)));
        assert!(activation.has_ended());
    }

    #[test]
    fn a_shard_whose_owner_vanished_comes_up_before_it_is_released_so_that_its_grace_is_passed_on() {
        for revoked_after_claim in [false, true] {
            let mut activation = activation();
            if !revoked_after_claim {
                assert!(matches!(activation.revoke(), Step::Nothing));
            }
            assert!(matches!(activation.claimed(claimed(0)), Step::Measure));
            if revoked_after_claim {
                assert!(matches!(activation.revoke(), Step::Nothing));
            }
            let bounds = Bounds {
                start: Offset(4),
                end: Offset(20),
            };
            let step = activation.measured(Timestamp::ZERO, bounds);
            assert!(matches!(step, Ok(Step::Run { .. })));
            assert!(activation.is_leaving());
            assert!(matches!(activation.revoke(), Step::Flush));
            assert!(matches!(activation.saved(None), Step::Release(_)));
        }
    }

    #[test]
    fn a_quarantined_shard_comes_up_if_somebody_insists() {
        let mut activation = activation().insisting();
        assert!(matches!(
            activation.claimed(claimed(QUARANTINE_AFTER)),
            Step::Measure
        ));
    }

    #[test]
    fn a_shard_whose_state_cannot_be_read_is_not_released() {
        let mut activation = activation();
        activation.claimed(Claimed {
            state: Bytes::from_static(b"\xffnot a state"),
            ..claimed(0)
        });
        let bounds = Bounds {
            start: Offset(4),
            end: Offset(20),
        };
        assert!(activation.measured(Timestamp::ZERO, bounds).is_err());
        assert!(matches!(activation.revoke(), Step::Nothing));
        assert!(activation.has_ended());
    }

    #[test]
    fn what_comes_too_late_changes_nothing() {
        let mut activation = activation();
        activation.fenced();
        assert!(matches!(activation.claimed(claimed(0)), Step::Nothing));
        assert!(matches!(activation.saved(None), Step::Nothing));
    }
}
