//! What was accepted, what each worker ran, and what follows from both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::excuse::{Circumstances, Excuse};
use crate::plan::Fault;

/// Now, as ledgers have it: milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A task that was accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Accepted {
    /// The task's id, as the submission was answered.
    pub id: String,
    /// When it was first submitted.
    pub asked: u64,
    /// When it was answered.
    pub answered: u64,
    /// Whether it was submitted with an idempotency key.
    pub has_key: bool,
}

/// One attempt that a worker ran to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ran {
    /// The number that the task was submitted with.
    pub number: u64,
    /// Where it lies: partition and offset.
    pub place: (u32, u64),
    /// Epoch of the lease.
    pub epoch: u32,
    /// Which attempt it was.
    pub attempt: u32,
    /// When it was to be submitted; 0 if its client did not say.
    pub due: u64,
    /// When it began.
    pub started: u64,
    /// When it ended, before it was reported.
    pub ended: u64,
    /// By which worker.
    pub worker: usize,
}

impl Ran {
    /// A line of a worker's ledger. The last line of a killed worker may be cut: then it is none.
    pub fn parse(worker: usize, line: &str) -> Option<Self> {
        let words = line.strip_suffix('.')?.split(' ').map(str::parse::<u64>);
        let words: Vec<u64> = words.collect::<Result<_, _>>().ok()?;
        let &[high, low, partition, offset, epoch, attempt, due, started, ended] = &words[..] else {
            return None;
        };
        let small = |number: u64| u32::try_from(number).ok();
        let ran = Self {
            number: (high << 32) | low,
            place: (small(partition)?, offset),
            epoch: small(epoch)?,
            attempt: small(attempt)?,
            due,
            started,
            ended,
            worker,
        };
        Some(ran)
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
    pub excuse: Option<Excuse>,
}

/// A submission that became several tasks.
#[derive(Clone, Debug)]
pub struct Doubled {
    /// The number that it was submitted with.
    pub number: u64,
    /// Where they lie.
    pub places: Vec<(u32, u64)>,
}

/// What follows.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Accepted, but run by nobody.
    pub lost: Vec<u64>,
    /// Run more than once.
    pub repeats: Vec<Repeat>,
    /// Submitted once, but run as several tasks.
    pub doubled: Vec<Doubled>,
}

/// Weighs the ledgers.
pub fn weigh(accepted: &BTreeMap<u64, Accepted>, ran: &[Ran], circumstances: &Circumstances<'_>) -> Verdict {
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
            excuse: circumstances.excuse(&pair[0], &pair[1]),
        }));
    }
    let doubled = places.iter().filter(|(_, places)| places.len() > 1);
    Verdict {
        lost: accepted
            .keys()
            .filter(|number| !places.contains_key(number))
            .copied()
            .collect(),
        repeats,
        doubled: doubled
            .map(|(number, places)| Doubled {
                number: *number,
                places: places.iter().copied().collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    fn ran(number: u64, offset: u64) -> Ran {
        Ran {
            number,
            place: (0, offset),
            epoch: 1,
            attempt: 1,
            due: 0,
            started: 1,
            ended: 5,
            worker: 0,
        }
    }

    fn accepted(numbers: &[u64]) -> BTreeMap<u64, Accepted> {
        let task = |number: &u64| Accepted {
            id: number.to_string(),
            asked: 1_000,
            answered: 3_000,
            has_key: true,
        };
        numbers.iter().map(|number| (*number, task(number))).collect()
    }

    fn weigh(numbers: &[u64], ran: &[Ran], faults: &[Happened]) -> Verdict {
        let journal = Journal::default();
        let circumstances = Circumstances {
            faults,
            journal: &journal,
            heartbeat: 10_000,
        };
        super::weigh(&accepted(numbers), ran, &circumstances)
    }

    #[test]
    fn what_nobody_ran_is_lost() {
        let verdict = weigh(&[1, 2], &[ran(1, 10)], &[]);
        assert_eq!(verdict.lost, [2]);
        assert!(verdict.repeats.is_empty() && verdict.doubled.is_empty());
    }

    #[test]
    fn what_ran_twice_without_a_reason_is_a_repeat_without_an_excuse() {
        let verdict = weigh(&[1], &[ran(1, 10), ran(1, 10)], &[]);
        assert_eq!(verdict.repeats.len(), 1);
        assert_eq!(verdict.repeats[0].excuse, None);
    }

    #[test]
    fn a_submission_that_became_two_tasks_is_doubled() {
        let verdict = weigh(&[1], &[ran(1, 10), ran(1, 11)], &[]);
        assert_eq!(verdict.doubled[0].places, [(0, 10), (0, 11)]);
        assert!(verdict.repeats.is_empty());
    }

    #[test]
    fn a_line_that_was_cut_is_none() {
        let whole = Ran {
            number: (3 << 32) | 7,
            place: (2, 41),
            epoch: 3,
            attempt: 2,
            due: 0,
            started: 1_690,
            ended: 1_700,
            worker: 2,
        };
        assert_eq!(Ran::parse(2, "3 7 2 41 3 2 0 1690 1700."), Some(whole));
        for cut in ["", "3 7 2 41 3 2 0 1690 1", "3 7 2 4.", "."] {
            assert_eq!(Ran::parse(2, cut), None);
        }
    }
}
