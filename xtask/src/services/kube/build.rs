//! What the servers are built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::cache::{self, produced, write};
use super::super::golang::{Program, go};
use crate::Failed;
use crate::run::output;

const KUBERNETES: &str = "1.34.4";
/// Older ones lack what kwok watches with.
const ETCD: &str = "3.6.6";
const KWOK: &str = "0.8.0";
/// The directory of the cache.
const KIND: &str = "kube";

/// A program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Etcd,
    Apiserver,
    ControllerManager,
    Scheduler,
    Kwok,
}

/// Builds what is missing for the API server, and for what acts on its objects.
pub(crate) fn binaries(nodes: bool) -> Result<(), Failed> {
    Part::Etcd.binary()?;
    Part::Apiserver.binary()?;
    if nodes {
        for part in [Part::ControllerManager, Part::Scheduler, Part::Kwok] {
            part.binary()?;
        }
        stages()?;
    }
    Ok(())
}

impl Part {
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Etcd => ETCD,
            Self::Kwok => KWOK,
            Self::Apiserver | Self::ControllerManager | Self::Scheduler => KUBERNETES,
        }
    }

    /// Where the program is; built if it is not there.
    pub(super) fn binary(self) -> Result<PathBuf, Failed> {
        let (name, package, takes) = match self {
            Self::Etcd => ("etcd", "go.etcd.io/etcd/server/v3", "half a minute on 2 cores"),
            Self::Apiserver => (
                "kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "about 4 minutes on 2 cores",
            ),
            Self::ControllerManager => (
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "about 3 minutes on 2 cores",
            ),
            Self::Scheduler => (
                "kube-scheduler",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "half a minute on 2 cores",
            ),
            Self::Kwok => ("kwok", "sigs.k8s.io/kwok/cmd/kwok", "about 2 minutes on 2 cores"),
        };
        let is_kubernetes = self.version() == KUBERNETES;
        let program = Program {
            kind: KIND,
            name,
            version: self.version(),
            package,
            linked: if is_kubernetes { linked() } else { String::new() },
            takes,
        };
        program.binary(|source, _| {
            if is_kubernetes {
                staging(source)
            } else {
                Ok(String::new())
            }
        })
    }
}

/// Kubernetes' servers say their version by what the linker is told.
fn linked() -> String {
    let mut numbers = KUBERNETES.split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .map(|package| {
            format!(
                "-X {package}.gitVersion=v{KUBERNETES} -X {package}.gitMajor={major} \
                 -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
            )
        })
        .join(" ")
}

/// Kubernetes' module has parts of it replaced by directories of its repository; others take the released modules of these.
fn staging(source: &Path) -> Result<String, Failed> {
    let mut download = go(source);
    download
        .args(["mod", "download", "-json"])
        .arg(format!("k8s.io/kubernetes@v{KUBERNETES}"));
    let told = output(download)?;
    let path = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"GoMod\": \"")?.split('"').next())
        .ok_or("`go mod download` does not say where the module of Kubernetes is")?;
    let module = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(replacements(&module))
}

fn replacements(module: &str) -> String {
    let released = KUBERNETES.split_once('.').map_or("", |(_, rest)| rest);
    let replaced: String = module
        .lines()
        .filter_map(|line| line.trim().split_once(" => ./staging/"))
        .map(|(name, _)| format!("\t{name} => {name} v0.{released}\n"))
        .collect();
    format!("\nrequire k8s.io/kubernetes v{KUBERNETES}\n\nreplace (\n{replaced})\n")
}

/// What kwok plays: the stages of its own module that make nodes ready and pods run.
pub(super) fn stages() -> Result<PathBuf, Failed> {
    const FOLDERS: [&str; 3] = ["node/fast", "node/heartbeat-with-lease", "pod/fast"];
    let cache = cache::directory(KIND)?;
    let stages = cache.join(format!("kwok-stages-{KWOK}.yaml"));
    if stages.exists() {
        return Ok(stages);
    }
    Part::Kwok.binary()?;
    let _lock = cache::lock(&cache)?;
    produced(&stages, |partial| {
        let mut list = Command::new("go");
        list.args(["mod", "download", "-json"])
            .arg(format!("sigs.k8s.io/kwok@v{KWOK}"))
            .current_dir(&cache);
        let told = output(list)?;
        let module = told
            .lines()
            .find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.split('"').next())
            .ok_or("`go mod download` does not say where the module of kwok is")?;
        let mut text = String::new();
        for folder in FOLDERS {
            for file in stage_files(&Path::new(module).join("kustomize/stage").join(folder))? {
                let stage =
                    fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                text.push_str("---\n");
                text.push_str(&stage);
            }
        }
        write(partial, &text)
    })?;
    Ok(stages)
}

/// The stages of a folder, in order.
fn stage_files(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        (name.starts_with("node-") || name.starts_with("pod-")) && name.ends_with(".yaml")
    });
    files.sort();
    if files.is_empty() {
        return Err(format!("{} has no stages", folder.display()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_repository_become_released_modules() {
        let module = "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/kubectl => ./staging/src/k8s.io/kubectl\n)\n";
        let made = replacements(module);
        assert!(made.contains("\tk8s.io/api => k8s.io/api v0.34.4\n"), "{made}");
        assert!(made.contains("require k8s.io/kubernetes v1.34.4"), "{made}");
        assert_eq!(made.matches(" => ").count(), 2);
    }

    #[test]
    fn the_version_is_told_to_the_linker() {
        let linked = linked();
        assert!(linked.contains("gitVersion=v1.34.4") && linked.contains("gitMinor=34"));
    }
}
