//! The files of a chart, in memory: nothing outside of it can be meant any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use scheduler_core::port::deploy::DeployError;
use sha2::{Digest as _, Sha256};

use super::SourceRules;
use crate::chart::invalid;

/// Bytes of a file's name with its folders.
const MAX_NAME: usize = 512;
/// Folders within folders.
const MAX_DEPTH: usize = 16;

/// Files by their names, `/` between folders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundle {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Bundle {
    /// Adds a file that was read from a source with these rules.
    pub(super) fn add(
        &mut self,
        name: &str,
        content: Vec<u8>,
        rules: &SourceRules,
    ) -> Result<(), DeployError> {
        check_name(name)?;
        self.bytes += content.len();
        if self.bytes > rules.max_chart_bytes {
            let most = rules.max_chart_bytes;
            return Err(invalid("chart", format!("has more than {most} bytes, unpacked")));
        }
        if self.files.len() >= rules.max_files {
            return Err(invalid(
                "chart",
                format!("has more than {} files", rules.max_files),
            ));
        }
        if self.files.insert(name.to_owned(), content).is_some() {
            return Err(invalid("chart", format!("has {name} twice")));
        }
        Ok(())
    }

    /// How many bytes may still be added.
    pub(super) fn room(&self, rules: &SourceRules) -> usize {
        rules.max_chart_bytes.saturating_sub(self.bytes)
    }

    /// What lies in a directory. It blocks on the file system.
    pub(super) fn of_directory(directory: &Path, rules: &SourceRules) -> Result<Self, DeployError> {
        let mut bundle = Self::default();
        let mut folders = vec![(directory.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            let unreadable =
                |error: std::io::Error| invalid("chart", format!("{prefix}: cannot be read: {error}"));
            for entry in fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let name = entry.file_name().into_string();
                let name =
                    name.map_err(|name| invalid("chart", format!("{} is not UTF-8", name.display())))?;
                let name = format!("{prefix}{name}");
                let kind = entry.file_type().map_err(unreadable)?;
                if kind.is_dir() {
                    if name.matches('/').count() >= MAX_DEPTH {
                        return Err(invalid("chart", format!("{name} is too deep")));
                    }
                    folders.push((entry.path(), format!("{name}/")));
                } else if kind.is_file() {
                    let mut content = Vec::new();
                    let limit = bundle.room(rules) as u64 + 1;
                    fs::File::open(entry.path())
                        .and_then(|file| file.take(limit).read_to_end(&mut content))
                        .map_err(unreadable)?;
                    bundle.add(&name, content, rules)?;
                } else {
                    return Err(invalid(
                        "chart",
                        format!("{name} is a symbolic link or no file; a chart has files only"),
                    ));
                }
            }
        }
        bundle.check()
    }

    /// The bundle, if it is a chart.
    pub(super) fn check(self) -> Result<Self, DeployError> {
        if self.files.contains_key("Chart.yaml") {
            Ok(self)
        } else {
            Err(invalid("chart", "has no Chart.yaml: it is no chart"))
        }
    }

    /// SHA-256 of all names and contents, in hexadecimal: the same however the chart came.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, content) in &self.files {
            for part in [name.as_bytes(), content.as_slice()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        hex(&hash.finalize())
    }

    /// Writes the files into a directory that nobody else writes to. It blocks on the file system.
    pub(crate) fn write(&self, directory: &Path) -> std::io::Result<()> {
        for (name, content) in &self.files {
            let path = directory.join(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, content)?;
        }
        Ok(())
    }
}

/// A name that leads nowhere else.
fn check_name(name: &str) -> Result<(), DeployError> {
    let is_good = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.matches('/').count() <= MAX_DEPTH
        && !name.contains(['\\', '\0'])
        && !name.chars().any(char::is_control)
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if is_good {
        Ok(())
    } else {
        Err(invalid(
            "chart",
            format!("{name:?} is no name of a file within the chart"),
        ))
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}
