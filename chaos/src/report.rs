use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::ledger::{Happened, Verdict};
use crate::settle::Audit;

/// What came of a run; written as Markdown.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub title: String,
    /// The command that runs it again.
    pub again: String,
    /// Tasks that were accepted over HTTP.
    pub over_http: usize,
    /// Tasks that the Kafka producer delivered.
    pub by_producer: usize,
    /// Submissions that had to be tried again, by why.
    pub refusals: BTreeMap<String, u64>,
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
    /// Activations of shards.
    pub activations: usize,
    /// Checkpoints that were saved.
    pub checkpoints: usize,
    /// Looks at the table of shards.
    pub looks: u64,
    /// Owners that were seen there, over all shards.
    pub owners: u64,
    /// What owners and epochs did that they must not.
    pub ownership: Vec<String>,
    /// Of each partition, at the end.
    pub audits: Vec<Audit>,
    /// What is wrong with them.
    pub accounts: Vec<String>,
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
        let first = verdict.doubled.first().map(|doubled| format!("{doubled:?}"));
        claim(verdict.doubled.len(), "submissions became several tasks", first);
        let unexcused: Vec<_> = verdict
            .repeats
            .iter()
            .filter(|repeat| repeat.excuse.is_none())
            .collect();
        let first = unexcused.first().map(|repeat| format!("{repeat:?}"));
        claim(unexcused.len(), "repeats have no excuse", first);
        claim(
            self.ownership.len(),
            "breaches of ownership",
            self.ownership.first().cloned(),
        );
        claim(
            self.accounts.len(),
            "accounts are wrong",
            self.accounts.first().cloned(),
        );
        if self.over_http == 0 {
            problems.push("nothing was accepted".to_owned());
        }
        problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}\n\nAgain: `{}`\n", self.title, self.again)?;
        writeln!(f, "| what | count |\n| --- | ---: |")?;
        let mut row = |what: &str, count: &dyn fmt::Display| writeln!(f, "| {what} | {count} |");
        row("accepted over HTTP", &self.over_http)?;
        row("delivered by the Kafka producer", &self.by_producer)?;
        row(
            "tries to submit that failed and were made again",
            &self.refusals.values().sum::<u64>(),
        )?;
        for (why, count) in &self.refusals {
            row(&format!("… {why}"), count)?;
        }
        row("attempts run to their end", &self.ran)?;
        row("**lost**", &self.verdict.lost.len())?;
        row("accepted, but not succeeded", &self.unfinished.len())?;
        row("repeats", &self.verdict.repeats.len())?;
        for (cause, count) in self.causes() {
            row(&format!("… {cause}"), &count)?;
        }
        row("submissions that became two tasks", &self.verdict.doubled.len())?;
        row("activations of shards", &self.activations)?;
        row("checkpoints saved", &self.checkpoints)?;
        row("looks at the table of shards", &self.looks)?;
        row("… owners seen there", &self.owners)?;
        row("breaches of ownership", &self.ownership.len())?;
        let settled = format!("{:.1}", self.settled_after.as_secs_f64());
        row("seconds from the last fault until all had ended", &settled)?;
        self.write_audits(f)?;
        self.write_faults(f)?;
        let problems = self.problems();
        if problems.is_empty() {
            writeln!(f, "\nEvery promise held.")
        } else {
            writeln!(f, "\n**Broken**: {}", problems.join("; "))
        }
    }
}

impl Report {
    fn causes(&self) -> BTreeMap<String, usize> {
        let mut causes = BTreeMap::<String, usize>::new();
        for repeat in &self.verdict.repeats {
            let cause = repeat
                .excuse
                .map_or("**no excuse**".to_owned(), |excuse| excuse.to_string());
            *causes.entry(cause).or_default() += 1;
        }
        causes
    }

    fn write_audits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| partition | offsets | finished | absent | parked | live | dead | lost | adds up |"
        )?;
        writeln!(
            f,
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
        )?;
        for audit in &self.audits {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                audit.partition,
                audit.offsets,
                audit.finished,
                audit.absent,
                audit.parked,
                audit.live,
                audit.dead,
                audit.lost,
                if audit.adds_up { "yes" } else { "**no**" }
            )?;
        }
        Ok(())
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        Ok(())
    }
}
