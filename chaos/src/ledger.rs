//! What was accepted, what each worker ran, and what follows from both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::plan::Fault;

/// How long before an end a fault may have begun to matter: a report that was on its way, or lay in a buffer.
const ON_ITS_WAY: u64 = 1_000;

/// Now, as ledgers have it: milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One attempt that a worker ran to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ran {
    /// The number that the task was submitted with.
    pub number: u64,
    /// Where it lies: partition and offset.
    pub place: (u32, u64),
    /// Epoch of the lease.
    pub epoch: u64,
    /// Which attempt it was.
    pub attempt: u32,
    /// When it ended, before it was reported.
    pub ended: u64,
    /// By which worker.
    pub worker: usize,
}

impl Ran {
    /// A line of a worker's ledger. The last line of a killed worker may be cut: then it is none.
    pub fn parse(worker: usize, line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('.')?.split(' ');
        let mut next = || words.next()?.parse::<u64>().ok();
        Some(Self {
            number: next()?,
            place: (u32::try_from(next()?).ok()?, next()?),
            epoch: next()?,
            attempt: u32::try_from(next()?).ok()?,
            ended: next()?,
            worker,
        })
    }
}

/// A fault as it happened.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    /// What.
    pub fault: Fault,
    /// When it began.
    pub from: u64,
    /// When it was mended.
    pub to: u64,
}

/// A task that ran to its end more than once.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The end that was not the last.
    pub first: Ran,
    /// The next.
    pub again: Ran,
    /// What excuses it; none is a broken promise.
    pub cause: Option<Fault>,
}

/// What follows.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Accepted, but run by nobody.
    pub lost: Vec<u64>,
    /// Run more than once.
    pub repeats: Vec<Repeat>,
    /// Submitted once, but accepted as several tasks: an idempotency key that did not hold.
    pub doubled: Vec<u64>,
}

/// Weighs the ledgers.
pub fn weigh(accepted: &BTreeMap<u64, String>, ran: &[Ran], faults: &[Happened]) -> Verdict {
    let mut by_place = BTreeMap::<(u32, u64), Vec<Ran>>::new();
    let mut places = BTreeMap::<u64, BTreeSet<(u32, u64)>>::new();
    for ran in ran {
        by_place.entry(ran.place).or_default().push(*ran);
        places.entry(ran.number).or_default().insert(ran.place);
    }
    let mut repeats = Vec::new();
    for ends in by_place.values_mut() {
        ends.sort_by_key(|ran| ran.ended);
        repeats.extend(ends.windows(2).map(|pair| Repeat {
            first: pair[0],
            again: pair[1],
            cause: cause(&pair[0], &pair[1], faults),
        }));
    }
    Verdict {
        lost: accepted
            .keys()
            .filter(|number| !places.contains_key(number))
            .copied()
            .collect(),
        repeats,
        doubled: places
            .iter()
            .filter(|(_, places)| places.len() > 1)
            .map(|(number, _)| *number)
            .collect(),
    }
}

/// A fault of the worker that ended it first, or of its link, between that end and the next.
fn cause(first: &Ran, again: &Ran, faults: &[Happened]) -> Option<Fault> {
    let between =
        |happened: &&Happened| happened.from <= again.ended && happened.to + ON_ITS_WAY >= first.ended;
    let excuses = |happened: &&Happened| {
        happened.fault.may_repeat(first.worker) || happened.fault.may_repeat(again.worker)
    };
    faults
        .iter()
        .filter(between)
        .find(excuses)
        .map(|happened| happened.fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(number: u64, offset: u64, worker: usize, ended: u64) -> Ran {
        Ran {
            number,
            place: (0, offset),
            epoch: 1,
            attempt: 1,
            ended,
            worker,
        }
    }

    fn accepted(numbers: &[u64]) -> BTreeMap<u64, String> {
        numbers
            .iter()
            .map(|number| (*number, number.to_string()))
            .collect()
    }

    #[test]
    fn what_nobody_ran_is_lost() {
        let verdict = weigh(&accepted(&[1, 2]), &[ran(1, 10, 0, 5)], &[]);
        assert_eq!(verdict.lost, [2]);
        assert!(verdict.repeats.is_empty() && verdict.doubled.is_empty());
    }

    #[test]
    fn a_repeat_is_excused_by_a_fault_of_its_worker_and_not_by_one_of_the_server() {
        let twice = [ran(1, 10, 0, 5_000), ran(1, 10, 1, 9_000)];
        let at = |fault| Happened {
            fault,
            from: 6_000,
            to: 6_000,
        };
        let cause = |fault| weigh(&accepted(&[1]), &twice, &[at(fault)]).repeats[0].cause;
        assert_eq!(cause(Fault::KillWorker(0)), Some(Fault::KillWorker(0)));
        assert_eq!(cause(Fault::KillWorker(3)), None);
        assert_eq!(cause(Fault::KillServer), None);
    }

    #[test]
    fn a_fault_that_was_over_long_before_excuses_nothing() {
        let twice = [ran(1, 10, 0, 5_000), ran(1, 10, 1, 9_000)];
        let before = Happened {
            fault: Fault::KillWorker(0),
            from: 1_000,
            to: 1_000,
        };
        assert_eq!(weigh(&accepted(&[1]), &twice, &[before]).repeats[0].cause, None);
    }

    #[test]
    fn a_submission_that_became_two_tasks_is_doubled() {
        let verdict = weigh(&accepted(&[1]), &[ran(1, 10, 0, 5), ran(1, 11, 0, 6)], &[]);
        assert_eq!(verdict.doubled, [1]);
        assert!(verdict.repeats.is_empty());
    }

    #[test]
    fn a_line_that_was_cut_is_none() {
        assert_eq!(
            Ran::parse(2, "7 0 41 3 2 1700.").map(|ran| (
                ran.number,
                ran.place,
                ran.epoch,
                ran.attempt,
                ran.ended
            )),
            Some((7, (0, 41), 3, 2, 1700))
        );
        for cut in ["", "7 0 41 3 2 1", "7 0 4.", "."] {
            assert_eq!(Ran::parse(2, cut), None);
        }
    }
}
