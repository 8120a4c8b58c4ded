//! Deliberate bugs, each of which the simulator must catch: the proof that its oracles see what they are there for.
//!
//! They are data (`mutations/*.toml`): a text that lies exactly once in a file, and what stands there instead. Each is built outside the
//! repository, in a copy with a target directory of its own, so that no mutated artefact is ever mistaken for a real one.

mod list;
mod run;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::time::Duration;

use self::list::Mutation;
use self::run::{Caught, Simulator};
use self::table::Table;
use self::tree::Tree;
use crate::Failed;
use crate::services::cache;

pub(crate) const USAGE: &str = "\
  mutations [NAME..] [--seeds N] [--from SEED]
                puts deliberate bugs into a copy, one after the other: the simulator must catch each within N seeds (10000);
                the results go into docs/mutations.md
";

/// Seeds in which a mutation must be caught.
const SEEDS: u64 = 10_000;
/// The first of them.
const FROM: u64 = 1;

#[derive(Debug, PartialEq)]
struct Options {
    names: Vec<String>,
    seeds: u64,
    from: u64,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let options = options(arguments)?;
    let all = list::read()?;
    let mutations = chosen(all.clone(), &options.names)?;
    let mut table = Table::read()?;
    let directory = cache::directory("mutations")?;
    let _lock = cache::lock(&directory)?;
    let tree = Tree::copy(&directory)?;
    let simulator = Simulator::new(&tree, options.from, options.seeds);

    // Of a simulator that finds something in the code as it is, nothing could be learned.
    simulator.build()?;
    let (caught, took) = simulator.run()?;
    if let Some(caught) = caught {
        return Err(format!("without a mutation: {}", caught.line));
    }
    println!(
        "without a mutation: {} seeds from {}, none broken, in {} s\n",
        options.seeds,
        options.from,
        took.as_secs()
    );

    let mut missed = Vec::new();
    for mutation in &mutations {
        let applied = tree.apply(mutation)?;
        let outcome = simulator.build().and_then(|()| simulator.run());
        applied.restore()?;
        let (caught, took) = outcome.map_err(|problem| format!("{}: {problem}", mutation.name))?;
        let row = row(mutation, caught.as_ref(), &options);
        println!("{row}\n{}", detail(mutation, caught.as_ref(), took));
        // A shorter or another run has nothing to say of what it did not catch.
        if options.from == FROM && (caught.is_some() || options.seeds >= SEEDS) {
            table.put(&all, &mutation.name, row)?;
        }
        if caught.is_none() {
            missed.push(mutation.name.clone());
        }
    }
    if missed.is_empty() {
        println!("\nall {} caught", mutations.len());
        Ok(())
    } else {
        Err(format!(
            "{} of {} were not caught in {} seeds: {}",
            missed.len(),
            mutations.len(),
            options.seeds,
            missed.join(", ")
        ))
    }
}

/// A line of the table in `docs/mutations.md`.
fn row(mutation: &Mutation, caught: Option<&Caught>, options: &Options) -> String {
    let (by, seeds) = match caught {
        Some(caught) => (
            format!("`{}`", caught.invariant),
            caught
                .seed
                .map_or_else(|| "?".to_owned(), |seed| (seed - options.from + 1).to_string()),
        ),
        None => ("**nothing**".to_owned(), format!("> {}", options.seeds)),
    };
    let file = mutation.file.replace("/src/", "/");
    format!(
        "| {} | `{file}` | {} | {by} | {seeds} |",
        mutation.name, mutation.breaks
    )
}

/// What only who watches wants to know.
fn detail(mutation: &Mutation, caught: Option<&Caught>, took: Duration) -> String {
    let Some(caught) = caught else {
        return format!("  not caught in {} s", took.as_secs());
    };
    let surprise = if mutation.expect.contains(&caught.invariant) {
        ""
    } else {
        " (expected of another)"
    };
    format!("  {:.1} s{surprise}: {}", took.as_secs_f64(), caught.line)
}

fn options(arguments: &[String]) -> Result<Options, Failed> {
    let mut options = Options {
        names: Vec::new(),
        seeds: SEEDS,
        from: FROM,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let into = match argument.as_str() {
            "--seeds" => &mut options.seeds,
            "--from" => &mut options.from,
            option if option.starts_with('-') => return Err(format!("what is `{option}`?\n\n{USAGE}")),
            name => {
                options.names.push(name.to_owned());
                continue;
            }
        };
        *into = rest
            .next()
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| format!("`{argument}` wants a number after it"))?;
    }
    Ok(options)
}

fn chosen(all: Vec<Mutation>, names: &[String]) -> Result<Vec<Mutation>, Failed> {
    let known: BTreeSet<&str> = all.iter().map(|mutation| mutation.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) {
        return Err(format!("there is no mutation `{unknown}` in mutations/"));
    }
    Ok(all
        .into_iter()
        .filter(|mutation| names.is_empty() || names.contains(&mutation.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_options_come_in_any_order() {
        let words = ["lose-it", "--seeds", "7", "keep-it"].map(str::to_owned);
        let expected = Options {
            names: vec!["lose-it".to_owned(), "keep-it".to_owned()],
            seeds: 7,
            from: 1,
        };
        assert_eq!(options(&words), Ok(expected));
        assert!(options(&["--seeds".to_owned()]).is_err());
        assert!(options(&["--sed".to_owned()]).is_err());
    }

    #[test]
    fn a_name_that_is_no_mutation_is_an_error() {
        assert!(chosen(Vec::new(), &["nothing".to_owned()]).is_err());
    }
}
