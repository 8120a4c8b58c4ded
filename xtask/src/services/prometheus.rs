//! Prometheus, which KEDA asks for charts of the older kind: the system's, or the one of Debian's package, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{self, make, produced};
use crate::run::run as execute;
use crate::{Failed, tools};

const PACKAGE: &str = "prometheus";

/// Where the program is; fetched if it is not there.
pub(crate) fn binary() -> Result<PathBuf, Failed> {
    if let Some(installed) = tools::installed(PACKAGE) {
        return Ok(installed);
    }
    let cache = cache::directory(PACKAGE)?;
    let package = cache.join("package");
    let binary = package.join("usr/bin/prometheus");
    if binary.exists() {
        return Ok(binary);
    }
    if !["apt-get", "dpkg"].into_iter().all(tools::is_installed) {
        return Err(format!(
            "`{PACKAGE}` is missing, which KEDA's tests need: install it (https://prometheus.io/download; on Debian: apt-get install {PACKAGE})"
        ));
    }
    let _lock = cache::lock(&cache)?;
    produced(&package, |partial| {
        println!("fetching Debian's package {PACKAGE} (once; 20 MB)");
        unpack(&cache, partial)
    })?;
    if binary.exists() {
        Ok(binary)
    } else {
        Err(format!("{} has no usr/bin/prometheus", package.display()))
    }
}

/// Fetches the package and unpacks it, which takes no rights and starts nothing.
fn unpack(cache: &Path, to: &Path) -> Result<(), Failed> {
    let log = cache.join("fetch.log");
    make(to)?;
    let download = || {
        let mut download = Command::new("apt-get");
        download.current_dir(to).args(["download", "-q", PACKAGE]);
        cache::run(download, &log)
    };
    // The lists may be out of date or absent.
    if let Err(problem) = download() {
        if !tools::is_root() {
            return Err(format!("{problem}; `sudo apt-get update` may help"));
        }
        tools::update()?;
        download()?;
    }
    let entries = fs::read_dir(to).into_iter().flatten().flatten();
    let file = entries
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| format!("`apt-get download {PACKAGE}` left nothing in {}", to.display()))?;
    let mut extract = Command::new("dpkg");
    extract.arg("--extract").arg(&file).arg(to);
    execute(extract)?;
    fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))
}
