//! A copy of the crates that the simulator is built from, to be changed at will.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::list::Mutation;
use crate::Failed;
use crate::run::{cargo, output, root};
use crate::services::cache;

/// The crate that is built in the copy.
pub(super) const SIMULATOR: &str = "scheduler-sim";

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
}

/// A mutation that is in the tree.
#[derive(Debug)]
#[must_use]
pub(super) struct Applied {
    path: PathBuf,
    original: String,
}

impl Tree {
    /// Brings the copy in `directory` up to date. What is the same is not written, so cargo builds only what has changed.
    pub(super) fn copy(directory: &Path) -> Result<Self, Failed> {
        let tree = Self {
            root: directory.join("tree"),
            target: directory.join("target"),
        };
        let members = members()?;
        for member in &members {
            mirror(&root().join(member), &tree.root.join(member))
                .map_err(|error| format!("{member} cannot be copied: {error}"))?;
        }
        let manifest = read(&root().join("Cargo.toml"))?;
        write_new(&tree.root.join("Cargo.toml"), &only(&manifest, &members)?)?;
        for file in ["Cargo.lock", "rust-toolchain.toml"] {
            write_new(&tree.root.join(file), &read(&root().join(file))?)?;
        }
        Ok(tree)
    }

    /// Puts a mutation in.
    pub(super) fn apply(&self, mutation: &Mutation) -> Result<Applied, Failed> {
        let path = self.root.join(&mutation.file);
        let original = read(&path)?;
        let places = original.matches(&mutation.from).count();
        if places != 1 {
            return Err(format!(
                "`{}`: its `from` lies {places} times in {}, and must lie there once",
                mutation.name, mutation.file
            ));
        }
        cache::write(&path, &original.replacen(&mutation.from, &mutation.to, 1))?;
        Ok(Applied { path, original })
    }
}

impl Applied {
    /// Takes it out again.
    pub(super) fn restore(self) -> Result<(), Failed> {
        cache::write(&self.path, &self.original)
    }
}

/// Directories of the crates of this workspace that the simulator needs, itself included.
fn members() -> Result<BTreeSet<String>, Failed> {
    let tree = output(cargo(&[
        "tree",
        "--package",
        SIMULATOR,
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
    ]))?;
    let root = root();
    let paths = tree
        .lines()
        .filter_map(|line| line.split_once(" (/")?.1.split_once(')'));
    Ok(paths
        .filter_map(|(path, _)| {
            Some(
                Path::new("/")
                    .join(path)
                    .strip_prefix(&root)
                    .ok()?
                    .to_str()?
                    .to_owned(),
            )
        })
        .collect())
}

/// The workspace's manifest with these members alone.
fn only(manifest: &str, members: &BTreeSet<String>) -> Result<String, Failed> {
    let (before, rest) = manifest
        .split_once("members = [")
        .ok_or("Cargo.toml has no `members = [`")?;
    let (_, after) = rest
        .split_once(']')
        .ok_or("`members` of Cargo.toml does not end")?;
    let list: Vec<String> = members.iter().map(|member| format!("\"{member}\"")).collect();
    Ok(format!("{before}members = [{}]{after}", list.join(", ")))
}

/// Makes `to` what `from` is.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let (from, to) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            if name != "target" {
                mirror(&from, &to)?;
            }
        } else {
            let bytes = fs::read(&from)?;
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::write(&to, bytes)?;
            }
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if names.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn write_new(path: &Path, text: &str) -> Result<(), Failed> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    cache::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_a_member() {
        let members = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
        let manifest = "[workspace]\nmembers = [\n  \"a\",\n  \"b\",\n]\n[profile.dev]\n";
        assert_eq!(
            only(manifest, &members).unwrap(),
            "[workspace]\nmembers = [\"b\", \"c\"]\n[profile.dev]\n"
        );
    }

    #[test]
    fn a_copy_follows_what_it_is_a_copy_of() {
        let scratch = std::env::temp_dir().join(format!("scheduler-xtask-{}-mirror", std::process::id()));
        let (from, to) = (scratch.join("from"), scratch.join("to"));
        fs::create_dir_all(from.join("src")).unwrap();
        fs::create_dir_all(from.join("target")).unwrap();
        fs::write(from.join("src/a.rs"), "a").unwrap();
        fs::write(from.join("src/b.rs"), "b").unwrap();
        mirror(&from, &to).unwrap();
        fs::remove_file(from.join("src/b.rs")).unwrap();
        fs::write(to.join("src/a.rs"), "mutated").unwrap();
        mirror(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("src/a.rs")).unwrap(), "a");
        assert!(!to.join("src/b.rs").exists() && !to.join("target").exists());
        fs::remove_dir_all(scratch).unwrap();
    }
}
