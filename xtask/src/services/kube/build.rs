//! What the servers are built from.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::cache::{self, produced, write};
use super::super::golang::{Program, module};
use crate::Failed;

const KUBERNETES: &str = "1.34.4";
/// Older ones lack what kwok watches with.
const ETCD: &str = "3.6.6";
const KWOK: &str = "0.8.0";
const KEDA: &str = "2.21.0";
const KEDA_MODULE: &str = "github.com/kedacore/keda/v2";
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
    /// It is the system's.
    Containerd,
    Kubelet,
    KedaOperator,
    KedaAdapter,
}

impl Part {
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Etcd => ETCD,
            Self::Kwok => KWOK,
            Self::KedaOperator | Self::KedaAdapter => KEDA,
            Self::Apiserver | Self::ControllerManager | Self::Scheduler | Self::Kubelet => KUBERNETES,
            Self::Containerd => "system",
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
            Self::Kubelet => (
                "kubelet",
                "k8s.io/kubernetes/cmd/kubelet",
                "about 2 minutes on 2 cores",
            ),
            Self::KedaOperator => (
                "keda-operator",
                "github.com/kedacore/keda/v2/cmd/operator",
                "about 11 minutes on 2 cores",
            ),
            Self::KedaAdapter => (
                "keda-adapter",
                "github.com/kedacore/keda/v2/cmd/adapter",
                "about 2 minutes on 2 cores",
            ),
            Self::Containerd => return Ok("containerd".into()),
        };
        let program = Program {
            kind: KIND,
            name,
            version: self.version(),
            package,
            linked: match self.version() {
                KUBERNETES => linked(),
                KEDA => format!("-X {KEDA_MODULE}/version.Version={KEDA}"),
                _ => String::new(),
            },
            takes,
            // It would take every address of the machine for its metrics.
            patch: (self == Self::KedaAdapter).then_some((
                "fmt.Sprintf(\":%v\", metrics",
                "fmt.Sprintf(\"127.0.0.1:%v\", metrics",
            )),
        };
        program.binary(|source, _| match self.version() {
            KUBERNETES => staging(source),
            KEDA => keda_replacements(source),
            _ => Ok(String::new()),
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
    let path = module(source, &format!("k8s.io/kubernetes@v{KUBERNETES}"), "GoMod")?;
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(replacements(&text))
}

/// What KEDA's module replaces by other modules, which does not reach those who depend on it.
fn keda_replacements(source: &Path) -> Result<String, Failed> {
    let path = module(source, &format!("{KEDA_MODULE}@v{KEDA}"), "GoMod")?;
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let replaced: Vec<&str> = text.lines().filter(|line| line.starts_with("replace ")).collect();
    if replaced.iter().any(|line| line.ends_with('(')) {
        return Err(format!("{} replaces in another way than it did", path.display()));
    }
    Ok(format!(
        "\nrequire {KEDA_MODULE} v{KEDA}\n\n{}\n",
        replaced.join("\n")
    ))
}

/// The definitions of KEDA's kinds.
pub(super) fn keda_kinds() -> Result<Vec<PathBuf>, Failed> {
    let cache = cache::directory(KIND)?;
    let files = module(&cache, &format!("{KEDA_MODULE}@v{KEDA}"), "Dir")?.join("config/crd/bases");
    yaml_files(&files, &[""])
}

fn replacements(module: &str) -> String {
    let released = KUBERNETES.split_once('.').map_or("", |(_, rest)| rest);
    let staged = module
        .lines()
        .filter_map(|line| line.trim().split_once(" => ./staging/"));
    let replaced: Vec<String> = staged
        .map(|(name, _)| format!("\t{name} => {name} v0.{released}\n"))
        .collect();
    let replaced = replaced.concat();
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
        let module = module(&cache, &format!("sigs.k8s.io/kwok@v{KWOK}"), "Dir")?;
        let mut text = String::new();
        for folder in FOLDERS {
            let folder = module.join("kustomize/stage").join(folder);
            for file in yaml_files(&folder, &["node-", "pod-"])? {
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

/// The files of a folder whose names begin so, in order.
fn yaml_files(folder: &Path, beginnings: &[&str]) -> Result<Vec<PathBuf>, Failed> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".yaml") && beginnings.iter().any(|begins| name.starts_with(begins))
    });
    files.sort();
    if files.is_empty() {
        return Err(format!("{} has nothing of what is looked for", folder.display()));
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
