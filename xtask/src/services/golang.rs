//! Programs that are built from Go modules, once for each version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{self, make, produced, write};
use crate::Failed;
use crate::run::output;

/// A program, and how it is built.
#[derive(Clone, Debug)]
pub(crate) struct Program<'a> {
    /// The directory of the cache in which it lies.
    pub(crate) kind: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its version, without a `v`.
    pub(crate) version: &'a str,
    /// Its main package.
    pub(crate) package: &'a str,
    /// What the linker is told: `-X` and the like.
    pub(crate) linked: String,
    /// How long it takes the first time, for people.
    pub(crate) takes: &'a str,
    /// A text of its main file, and what is built in its place.
    pub(crate) patch: Option<(&'a str, &'a str)>,
}

impl Program<'_> {
    /// Where its binary is; built if it is not there. `requirements` writes the part of the module that is special to it.
    pub(crate) fn binary(
        &self,
        requirements: impl FnOnce(&Path, &Path) -> Result<String, Failed>,
    ) -> Result<PathBuf, Failed> {
        let cache = cache::directory(self.kind)?;
        let binary = cache.join(format!("{}-{}", self.name, self.version));
        if binary.exists() {
            return Ok(binary);
        }
        let _lock = cache::lock(&cache)?;
        produced(&binary, |partial| {
            println!(
                "building {} {} with Go (once; {})",
                self.name, self.version, self.takes
            );
            let source = cache.join(format!("source-{}-{}", self.name, self.version));
            let log = cache.join(format!("{}-build.log", self.name));
            make(&source)?;
            // What an interrupted build wrote into it is written anew.
            write(&source.join("go.mod"), &header(self.name))?;
            let more = requirements(&source, &log)?;
            write(&source.join("go.mod"), &format!("{}{more}", header(self.name)))?;
            let mut get = go(&source);
            // Without the version Go would move to the newest.
            get.args(["get", "-tool"])
                .arg(format!("{}@v{}", self.package, self.version));
            cache::run(get, &log)?;
            let package = match self.patch {
                Some((from, to)) => patched(&source, self.package, from, to)?,
                None => self.package,
            };
            let mut build = go(&source);
            build
                .args(["build", "-mod=mod", "-trimpath", "-ldflags"])
                .arg(format!("-s -w {}", self.linked))
                .arg("-o")
                .arg(partial)
                .arg(package);
            cache::run(build, &log)
        })?;
        Ok(binary)
    }
}

/// The package that has the main file as it is to be.
fn patched(source: &Path, package: &str, from: &str, to: &str) -> Result<&'static str, Failed> {
    let mut list = go(source);
    list.args(["list", "-mod=mod", "-f", "{{.Dir}}", package]);
    let file = Path::new(output(list)?.trim()).join("main.go");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    if !text.contains(from) {
        return Err(format!("{} has no `{from}`", file.display()));
    }
    make(&source.join("patched"))?;
    write(&source.join("patched/main.go"), &text.replace(from, to))?;
    Ok("./patched")
}

/// What the go command says of a module that it has fetched: `Dir` or `GoMod`.
pub(crate) fn module(directory: &Path, module: &str, field: &str) -> Result<PathBuf, Failed> {
    let mut download = go(directory);
    download.args(["mod", "download", "-json", module]);
    let told = output(download)?;
    let begins = format!("\"{field}\": \"");
    let path = told
        .lines()
        .find_map(|line| line.trim().strip_prefix(&begins)?.split('"').next());
    path.map(PathBuf::from)
        .ok_or_else(|| format!("`go mod download` does not say the {field} of {module}"))
}

fn header(name: &str) -> String {
    format!("module {name}-tool\n\ngo 1.25\n")
}

/// Go in a module's directory.
pub(crate) fn go(directory: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(directory).env("CGO_ENABLED", "0");
    go
}
