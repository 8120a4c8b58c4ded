//! The list of deliberate bugs, read from `mutations/*.toml`.
//!
//! Of TOML the files use little, so that this needs no crate: `[[mutation]]`, comments, and keys whose values are literal strings, `'…'` on
//! one line or `'''` over several.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::Failed;
use crate::run::root;

/// A deliberate bug.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mutation {
    pub(super) name: String,
    /// From the workspace's directory on.
    pub(super) file: String,
    /// What lies exactly once in the file.
    pub(super) from: String,
    /// What stands there instead.
    pub(super) to: String,
    /// For people, in a few words.
    pub(super) breaks: String,
    /// The invariants of which one should see it.
    pub(super) expect: Vec<String>,
}

/// Everything in `mutations/`, by file and place.
pub(super) fn read() -> Result<Vec<Mutation>, Failed> {
    let directory = root().join("mutations");
    let cannot = |error: std::io::Error| format!("{} cannot be read: {error}", directory.display());
    let mut paths = fs::read_dir(&directory)
        .map_err(cannot)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(cannot)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut all = Vec::new();
    let mut names = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for mutation in parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))? {
            if !names.insert(mutation.name.clone()) {
                return Err(format!("{}: `{}` is there twice", path.display(), mutation.name));
            }
            all.push(mutation);
        }
    }
    Ok(all)
}

fn parse(text: &str) -> Result<Vec<Mutation>, Failed> {
    let mut all = Vec::new();
    let mut fields: Option<BTreeMap<String, String>> = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[mutation]]" {
            all.extend(fields.replace(BTreeMap::new()).map(mutation).transpose()?);
            continue;
        }
        let (key, value) = line
            .split_once(" = ")
            .ok_or_else(|| format!("line {at} is neither `[[mutation]]` nor `key = '…'`"))?;
        let value = if value == "'''" {
            let mut block = Vec::new();
            loop {
                match lines.next() {
                    Some((_, "'''")) => break,
                    Some((_, line)) => block.push(line),
                    None => return Err(format!("the text that begins in line {at} does not end")),
                }
            }
            block.join("\n")
        } else {
            value
                .strip_prefix('\'')
                .and_then(|value| value.strip_suffix('\''))
                .filter(|value| !value.contains('\''))
                .ok_or_else(|| format!("the value in line {at} does not stand in single quotes"))?
                .to_owned()
        };
        let fields = fields
            .as_mut()
            .ok_or_else(|| format!("line {at} stands before the first `[[mutation]]`"))?;
        if fields.insert(key.to_owned(), value).is_some() {
            return Err(format!("line {at} says `{key}` a second time"));
        }
    }
    all.extend(fields.map(mutation).transpose()?);
    Ok(all)
}

fn mutation(mut fields: BTreeMap<String, String>) -> Result<Mutation, Failed> {
    let name = fields.remove("name").ok_or("a mutation has no `name`")?;
    let mut take = |key: &str| {
        fields
            .remove(key)
            .ok_or_else(|| format!("`{name}` has no `{key}`"))
    };
    let mutation = Mutation {
        file: take("file")?,
        from: take("from")?,
        to: take("to")?,
        breaks: take("breaks")?,
        expect: take("expect")?.split(", ").map(str::to_owned).collect(),
        name: name.clone(),
    };
    fields.into_keys().next().map_or(Ok(mutation), |key| {
        Err(format!("`{name}` has a `{key}`, which nobody reads"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_has_its_place_exactly_once() {
        let all = read().unwrap();
        assert!(all.len() >= 25, "there are only {}", all.len());
        let mut wrong = Vec::new();
        for Mutation {
            name, file, from, to, ..
        } in &all
        {
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            let places = text.matches(from.as_str()).count();
            if places != 1 {
                wrong.push(format!("`{name}`: `from` lies {places} times in {file}"));
            }
            if from == to {
                wrong.push(format!("`{name}` changes nothing"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let text = "# About these.\n[[mutation]]\nname = 'lose-it'\nfile = 'a.rs'\nfrom = '''\n    x();\n    y();\n'''\nto = ''\n\
                    breaks = 'a thing'\nexpect = 'lost, once'\n";
        let expected = Mutation {
            name: "lose-it".into(),
            file: "a.rs".into(),
            from: "    x();\n    y();".into(),
            to: String::new(),
            breaks: "a thing".into(),
            expect: vec!["lost".into(), "once".into()],
        };
        assert_eq!(parse(text), Ok(vec![expected]));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_with_its_place() {
        for (text, problem) in [
            ("name = 'a'", "line 1 stands before the first `[[mutation]]`"),
            (
                "[[mutation]]\nname = \"a\"",
                "the value in line 2 does not stand in single quotes",
            ),
            (
                "[[mutation]]\nfrom = '''\nx",
                "the text that begins in line 2 does not end",
            ),
            (
                "[[mutation]]\nname = 'a'\nname = 'b'",
                "line 3 says `name` a second time",
            ),
            ("[[mutation]]\nname = 'a'", "`a` has no `file`"),
            ("mutation", "line 1 is neither `[[mutation]]` nor `key = '…'`"),
        ] {
            assert_eq!(parse(text), Err(problem.to_owned()));
        }
    }
}
