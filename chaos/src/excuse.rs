//! What excuses a repeat: the cases that `docs/promises.md` names, and no other. That a server died, stopped or was restarted excuses none.

use std::fmt;

use crate::journal::Journal;
use crate::ledger::{Happened, Ran};
use crate::node::GRACE;
use crate::plan::Fault;

/// How long a report is on its way to a server that is well, in milliseconds.
const ON_ITS_WAY: u64 = 1_000;
/// How long a report is not settled while all is well: the interval of checkpoints, and a save.
const UNSETTLED: u64 = 3_000;

/// Why a task ran twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Excuse {
    /// The worker was killed before its report was taken.
    ReportDied(Fault),
    /// The worker was killed and the shard moved before the report was saved.
    BothDied(Fault),
    /// The worker gave no sign of life for too long.
    Silent(Fault),
    /// The worker could not come back within the grace of the shard's next owner.
    Late(Fault),
}

impl fmt::Display for Excuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReportDied(fault) => write!(f, "the report died with its worker ({fault})"),
            Self::BothDied(fault) => {
                write!(
                    f,
                    "worker and shard were gone before the report was saved ({fault})"
                )
            }
            Self::Silent(fault) => write!(f, "no sign of life of the worker for too long ({fault})"),
            Self::Late(fault) => write!(
                f,
                "the worker could not come back within the grace of the next owner ({fault})"
            ),
        }
    }
}

/// What a repeat is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// What happened.
    pub faults: &'a [Happened],
    /// Who owned what.
    pub journal: &'a Journal,
    /// How long a worker may be silent, in milliseconds.
    pub heartbeat: u64,
}

impl Circumstances<'_> {
    /// What excuses that a task which ended ran to another end.
    pub fn excuse(&self, first: &Ran, again: &Ran) -> Option<Excuse> {
        self.died(first, again)
            .or_else(|| self.silent(first, again))
            .or_else(|| self.late(first, again))
    }

    /// The worker of the first end was killed before its report was saved, or heard at all.
    fn died(&self, first: &Ran, again: &Ran) -> Option<Excuse> {
        let has_moved = again.epoch != first.epoch;
        let kills = self
            .faults
            .iter()
            .filter(|happened| happened.fault == Fault::KillWorker(first.worker));
        let kill = kills
            .filter(|kill| kill.to >= first.ended && kill.from <= again.ended)
            .min_by_key(|kill| kill.from)?;
        // While others could not be reached, reports waited.
        let base = if has_moved { UNSETTLED } else { ON_ITS_WAY };
        let patience = base + self.trouble(first.ended.saturating_sub(base), kill.to);
        if kill.from.saturating_sub(first.ended) > patience {
            return None;
        }
        Some(if has_moved {
            Excuse::BothDied(kill.fault)
        } else {
            Excuse::ReportDied(kill.fault)
        })
    }

    /// How many milliseconds between two moments something was wrong with anything but workers.
    fn trouble(&self, from: u64, to: u64) -> u64 {
        self.faults
            .iter()
            .filter(|happened| !matches!(happened.fault, Fault::KillWorker(_) | Fault::PauseWorker(_)))
            .map(|happened| happened.to.min(to).saturating_sub(happened.from.max(from)))
            .sum()
    }

    /// One of the workers was stopped for so long that its leases went to others.
    fn silent(&self, first: &Ran, again: &Ran) -> Option<Excuse> {
        let (from, to) = (first.started.min(again.started), again.ended);
        let pause = self.faults.iter().find(|happened| {
            let stopped = [first.worker, again.worker].map(Fault::PauseWorker);
            // Its last sign of life is up to a third of the patience older.
            stopped.contains(&happened.fault)
                && happened.from <= to
                && happened.to >= from
                && happened.to - happened.from >= self.heartbeat * 2 / 3
        })?;
        Some(Excuse::Silent(pause.fault))
    }

    /// The worker was stopped or cut off for most of the grace of the shard's next owner.
    fn late(&self, first: &Ran, again: &Ran) -> Option<Excuse> {
        let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        let next = self.journal.activations.iter().filter(|activation| {
            activation.partition == first.place.0
                && activation.epoch > first.epoch
                && activation.epoch <= again.epoch
        });
        for activation in next {
            let (from, to) = (activation.at, activation.at + grace);
            let hinders = |fault| match fault {
                Fault::PauseWorker(worker) => worker == first.worker,
                Fault::CutServer(node) | Fault::DelayServer(node) => node == activation.process.0,
                _ => false,
            };
            let hindered = self.faults.iter().find(|happened| {
                hinders(happened.fault)
                    && happened.to.min(to).saturating_sub(happened.from.max(from)) > grace / 2
            });
            if let Some(happened) = hindered {
                return Some(Excuse::Late(happened.fault));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Activation;

    fn ran(worker: usize, epoch: u32, started: u64, ended: u64) -> Ran {
        Ran {
            number: 1,
            place: (0, 10),
            epoch,
            attempt: 1,
            due: 0,
            started,
            ended,
            worker,
        }
    }

    fn excuse(faults: &[(Fault, u64, u64)], first: Ran, again: Ran) -> Option<Excuse> {
        let faults: Vec<_> = faults
            .iter()
            .map(|(fault, from, to)| Happened {
                fault: *fault,
                from: *from,
                to: *to,
            })
            .collect();
        let mut journal = Journal::default();
        journal.activations.push(Activation {
            partition: 0,
            epoch: 2,
            at: 20_000,
            process: (1, 0),
        });
        let circumstances = Circumstances {
            faults: &faults,
            journal: &journal,
            heartbeat: 10_000,
        };
        circumstances.excuse(&first, &again)
    }

    #[test]
    fn a_killed_worker_excuses_what_it_had_just_ended_and_no_more() {
        let kill = Fault::KillWorker(0);
        let again = ran(1, 1, 14_000, 14_010);
        let at = |from| excuse(&[(kill, from, from + 50)], ran(0, 1, 9_990, 10_000), again);
        assert_eq!(at(10_500), Some(Excuse::ReportDied(kill)));
        assert_eq!(at(13_000), None);
        assert_eq!(at(9_000), None);
        assert_eq!(at(15_000), None);
        // Of another worker.
        assert_eq!(
            excuse(&[(kill, 10_500, 10_550)], ran(2, 1, 9_990, 10_000), again),
            None
        );
    }

    #[test]
    fn if_the_shard_moves_too_what_was_not_saved_is_excused() {
        let kill = Fault::KillWorker(0);
        let (first, again) = (ran(0, 1, 9_990, 10_000), ran(1, 2, 26_000, 26_010));
        assert_eq!(
            excuse(&[(kill, 12_500, 12_550)], first, again),
            Some(Excuse::BothDied(kill))
        );
        assert_eq!(excuse(&[(kill, 17_000, 17_050)], first, again), None);
        // Unless nothing could be saved for so long.
        let away = (Fault::PauseStore, 9_500, 17_100);
        assert_eq!(
            excuse(&[(kill, 17_000, 17_050), away], first, again),
            Some(Excuse::BothDied(kill))
        );
    }

    #[test]
    fn what_happens_to_servers_alone_excuses_nothing() {
        let (first, again) = (ran(0, 1, 9_990, 10_000), ran(1, 2, 26_000, 26_010));
        for fault in [
            Fault::KillServer(0),
            Fault::PauseServer(0),
            Fault::RestartAll,
            Fault::CutStore(0),
            Fault::CutLog(1),
            Fault::KillBroker(0),
            Fault::KillStore,
            Fault::Grow,
        ] {
            assert_eq!(excuse(&[(fault, 9_000, 30_000)], first, again), None, "{fault}");
        }
    }

    #[test]
    fn a_worker_that_was_stopped_for_long_excuses_repeats_on_both_sides() {
        let pause = Fault::PauseWorker(0);
        let (late, quick) = (ran(0, 1, 9_000, 21_000), ran(1, 1, 19_500, 19_520));
        let long = [(pause, 9_100, 20_900)];
        assert_eq!(excuse(&long, quick, late), Some(Excuse::Silent(pause)));
        assert_eq!(excuse(&[(pause, 9_100, 11_000)], quick, late), None);
    }

    #[test]
    fn who_is_kept_away_for_most_of_the_grace_is_excused() {
        let (first, again) = (ran(0, 1, 9_990, 10_000), ran(1, 2, 26_000, 26_010));
        let cut = |node, from, to| excuse(&[(Fault::CutServer(node), from, to)], first, again);
        assert_eq!(cut(1, 19_000, 23_000), Some(Excuse::Late(Fault::CutServer(1))));
        assert_eq!(cut(2, 19_000, 23_000), None);
        assert_eq!(cut(1, 19_000, 21_000), None);
    }
}
