//! How a shard comes up where its partition is assigned, and how it lets go.
//!
//! ```text
//!     ┌──────────── Waiting ◄───┐
//!     ▼                         │ fenced
//! Claiming ──► Measuring ──► Active ──► Draining ──► Released
//!     │            └──► Damaged
//!     └──► Quarantined
//! ```
//!
//! A shard that turns out to have another owner though placement says that it is ours is claimed again after a pause, which grows while that
//! goes on: of two nodes that are both told that it is theirs each has it for a while, and whoever is told that it is not stops for good.
//!
//! The driver does what each [`Step`] says and comes back with its result. Replay and grace are the [`Shard`]'s own: it is given
//! tasks from the resume offset on, and knows which of them its last owner may have leased.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::DecodeError;
use crate::id::{CheckpointId, NodeId, Offset, ShardId, Tenure};
use crate::policy::{PipelinePolicy, mix};
use crate::port::log::Bounds;
use crate::port::store::{Claimed, PreviousOwner};
use crate::shard::{Shard, ShardConfig};
use crate::time::{Timestamp, millis};

/// How many owners in a row may die without saving anything before a shard is left alone.
pub const QUARANTINE_AFTER: u32 = 3;

/// The pause before a shard that another owner took is claimed again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pause doubles up to this each time; a shard that ran for longer than this begins with the first pause again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A shard that leaves while there is always more to save is released after so many checkpoints. More than one: of the first it may be that
/// it was made before leasing stopped.
const MOST_FLUSHES: u32 = 8;

/// Where an activation is.
#[derive(Clone, Debug)]
enum Phase {
    Claiming,
    Measuring(Claimed),
    Active {
        tenure: Tenure,
        since: Timestamp,
    },
    Draining {
        tenure: Tenure,
        /// Checkpoints that have been saved since it began.
        saved: u32,
    },
    /// Another owner has the shard; it is claimed again then.
    Waiting(Timestamp),
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
    /// Stop leasing: hand the shard [`Input::Leave`](crate::shard::Input::Leave) and no more records, and say [`Activation::saved`] whenever
    /// a checkpoint is saved, and at once if everything is.
    Leave,
    /// Save what is unsaved, then say [`Activation::saved`].
    Flush,
    /// Release the tenure in the store; the shard is done with here.
    Release(Tenure),
    /// Leave the shard alone: its last owners died before they saved anything, and so would we.
    Quarantine {
        /// How many of them.
        owners: u32,
    },
    /// Drop the machine without saving, and everything that works for it; come back then with [`Activation::due`].
    Retreat(Timestamp),
    /// Drop whatever is left of the shard.
    Drop,
    /// Wait.
    Nothing,
}

/// The life of one shard on this node. See the [module](self).
#[derive(Debug)]
pub struct Activation {
    shard: ShardId,
    policy: Arc<PipelinePolicy>,
    grace: Duration,
    /// Draws the pauses: other nodes draw others.
    seed: u64,
    phase: Phase,
    /// How often in a row it was found with another owner.
    retreats: u32,
    /// Whether it was revoked before it came up.
    leaving: bool,
    /// Whether it comes up however many owners died.
    insist: bool,
    /// How many bytes of what the shard is told are recorded.
    recorded: Option<usize>,
}

impl Activation {
    /// Begins: the partition was assigned to this node.
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    pub fn begin(shard: ShardId, node: NodeId, policy: Arc<PipelinePolicy>, grace: Duration) -> (Self, Step) {
        let (high, low) = ((node.0 >> 64) as u64, node.0 as u64);
        (
            Self {
                shard,
                policy,
                grace,
                seed: mix(
                    high ^ mix(low ^ mix(u64::from(shard.pipeline.0) << 32 | u64::from(shard.partition.0)))
                ),
                phase: Phase::Claiming,
                retreats: 0,
                leaving: false,
                insist: false,
                recorded: None,
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

    /// Has the shard record what it is told, up to `limit` bytes.
    #[must_use]
    pub fn recording(mut self, limit: usize) -> Self {
        self.recorded = Some(limit);
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
            log_start: bounds.start,
            log_end: bounds.end,
            unclean: claimed.previous == PreviousOwner::Vanished,
            grace: self.grace,
        };
        // Of a shard that comes up again by itself, nobody has asked for another recording.
        let shard = match self.recorded.take() {
            Some(limit) => Shard::recorded(now, config, limit),
            None => Shard::new(now, config),
        };
        let shard = match shard {
            Ok(shard) => shard,
            Err(damage) => {
                // It is not released: whoever can read the state must know that its last owner vanished.
                self.phase = Phase::Ended;
                return Err(damage);
            }
        };
        let from = claimed.resume.max(bounds.start);
        let missing = from.0 - claimed.resume.0;
        self.phase = Phase::Active { tenure, since: now };
        self.insist = false;
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
            Phase::Active { tenure, .. } => {
                self.phase = Phase::Draining { tenure, saved: 0 };
                Step::Leave
            }
            Phase::Waiting(_) => {
                self.phase = Phase::Ended;
                Step::Drop
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
            Phase::Draining { .. } | Phase::Ended => Step::Nothing,
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
        let Phase::Draining { tenure, saved } = &mut self.phase else {
            return Step::Nothing;
        };
        *saved += 1;
        if rest.is_some() && *saved < MOST_FLUSHES {
            return Step::Flush;
        }
        // If there is more, it is what workers said since: of every lease the store knows, and workers keep what is not settled. Waiting on
        // would wait for as long as they are busy.
        let tenure = *tenure;
        self.phase = Phase::Ended;
        Step::Release(tenure)
    }

    /// The store says that the shard has another owner. Unless it was to leave, it is claimed again after a pause.
    pub fn fenced(&mut self, now: Timestamp) -> Step {
        match self.phase {
            Phase::Active { since, .. } => {
                if now.since(since) > LONGEST_PAUSE {
                    self.retreats = 0;
                }
                let until = now + self.pause();
                self.retreats = self.retreats.saturating_add(1);
                self.phase = Phase::Waiting(until);
                Step::Retreat(until)
            }
            Phase::Draining { .. } => {
                self.phase = Phase::Ended;
                Step::Drop
            }
            Phase::Claiming | Phase::Measuring(_) | Phase::Waiting(_) | Phase::Ended => Step::Nothing,
        }
    }

    /// From half of it up to the whole of a pause that doubles each time.
    fn pause(&self) -> Duration {
        let full = FIRST_PAUSE * (1 << self.retreats.min(5));
        let half = millis(full.min(LONGEST_PAUSE)) / 2;
        let chance = mix(self.seed ^ u64::from(self.retreats)) % (half + 1);
        Duration::from_millis(half + chance)
    }

    /// The time of [`Step::Retreat`] has come.
    pub fn due(&mut self, now: Timestamp) -> Step {
        match self.phase {
            Phase::Waiting(until) if until <= now => {
                self.phase = Phase::Claiming;
                Step::Claim
            }
            Phase::Waiting(until) => Step::Retreat(until),
            _ => Step::Nothing,
        }
    }

    /// Placement says that the shard is another node's: drop it without saving.
    pub fn lose(&mut self) {
        self.phase = Phase::Ended;
    }

    /// By what right the shard acts, while it does.
    pub fn tenure(&self) -> Option<Tenure> {
        match self.phase {
            Phase::Active { tenure, .. } | Phase::Draining { tenure, .. } => Some(tenure),
            Phase::Claiming | Phase::Measuring(_) | Phase::Waiting(_) | Phase::Ended => None,
        }
    }

    /// Whether it is on its way to let go.
    pub fn is_leaving(&self) -> bool {
        self.leaving || matches!(self.phase, Phase::Draining { .. })
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
        Activation::begin(shard, NodeId(7), Arc::default(), Duration::from_secs(5)).0
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
        assert!(matches!(activation.revoke(), Step::Leave));
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
            assert!(matches!(activation.revoke(), Step::Leave));
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

    fn active(now: Timestamp) -> Activation {
        let mut activation = activation();
        activation.claimed(claimed(0));
        run(&mut activation, now);
        activation
    }

    fn run(activation: &mut Activation, now: Timestamp) {
        let bounds = Bounds {
            start: Offset(4),
            end: Offset(20),
        };
        let step = activation.measured(now, bounds);
        assert!(matches!(step, Ok(Step::Run { .. })));
    }

    #[test]
    fn a_shard_that_another_owner_took_is_claimed_again_later_and_later() {
        let mut now = Timestamp::from_millis(1_000);
        let mut activation = active(now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Step::Retreat(until) = activation.fenced(now) else {
                panic!("it is still ours");
            };
            assert_eq!(activation.tenure(), None);
            let early = activation.due(Timestamp::from_millis(until.as_millis() - 1));
            assert!(matches!(early, Step::Retreat(again) if again == until));
            pauses.push(millis(until.since(now)));
            now = until;
            assert!(matches!(activation.due(now), Step::Claim));
            assert!(matches!(activation.claimed(claimed(0)), Step::Measure));
            run(&mut activation, now);
        }
        assert!((500..=1_000).contains(&pauses[0]), "{pauses:?}");
        assert!(
            pauses
                .iter()
                .rev()
                .take(3)
                .all(|pause| (15_000..=30_000).contains(pause)),
            "{pauses:?}"
        );
        // Once it has been here for a while, all is well again.
        now = now + Duration::from_mins(1);
        let Step::Retreat(until) = activation.fenced(now) else {
            panic!("it is still ours");
        };
        assert!(until <= now + FIRST_PAUSE);
    }

    #[test]
    fn whoever_is_told_that_a_shard_is_not_its_own_does_not_claim_it_again() {
        let now = Timestamp::from_millis(1_000);
        let mut leaving = active(now);
        leaving.revoke();
        assert!(matches!(leaving.fenced(now), Step::Drop));
        let mut waiting = active(now);
        waiting.fenced(now);
        assert!(matches!(waiting.revoke(), Step::Drop));
        let mut lost = active(now);
        lost.fenced(now);
        lost.lose();
        for mut activation in [leaving, waiting, lost] {
            assert!(activation.has_ended());
            assert!(matches!(activation.due(now + LONGEST_PAUSE), Step::Nothing));
        }
    }

    #[test]
    fn a_shard_that_leaves_under_load_leaves_all_the_same() {
        let mut activation = active(Timestamp::ZERO);
        activation.revoke();
        for _ in 1..MOST_FLUSHES {
            assert!(matches!(activation.saved(Some(CheckpointId(9))), Step::Flush));
        }
        assert!(matches!(
            activation.saved(Some(CheckpointId(9))),
            Step::Release(_)
        ));
    }

    #[test]
    fn what_comes_too_late_changes_nothing() {
        let mut activation = activation();
        activation.lose();
        assert!(matches!(activation.claimed(claimed(0)), Step::Nothing));
        assert!(matches!(activation.saved(None), Step::Nothing));
    }
}
