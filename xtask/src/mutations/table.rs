//! The table of results in `docs/mutations.md`: kept up by the command, row by row.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::list::Mutation;
use crate::Failed;
use crate::run::root;
use crate::services::cache;

const BEGIN: &str =
    "<!-- results: `cargo xtask mutations` writes what stands up to the end of the table -->\n";
const END: &str = "<!-- end of the table -->\n";
const HEAD: &str =
    "| mutation | in | what it breaks | caught by | seeds |\n| --- | --- | --- | --- | ---: |\n";

#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    before: String,
    after: String,
    /// By the name of the mutation.
    rows: BTreeMap<String, String>,
}

impl Table {
    pub(super) fn read() -> Result<Self, Failed> {
        let path = root().join("docs/mutations.md");
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(path, &text)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, Failed> {
        let no_place = || format!("{} has no table between `{BEGIN}` and `{END}`", path.display());
        let (before, rest) = text.split_once(BEGIN).ok_or_else(no_place)?;
        let (table, after) = rest.split_once(END).ok_or_else(no_place)?;
        let rows = table.lines().skip(HEAD.lines().count()).filter_map(|row| {
            let name = row.strip_prefix("| ")?.split(" | ").next()?;
            Some((name.to_owned(), row.to_owned()))
        });
        Ok(Self {
            rows: rows.collect(),
            before: before.to_owned(),
            after: after.to_owned(),
            path,
        })
    }

    /// What the table says of a mutation.
    pub(super) fn row(&self, name: &str) -> Option<&str> {
        self.rows.get(name).map(String::as_str)
    }

    /// Puts a row in and writes the file. Rows stand in the order of `all`; those of mutations that are no more go.
    pub(super) fn put(&mut self, all: &[Mutation], name: &str, row: String) -> Result<(), Failed> {
        self.rows.insert(name.to_owned(), row);
        cache::write(&self.path, &self.text(all))
    }

    fn text(&self, all: &[Mutation]) -> String {
        let mut text = format!("{}{BEGIN}{HEAD}", self.before);
        for row in all.iter().filter_map(|mutation| self.row(&mutation.name)) {
            text.push_str(row);
            text.push('\n');
        }
        text + END + &self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations::list;

    #[test]
    fn a_row_takes_the_place_of_the_one_before() {
        let all = list::read().unwrap();
        let (first, second) = (all[0].name.as_str(), all[1].name.as_str());
        let text = format!("Above.\n{BEGIN}{HEAD}| gone | x |\n| {second} | old |\n{END}Below.\n");
        let mut table = Table::parse(PathBuf::new(), &text).unwrap();
        table
            .rows
            .insert(second.to_owned(), format!("| {second} | new |"));
        table.rows.insert(first.to_owned(), format!("| {first} | new |"));
        assert_eq!(
            table.text(&all),
            format!("Above.\n{BEGIN}{HEAD}| {first} | new |\n| {second} | new |\n{END}Below.\n")
        );
        assert!(Table::parse(PathBuf::new(), "no table").is_err());
    }

    #[test]
    fn no_mutation_that_was_tried_went_unseen() {
        let table = Table::read().unwrap();
        let all = list::read().unwrap();
        let unseen: Vec<&str> = all
            .iter()
            .map(|mutation| mutation.name.as_str())
            .filter(|name| table.row(name).is_some_and(|row| row.contains("**nothing**")))
            .collect();
        assert!(
            unseen.is_empty(),
            "make an oracle see {unseen:?}, or put a bug that matters in its place"
        );
    }
}
