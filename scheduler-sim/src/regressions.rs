//! Histories that broke a promise once: kept in a file, played by the tests.

use crate::{Changes, History};

/// A line each: a seed, what is changed in its plan, and what was broken.
const KEPT: &str = include_str!("../regressions.txt");

/// Most characters of what was broken.
const LONGEST_REASON: usize = 200;

/// Histories that broke a promise once. An error says which line cannot be read.
pub fn regressions() -> Result<Vec<(u64, Changes)>, String> {
    parse(KEPT)
}

fn parse(text: &str) -> Result<Vec<(u64, Changes)>, String> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (seed, changes) = line.split_once(' ').unwrap_or((line, ""));
            let seed = seed
                .parse()
                .map_err(|_| format!("regressions.txt: `{line}` must begin with a seed"))?;
            Ok((seed, changes.trim().parse()?))
        })
        .collect()
}

/// The text of `regressions.txt` with a history that broke a promise; `None` if it broke none, or is there already.
pub fn kept(text: &str, history: &History, changes: &Changes) -> Result<Option<String>, String> {
    let Some(violation) = &history.violation else {
        return Ok(None);
    };
    if parse(text)?.contains(&(history.seed, changes.clone())) {
        return Ok(None);
    }
    let what = violation.what.lines().next().unwrap_or_default();
    let what: String = what.chars().take(LONGEST_REASON).collect();
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let plan = if changes.is_empty() {
        String::new()
    } else {
        format!(" {changes}")
    };
    Ok(Some(format!(
        "{text}{end}{}{plan}  # {}: {what}\n",
        history.seed, violation.promise
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Violation, run};

    #[test]
    fn a_history_that_broke_a_promise_is_kept_once_and_read_again() {
        let mut history = run(7, false);
        let changes: Changes = "nodes=1,cut=0".parse().expect("these are names of numbers");
        assert_eq!(kept("", &history, &changes), Ok(None), "it broke nothing");
        history.violation = Some(Violation {
            promise: "once",
            what: format!("{} # ran twice\nand more", "x".repeat(300)),
            at_ms: 1,
        });
        let text = "# Those before.\n6177  # settled: long ago";
        let more = kept(text, &history, &changes).expect("the file is well formed");
        let more = more.expect("it is new");
        assert!(more.starts_with(text) && more.ends_with("xx\n"), "{more}");
        assert_eq!(
            parse(&more),
            Ok(vec![(6177, Changes::default()), (7, changes.clone())])
        );
        assert_eq!(kept(&more, &history, &changes), Ok(None), "it is there");
        let other = kept(&more, &history, &Changes::default());
        assert!(matches!(other, Ok(Some(text)) if text.contains("\n7  # once: ")));
        assert!(kept("cats\n", &history, &changes).is_err());
    }
}
