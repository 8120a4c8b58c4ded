use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::ledger::{Happened, Verdict};

/// What came of a run; written as Markdown.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed of its plan.
    pub seed: u64,
    /// How long there were to be faults.
    pub length: Duration,
    /// Tasks that were accepted.
    pub accepted: usize,
    /// Submissions that had to be tried again.
    pub retries: u64,
    /// Attempts that workers ran to their end.
    pub ran: usize,
    /// From the last fault until all accepted tasks had ended.
    pub settled_after: Duration,
    /// Accepted tasks that did not succeed, with what they are.
    pub unfinished: Vec<String>,
    /// The faults as they happened.
    pub faults: Vec<Happened>,
    /// What the ledgers say.
    pub verdict: Verdict,
}

impl Report {
    /// The promises that were broken; none is what there should be.
    pub fn problems(&self) -> Vec<String> {
        let verdict = &self.verdict;
        let mut problems = Vec::new();
        let mut claim = |count: usize, what: &str, example: Option<String>| {
            if count > 0 {
                problems.push(format!("{count} {what}, as {}", example.unwrap_or_default()));
            }
        };
        let first = verdict.lost.first().map(|number| format!("number {number}"));
        claim(verdict.lost.len(), "accepted tasks were run by nobody", first);
        claim(
            self.unfinished.len(),
            "accepted tasks did not succeed",
            self.unfinished.first().cloned(),
        );
        let first = verdict.doubled.first().map(|number| format!("number {number}"));
        claim(verdict.doubled.len(), "submissions became several tasks", first);
        let unexcused: Vec<_> = verdict
            .repeats
            .iter()
            .filter(|repeat| repeat.cause.is_none())
            .collect();
        let first = unexcused.first().map(|repeat| format!("{repeat:?}"));
        claim(
            unexcused.len(),
            "repeats that no fault of a worker or its link excuses",
            first,
        );
        if self.accepted == 0 {
            problems.push("nothing was accepted".to_owned());
        }
        problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.length.as_secs_f64() / 60.0;
        writeln!(f, "# Chaos, seed {}, {minutes:.1} minutes\n", self.seed)?;
        writeln!(
            f,
            "Again: `cargo xtask chaos --minutes {minutes} --seed {}`\n",
            self.seed
        )?;
        writeln!(f, "| what | count |\n| --- | ---: |")?;
        writeln!(f, "| accepted | {} |", self.accepted)?;
        writeln!(f, "| submissions tried again | {} |", self.retries)?;
        writeln!(f, "| attempts run to their end | {} |", self.ran)?;
        writeln!(f, "| lost | {} |", self.verdict.lost.len())?;
        writeln!(f, "| accepted, but not succeeded | {} |", self.unfinished.len())?;
        writeln!(f, "| accepted twice | {} |", self.verdict.doubled.len())?;
        writeln!(f, "| repeats | {} |", self.verdict.repeats.len())?;
        let mut causes = BTreeMap::<String, usize>::new();
        for repeat in &self.verdict.repeats {
            let cause = repeat
                .cause
                .map_or("no excuse".to_owned(), |fault| format!("after {fault}"));
            *causes.entry(cause).or_default() += 1;
        }
        for (cause, count) in causes {
            writeln!(f, "| … {cause} | {count} |")?;
        }
        writeln!(
            f,
            "| seconds from the last fault until all had ended | {:.1} |",
            self.settled_after.as_secs_f64()
        )?;
        writeln!(f, "\n| at s | for s | fault |\n| ---: | ---: | --- |")?;
        let begin = self.faults.first().map_or(0, |happened| happened.from);
        let seconds = |milliseconds: u64| Duration::from_millis(milliseconds).as_secs_f64();
        for happened in &self.faults {
            let (at, lasted) = (
                happened.from.saturating_sub(begin),
                happened.to.saturating_sub(happened.from),
            );
            writeln!(
                f,
                "| {:.1} | {:.1} | {} |",
                seconds(at),
                seconds(lasted),
                happened.fault
            )?;
        }
        let problems = self.problems();
        if problems.is_empty() {
            writeln!(f, "\nEvery promise held.")
        } else {
            writeln!(f, "\n**Broken**: {}", problems.join("; "))
        }
    }
}
