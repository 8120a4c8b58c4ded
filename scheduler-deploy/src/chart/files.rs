//! The files of a chart: bounded, and never outside its directory.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use scheduler_core::port::deploy::DeployError;

use super::{invalid, is_allowed};

/// Bytes of one file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Files of one directory that are looked at.
const MAX_FILES: usize = 256;

/// A chart's directory.
#[derive(Debug)]
pub(super) struct ChartFiles {
    root: PathBuf,
}

impl ChartFiles {
    /// Opens the chart that a deployment names: a directory, or `file://` and a directory.
    pub(super) fn open(chart: &str, roots: &[PathBuf]) -> Result<Self, DeployError> {
        // The same whether the directory is there or not.
        let takes = if roots.is_empty() {
            "this deployer takes a directory of this machine, as a path or as file:///path"
        } else {
            "this deployer takes a directory of this machine, as a path or as file:///path, below one of those that its operator allows (--chart-root)"
        };
        if chart.is_empty() {
            return Err(invalid("chart", format!("must not be empty; {takes}")));
        }
        let path = match chart.split_once("://") {
            None => chart,
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => {
                return Err(invalid(
                    "chart",
                    "a file URL must have three slashes: file:///path",
                ));
            }
            Some((scheme, _)) => return Err(invalid("chart", format!("{scheme}:// is not taken; {takes}"))),
        };
        let refused = || invalid("chart", format!("there is no chart directory {path}; {takes}"));
        let root = Path::new(path).canonicalize().map_err(|_| refused())?;
        // A directory outside of the roots is answered like one that does not exist: who asks need not learn the difference.
        if !is_allowed(&root, roots) || !root.is_dir() {
            return Err(refused());
        }
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The text of a file; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, DeployError> {
        let path = match self.root.join(name).canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(name, &error)),
        };
        if !path.starts_with(&self.root) {
            return Err(invalid(name, "leads out of the chart's directory"));
        }
        let metadata = path.metadata().map_err(|error| unreadable(name, &error))?;
        if !metadata.is_file() {
            return Err(invalid(name, "must be a file"));
        }
        // One byte more than is allowed tells a file that is too long, also when it grows meanwhile.
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(name, &error))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(invalid(name, format!("is longer than {MAX_FILE_BYTES} bytes")));
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| invalid(name, "must be UTF-8"))
    }

    /// The YAML files of a directory, by name.
    pub(super) fn yaml_files(&self, directory: &str) -> Result<Vec<String>, DeployError> {
        let entries = match self.root.join(directory).read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(directory, &error)),
        };
        let mut names: Vec<String> = entries
            .take(MAX_FILES + 1)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        if names.len() > MAX_FILES {
            return Err(invalid(directory, format!("has more than {MAX_FILES} files")));
        }
        names.retain(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml")
        });
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| format!("{directory}/{name}"))
            .collect())
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> DeployError {
    invalid(name, format!("cannot be read: {error}"))
}
